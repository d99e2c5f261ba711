"""Cross-entropy over sets of classes: a pixel costs -log of the summed probability of the classes that it may be.

Shapes: B batch, K classes, H W pixels, M meanings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hodata.labels import Meaning, Task, task_table

_HEAVIEST = 10.0


def set_tables(meanings: Sequence[Meaning], task: Task) -> Tensor:
    """uint8 [M, 256]: `task_table` of each meaning; indexed by (meaning, stored id)."""
    return torch.from_numpy(np.stack([task_table(meaning, task) for meaning in meanings]))


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


def set_counts(sets: Tensor, classes: int) -> Tensor:
    """int64 [2**K], on the CPU: pixels of each set. Whole numbers, so that their sum over ranks is exact."""
    return torch.bincount(sets.reshape(-1), minlength=1 << classes).cpu()


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


def set_loss(logits: Tensor, sets: Tensor, weights: Tensor, prior: float = 0.0) -> Tensor:
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

    Returns:
        float32 []: the sum. Divide it by the pixels' summed weight, known before backward: `set_counts` over all
        ranks, times `weights`.
    """
    logits = logits.float()
    bits = torch.arange(logits.shape[1], device=sets.device, dtype=torch.uint8)[:, None, None]
    possible = ((sets[:, None] >> bits) & 1).bool()
    of_set = logits.masked_fill(~possible, -torch.inf).logsumexp(1)
    loss = logits.logsumexp(1) - of_set
    if prior:
        loss = loss + prior * (of_set - logits[:, 0]).masked_fill(~possible[:, 0], 0.0)
    weight = weights.index_select(0, sets.reshape(-1).int()).reshape(sets.shape)
    return (loss * weight).sum()
