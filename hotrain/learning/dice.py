"""Soft Dice over sets of classes: how much of each set's region the answers overlap, image by image.

Shapes: B images, K classes, H W pixels, T kinds of sets.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dice_loss(logits: Tensor, sets: Tensor, kinds: Tensor) -> Tensor:
    """Sum over images of the mean over the image's sets of 1 - Dice.

    With p the softmax, S(x) the set of pixel x, and sums over the decided pixels of one image, a set s that occurs in
    the image has

        hit    = sum of p_c(x) over x with S(x) = s and c in s
        missed = sum of p_c(x) over x with S(x) = s and c not in s
        false  = sum of p_c(x) over x with S(x) = t != s and c in s but not in t
        1 - Dice = 1 - 2 hit / (2 hit + missed + false)

    So classes are summed as the set loss sums them, and only where a mask merges them: of an image whose masks draw
    hand and arm as one, Dice compares p(hand) + p(arm) with that one region; of an image that tells them apart, each
    with its own. A class that a pixel may be is never false there: where two sets overlap, no pixel counts against a
    class that its own set allows. Disjoint sets give the usual soft Dice of the merged classes, one class each the
    usual soft Dice of the classes. Pixels whose set is all classes count nowhere; neither do sets that the image lacks,
    whose false pixels are missed ones of another set already. Nothing is smoothed: a set that occurs has pixels, so
    no divisor is below 1.

    Soft Dice: Milletari, Navab and Ahmadi, "V-Net" (arXiv:1606.04797); without its squares, and the mean over classes,
    as in nnU-Net (arXiv:1809.10486).

    Args:
        logits: [B, K, H, W], any float type; computed in float32.
        sets: uint8 [B, H, W], bit masks over K.
        kinds: uint8 [T], all different: the sets that may occur, without the set of all classes.

    Returns:
        float32 []: in [0, B]. Divide it by the number of images with a decided pixel, over all ranks, which is known
        before backward.
    """
    p = logits.float().softmax(1).flatten(2)
    of_kind = sets.flatten(1)[:, None] == kinds[:, None]  # [B, T, HW]
    # The soft twin of the confusion matrix: [b, t, c], how much of class c is answered on the pixels of set t.
    answered = of_kind.to(p.dtype) @ p.transpose(1, 2)
    bits = torch.arange(logits.shape[1], device=kinds.device, dtype=torch.uint8)
    inside = ((kinds[:, None] >> bits) & 1).to(p.dtype)  # [T, K]
    hit = (answered * inside).sum(2)
    pixels = of_kind.sum(2)
    # [s, t, c]: class c is in s and not in t; empty for s = t.
    elsewhere = inside[:, None] * (1 - inside[None])
    false = torch.einsum("btc,stc->bs", answered, elsewhere)
    present = pixels > 0
    # missed + hit = pixels: what is answered on a pixel sums to 1.
    dice = 2 * hit / (hit + pixels + false).clamp(min=1)
    loss: Tensor = ((1 - dice) * present).sum(1) / present.sum(1).clamp(min=1)
    return loss.sum()
