"""An exponential moving average of a model's weights, which is what validation and users get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_of(
    model: nn.Module, decay: float, updates: int = 0, weights: Mapping[str, Tensor] | None = None
) -> AveragedModel:
    """A copy of a model that follows it by `update_parameters(model)` after each step.

    Update t moves every weight to d x average + (1 - d) x model with d = min(decay, (1 + t) / (10 + t)), so that the
    random start is soon forgotten (as TensorFlow's ExponentialMovingAverage does with `num_updates`); update 0 copies.

    BatchNorm's running mean and variance are averaged the same way, as torchvision's reference scripts do. They are
    the mean activations of the weights of the last ten or so steps; those of the averaged weights, which lag behind,
    are nearer to the average of them than to the last. Its counts of batches are whole numbers and are copied.

    Args:
        model: on its device, not wrapped.
        decay: in (0, 1): about 1 / (1 - decay) steps are averaged.
        updates: how many the average has had, when a run goes on.
        weights: the average then, a state dict.
    """

    @torch.no_grad()
    def update(averages: Any, current: Any, count: Tensor | int) -> None:
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, current)
            return
        warm = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averages, current, 1 - warm)

    averaged = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    averaged.requires_grad_(False)
    averaged.n_averaged.fill_(updates)
    if weights is not None:
        averaged.module.load_state_dict(weights)
    return averaged
