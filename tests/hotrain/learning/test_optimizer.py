"""Parameter groups, optimizers against their formulas, and the course of the learning rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from hotrain.learning.muon import Muon
from hotrain.learning.optimizer import OPTIMIZERS, SCHEDULES, create_optimizer, learning_rate, parameter_groups
from hotrain.model import create_model


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "lraspp_mobilenet_v3_large"])
def test_parameter_groups_hold_every_parameter_once(name: str) -> None:
    """Biases and everything of BatchNorm are without decay; the backbone has its own rate."""
    model = create_model(name, 3)
    groups = parameter_groups(model, 0.01, 0.1, 0.05)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    rates = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    for prefix, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            body, decays = prefix.startswith("backbone."), own == "weight" and not isinstance(module, nn.BatchNorm2d)
            assert rates[id(parameter)] == (pytest.approx(0.001 if body else 0.01), 0.05 if decays else 0.0)


def test_sgd_follows_its_formula() -> None:
    """Velocity 0.9 v + (gradient + decay w), weight minus rate x velocity; the bias without decay."""
    model = nn.Linear(3, 2)
    optimizer = create_optimizer("sgd", parameter_groups(model, 0.1, 1.0, 0.01))
    rng = np.random.default_rng(0)
    expected = {name: value.detach().numpy().astype(np.float64) for name, value in model.named_parameters()}
    velocity = {name: np.zeros_like(value) for name, value in expected.items()}
    for _ in range(4):
        for name, parameter in model.named_parameters():
            gradient = rng.normal(size=parameter.shape)
            parameter.grad = torch.from_numpy(gradient).float()
            decay = 0.01 if name == "weight" else 0.0
            velocity[name] = 0.9 * velocity[name] + gradient + decay * expected[name]
            expected[name] = expected[name] - 0.1 * velocity[name]
        optimizer.step()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=1e-5)


def test_every_optimizer_is_another_one() -> None:
    kinds = {type(create_optimizer(name, parameter_groups(nn.Linear(2, 2), 0.1, 1, 0))) for name in OPTIMIZERS}
    assert kinds == {torch.optim.AdamW, Muon, torch.optim.SGD}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rate_rises_then_falls(schedule: str) -> None:
    factors = np.array([learning_rate(step, 1000, 0.05, schedule) for step in range(1000)])
    np.testing.assert_allclose(factors[:50], np.arange(1, 51) / 50)
    progress = np.arange(950) / 950
    fall = {"poly": (1 - progress) ** 0.9, "cosine": np.cos(math.pi / 2 * progress) ** 2, "constant": 1 + 0 * progress}
    np.testing.assert_allclose(factors[50:], fall[schedule])
    assert factors.max() == 1 and factors.min() > 0
    assert learning_rate(0, 1, 0.05, schedule) == 1.0
