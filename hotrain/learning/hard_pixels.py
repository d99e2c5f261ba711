"""Which pixels of an image are the hardest: the others are left out of a step.

Shapes: B images, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hardest(loss: Tensor, decided: Tensor, share: float) -> Tensor:
    """The pixels of each image that cost most.

    Of an image with n decided pixels, ceil(share x n) are kept; of equal ones any. Shrivastava, Gupta and Girshick,
    "Online hard example mining" (arXiv:1604.03540), for pixels Wu, Shen and van den Hengel (arXiv:1605.06885); here by
    image, so that an image with much to learn does not silence the others and no rank needs to know another's.

    Args:
        loss: float [B, H, W].
        decided: bool [B, H, W]; others are never kept.
        share: in (0, 1].

    Returns:
        bool [B, H, W].
    """
    flat = loss.masked_fill(~decided, -torch.inf).flatten(1)
    count = (decided.flatten(1).sum(1).double() * share).ceil()
    falling = flat.argsort(1, descending=True)
    kept = torch.arange(flat.shape[1], device=loss.device) < count[:, None]
    return torch.zeros_like(kept).scatter_(1, falling, kept).reshape(loss.shape)
