"""How weights follow from gradients: the optimizer, its groups of parameters, and the course of its learning rate.

Nothing here imports torch unless an optimizer is made.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import nn

_POLY_POWER = 0.9  # as in DeepLab (arXiv:1706.05587, section 4.1)
_MOMENTUM = 0.9


class Defaults(NamedTuple):
    """What an optimizer takes where nothing else is given.

    Args:
        lr: peak learning rate of the head on trained weights.
        lr_scratch: from random weights.
        weight_decay: AdamW's and Muon's is decoupled, relative to the learning rate; SGD's is added to the gradient.
    """

    lr: float
    lr_scratch: float
    weight_decay: float


OPTIMIZERS = {
    "adamw": Defaults(1e-3, 3e-3, 0.01),
    "muon": Defaults(1e-3, 3e-3, 0.01),  # AdamW's, by the size of its steps
    "sgd": Defaults(1e-2, 5e-2, 1e-4),  # 1e-2 and 1e-4: torchvision's own reference script for segmentation
}
SCHEDULES = ("poly", "cosine", "constant")


def parameter_groups(model: nn.Module, lr: float, body_factor: float, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: body and head, each with and without weight decay.

    Args:
        model: as `create_model` makes it.
        lr: learning rate of the head.
        body_factor: learning rate of the backbone relative to it.
        weight_decay: of weights; biases and BatchNorm get none.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (body_factor if body else 1),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (body, decays), parameters in groups.items()
    ]


def create_optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """One of `OPTIMIZERS` over `parameter_groups`; SGD has a momentum of 0.9, without Nesterov's look ahead."""
    import torch

    if name == "muon":
        from hotrain.learning.muon import Muon

        return Muon(groups)
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=_MOMENTUM, fused=True)
    return torch.optim.AdamW(groups, fused=True)


def learning_rate(step: int, steps: int, warmup: float, schedule: str = "poly") -> float:
    """Factor of the peak learning rate at a step: a linear rise, then one of `SCHEDULES`.

    With progress going from 0 to 1 after the rise: poly (1 - progress) ** 0.9; cosine (1 + cos(pi progress)) / 2
    (Loshchilov and Hutter, arXiv:1608.03983, without restarts); constant 1.

    Args:
        step: 0 <= step < steps.
        steps: of the whole run.
        warmup: share of the steps that the rise takes.
        schedule: one of `SCHEDULES`.

    Returns:
        in (0, 1].
    """
    rise = max(round(warmup * steps), 1)
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(steps - rise, 1)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return float((1 - progress) ** _POLY_POWER)
