"""Cross-entropy over sets of classes: a pixel costs -log of the summed probability of the classes that it may be.

Shapes: B batch, K classes, H W pixels, M meanings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hotrain.learning.hard_pixels import hardest

_HEAVIEST = 10.0


def class_sets(label: Tensor, meaning: Tensor, tables: Tensor) -> Tensor:
    """Which classes each pixel may be.

    Args:
        label: uint8 [B, H, W] of stored ids.
        meaning: int16 [B], row of `tables`.
        tables: uint8 [M, 256] on the same device.

    Returns:
        uint8 [B, H, W]: bit c is set where class c is possible.
    """
    index = label.int() + 256 * meaning.int()[:, None, None]
    return tables.reshape(-1).index_select(0, index.reshape(-1)).reshape(label.shape)


def set_weights(pixels: NDArray[np.int64], balance: float) -> Tensor:
    """How much a pixel of each set weighs in the loss.

    An IoU asks as much of a rare class as of a common one, and a sum over pixels does not: where hands are a tenth of
    the pixels, a model that is still unsure answers background everywhere. So a set's weight is its share of the
    pixels to the power -balance, at most 10 times the mean weight of a pixel, which is 1.

    Args:
        pixels: int64 [2**K], pixels of each set in the training samples.
        balance: 0: all weigh 1; 0.5: the square root.

    Returns:
        float32 [2**K]; 0 for the set of all classes, which costs nothing and is not counted.
    """
    decided = pixels.astype(np.float64)
    decided[-1] = 0
    present = decided > 0
    weights = np.ones(len(pixels))
    if present.any():
        weights[present] = decided[present] ** -balance
        weights[present] *= decided.sum() / (weights * decided).sum()
    weights = np.minimum(weights, _HEAVIEST)
    weights[-1] = 0
    return torch.from_numpy(weights.astype(np.float32))


def set_loss(logits: Tensor, sets: Tensor, weights: Tensor, prior: float = 0.0, share: float = 1.0) -> Tensor:
    """Sum over pixels of weight x (logsumexp(all classes) - logsumexp(classes in the set)).

    One class in the set: cross-entropy. All classes: 0 with a gradient of exactly 0. Marginalising over the classes
    that a label leaves open follows Cour, Sapp and Taskar, "Learning from partial labels" (JMLR 2011).

    A set that leaves background open lets another class flood it: nothing in FreiHAND's backgrounds says that they are
    no object. So such a pixel also costs prior x -log of background's share of the set, which decides where nothing
    else does.

    Args:
        logits: [B, K, H, W], any float type; computed in float32. Class 0 is background.
        sets: uint8 [B, H, W], never 0.
        weights: float32 [2**K], of each set.
        prior: weight of the prior toward background; 0: none.
        share: of each image's decided pixels, only this share is summed: those that add most, weight and prior
            included, so the sum is the greatest that so many pixels can give (`hard_pixels.hardest`).

    Returns:
        float32 []: the sum. Divide it by share x the decided pixels' summed weight, known before backward
        (`Criterion.amounts` over all ranks, times `weights`).
    """
    weight = weights.index_select(0, sets.reshape(-1).int()).reshape(sets.shape)
    loss: Tensor = _SetLoss.apply(logits.float().contiguous(), sets, weight, prior, share)
    return loss


class _SetLoss(torch.autograd.Function):
    """`set_loss` with its gradient written out: a quarter of the time that autograd takes for it on a CPU.

    With p = softmax over all classes and q = softmax over those of the set, the gradient is weight x (p - q), and
    prior x (q - background) where the set leaves background open.
    """

    @staticmethod
    def forward(context: Any, logits: Tensor, sets: Tensor, weight: Tensor, prior: float, share: float) -> Tensor:
        bits = torch.arange(logits.shape[1], device=sets.device, dtype=torch.uint8)[:, None, None]
        outside = ((sets[:, None] >> bits) & 1) == 0
        log_p = logits.log_softmax(1)
        log_q = torch.where(outside, -torch.inf, logits).log_softmax(1)
        # log p - log q is log of the set's probability for every class of the set: its first one serves.
        first = torch.tensor([0, *((n & -n).bit_length() - 1 for n in range(1, 1 << logits.shape[1]))])
        member = (
            first.to(sets.device, non_blocking=True)
            .index_select(0, sets.reshape(-1).int())
            .reshape(sets.shape)[:, None]
        )
        loss = (log_q.gather(1, member) - log_p.gather(1, member))[:, 0]
        # The set of all classes costs exactly 0: both are the same numbers then.
        if prior:
            loss = loss - prior * log_q[:, 0].masked_fill(outside[:, 0], 0.0)
        if share < 1:
            decided = sets != (1 << logits.shape[1]) - 1
            weight = weight * hardest(loss * weight, decided, share)
        context.save_for_backward(log_p, log_q, outside, weight)
        context.prior = prior
        return (loss * weight).sum()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        log_p, log_q, outside, weight = context.saved_tensors
        q = log_q.softmax(1)  # of its own logarithm: the same, and faster than exp, which stumbles over -inf
        gradient = log_p.softmax(1).sub_(q)
        if context.prior:
            open_to_background = ~outside[:, :1]
            gradient.addcmul_(q, open_to_background.to(q.dtype), value=context.prior)
            gradient[:, :1] -= context.prior * open_to_background
        return gradient.mul_((weight * gradients[0])[:, None]), None, None, None, None
