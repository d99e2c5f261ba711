"""An exponential moving average of a model's weights, which is what validation and users get."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """A copy of a model that follows it: `update` after each step.

    Update t moves every weight to d x average + (1 - d) x model with d = min(decay, (1 + t) / (10 + t)), so that the
    random start is soon forgotten (as TensorFlow's ExponentialMovingAverage does with `num_updates`); update 0 copies.

    BatchNorm's running mean and variance are averaged the same way, as torchvision's reference scripts do. They are
    the mean activations of the weights of the last ten or so steps; those of the averaged weights, which lag behind,
    are nearer to the average of them than to the last. Its counts of batches are whole numbers and are copied.

    torch.optim.swa_utils.AveragedModel, which does the same, keeps t in a tensor and moves it between CPU and GPU at
    every update, so that each waits for the other.

    Args:
        model: on its device, not wrapped.
        decay: in (0, 1): about 1 / (1 - decay) steps are averaged.
        updates: how many the average has had, when a run goes on.
        weights: the average then, a state dict.
    """

    def __init__(
        self, model: nn.Module, decay: float, updates: int = 0, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        if weights is not None:
            self.module.load_state_dict(weights)
        self._decay, self._updates = decay, updates
        # The model's tensors are changed in place, never replaced.
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Follow the model by one step."""
        t, self._updates = self._updates, self._updates + 1
        kept = min(self._decay, (1 + t) / (10 + t)) if t else 0.0
        averages, current = zip(*self._floats, strict=True)
        if kept:
            torch._foreach_lerp_(averages, current, 1 - kept)
        else:
            torch._foreach_copy_(averages, current)
        for count, of_model in self._counts:
            count.copy_(of_model)
