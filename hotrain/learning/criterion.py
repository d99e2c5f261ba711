"""What a step makes small: the loss over sets of every head, and soft Dice where it is wanted.

Each part is a sum over pixels or images, divided by a number that all ranks know before the first backward pass. So
the loss and its gradient do not depend on how a batch is cut into ranks and passes: a mean of means would weigh parts
with few decided pixels too high.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hotrain.config import FitConfig
from hotrain.learning.dice import dice_loss
from hotrain.learning.loss import set_loss
from hotrain.model import AUX_WEIGHT


class Divisors(NamedTuple):
    """What the sums of a whole batch are divided by.

    Args:
        weight: summed weight of the decided pixels, times the share of them that is kept. It is the expected weight of
            kept pixels, not theirs: that is known only after all ranks' forward passes, and dividing by it would take
            back from rare classes, which are hard more often, what their weight gives them.
        images: those with a decided pixel.
    """

    weight: float
    images: float


class Criterion:
    """The loss of a run.

    Args:
        tables: uint8 [M, 256], on the CPU, which sets occur (`open_labels.training_tables`).
        weights: float32 [2**K], of each set (`loss.set_weights`), on the CPU.
        config: `prior`, `hard_pixels` and `dice`.
        device: where the logits are.
    """

    def __init__(self, tables: Tensor, weights: Tensor, config: FitConfig, device: torch.device) -> None:
        self._tables, self._weights, self._weights_there = tables, weights, weights.to(device)
        self._prior, self._share, self._dice = config.prior, config.hard_pixels, config.dice
        # From the tables, not from counts of the training masks: mirrored images hold sets that no mask does.
        kinds = tables.unique()
        self._kinds = kinds[(kinds != 0) & (kinds != len(weights) - 1)].to(device)

    def amounts(self, counts: Tensor, meaning: Tensor) -> Tensor:
        """int64 [2**K + 1]: pixels of each set, and images that decide any.

        Whole numbers, so that their sum over ranks and passes is exact. On the CPU, so that no GPU is waited for.

        Args:
            counts: int64 [B, 256], pixels of each stored id, as the loader has counted them.
            meaning: int16 [B], row of the tables.
        """
        sets = self._tables[meaning.long()]
        of_sets = torch.zeros(len(self._weights), dtype=torch.int64)
        of_sets.index_add_(0, sets.reshape(-1).int(), counts.reshape(-1))
        decided = (counts > 0) & (sets != len(self._weights) - 1)
        return torch.cat([of_sets, decided.any(1).sum()[None]])

    def divisors(self, amounts: Tensor) -> Divisors:
        """From the `amounts` of all ranks and passes."""
        weight = float(amounts[:-1].double() @ self._weights.double()) * self._share
        return Divisors(max(weight, 1.0), max(float(amounts[-1]), 1.0))

    def __call__(self, outputs: Mapping[str, Tensor], sets: Tensor, divisors: Divisors) -> Tensor:
        """What one pass adds to the loss of the whole batch.

        Args:
            outputs: logits [B, K, H, W] of each head; `aux` counts 0.4 times.
            sets: uint8 [B, H, W].
            divisors: of the whole batch.

        Returns:
            float32 [].
        """
        loss = self._of_head(outputs["out"], sets, divisors)
        if "aux" in outputs:
            loss = loss + AUX_WEIGHT * self._of_head(outputs["aux"], sets, divisors)
        return loss

    def _of_head(self, logits: Tensor, sets: Tensor, divisors: Divisors) -> Tensor:
        loss = set_loss(logits, sets, self._weights_there, self._prior, self._share) / divisors.weight
        if self._dice:
            loss = loss + self._dice * dice_loss(logits, sets, self._kinds) / divisors.images
        return loss
