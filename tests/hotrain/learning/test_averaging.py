"""The average of weights against a slow twin: what is averaged, what is copied, and going on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from hotrain.learning.averaging import Average


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))


def course(model: nn.Module, steps: int) -> Iterator[dict[str, np.ndarray]]:
    """The states that a model goes through: random ones, with running statistics of random images."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            model(torch.randn(4, 2, 8, 8, generator=generator))
        yield {name: value.numpy().copy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_equals_the_slow_twin(decay: float) -> None:
    model = network()
    average, expected = Average(model, decay), {}
    for t, state in enumerate(course(model, 20)):
        average.update()
        d = min(decay, (1 + t) / (10 + t)) if t else 0.0
        for name, value in state.items():
            counts = name.endswith("num_batches_tracked")
            expected[name] = value if t == 0 or counts else d * expected[name] + (1 - d) * value
        for name, found in average.module.state_dict().items():
            np.testing.assert_allclose(found.numpy(), expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert average.module.state_dict()["1.num_batches_tracked"] == 20
    assert not np.allclose(expected["1.running_mean"], state["1.running_mean"], atol=1e-3)


def test_it_goes_on_where_it_was_bit_for_bit() -> None:
    whole, model = network(), network()
    straight = Average(whole, 0.9)
    for _ in course(whole, 9):
        straight.update()
    first = Average(model, 0.9)
    for t, _ in enumerate(course(model, 9)):
        if t == 4:
            stored = {name: value.clone() for name, value in first.module.state_dict().items()}
            first = Average(model, 0.9, updates=4, weights=stored)
        first.update()
    for name, value in straight.module.state_dict().items():
        assert torch.equal(value, first.module.state_dict()[name]), name
