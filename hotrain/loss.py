"""Cross-entropy over sets of classes: a pixel costs -log of the summed probability of the classes that it may be.

Shapes: B batch, K classes, H W pixels, M meanings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hodata.labels import Meaning, Task, task_table


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


def decided_pixels(sets: Tensor, classes: int) -> Tensor:
    """int64 []: how many pixels exclude at least one class; only these cost anything."""
    return (sets != (1 << classes) - 1).sum()


def set_loss(logits: Tensor, sets: Tensor, prior: float = 0.0) -> Tensor:
    """Sum over pixels of logsumexp(all classes) - logsumexp(classes in the set).

    One class in the set: cross-entropy. All classes: 0 with a gradient of exactly 0. Marginalising over the classes
    that a label leaves open follows Cour, Sapp and Taskar, "Learning from partial labels" (JMLR 2011).

    A set that leaves background open lets another class flood it: nothing in FreiHAND's backgrounds says that they are
    no object. So such a pixel also costs prior x -log of background's share of the set, which decides where nothing
    else does.

    Args:
        logits: [B, K, H, W], any float type; computed in float32. Class 0 is background.
        sets: uint8 [B, H, W], never 0.
        prior: weight of the prior toward background; 0: none.

    Returns:
        float32 []: the sum. Divide it by a count known before backward (`decided_pixels` over all ranks).
    """
    logits = logits.float()
    bits = torch.arange(logits.shape[1], device=sets.device, dtype=torch.uint8)[:, None, None]
    possible = ((sets[:, None] >> bits) & 1).bool()
    of_set = logits.masked_fill(~possible, -torch.inf).logsumexp(1)
    loss = (logits.logsumexp(1) - of_set).sum()
    if prior:
        open_ground = possible[:, 0] & (sets != (1 << logits.shape[1]) - 1)
        loss = loss + prior * (of_set - logits[:, 0])[open_ground].sum()
    return loss
