"""The hardest pixels: how many, which, and what the loss over them alone is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hotrain.learning.hard_pixels import hardest
from hotrain.learning.loss import set_loss

SHARES = st.floats(0.01, 1.0)


def arrays(seed: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [3, K, 5, 6], sets, of which a third decides nothing, and a weight of each set."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, 5, 6, generator=generator) * 3
    sets = torch.randint(1, 1 << classes, (3, 5, 6), generator=generator).byte()
    sets[torch.rand(3, 5, 6, generator=generator) < 0.3] = (1 << classes) - 1
    sets[2, :, :3] = (1 << classes) - 1
    weights = torch.rand(1 << classes, generator=generator) + 0.1
    weights[-1] = 0
    return logits, sets, weights


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), share=SHARES)
def test_of_each_image_so_many_are_kept_and_none_left_out_costs_more(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss = torch.randint(0, 8, (3, 4, 5), generator=generator).float()  # with ties
    decided = torch.rand(3, 4, 5, generator=generator) < 0.7
    decided[1] = False
    kept = hardest(loss, decided, share)
    assert not (kept & ~decided).any()
    for of_image, all_kept, cost in zip(decided, kept, loss, strict=True):
        assert int(all_kept.sum()) == math.ceil(int(of_image.sum()) * share)
        out = of_image & ~all_kept
        if all_kept.any() and out.any():
            assert cost[all_kept].min() >= cost[out].max()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), share=SHARES, prior=st.sampled_from([0.0, 0.3]))
def test_the_loss_equals_the_slow_twin(seed: int, share: float, prior: float) -> None:
    """Pixel by pixel in float64: weighted costs of each image, sorted, the first of them summed."""
    logits, sets, weights = arrays(seed)
    total = 0.0
    for image, truth in zip(logits.double().softmax(1).numpy(), sets.numpy(), strict=True):
        costs = []
        for (y, x), members in np.ndenumerate(truth):
            inside = math.fsum(image[c, y, x] for c in range(4) if members >> c & 1)
            if members != 15:
                cost = -math.log(inside)
                if members & 1:
                    cost -= prior * math.log(image[0, y, x] / inside)
                costs.append(float(weights[members]) * cost)
        total += math.fsum(sorted(costs, reverse=True)[: math.ceil(share * len(costs))])
    assert float(set_loss(logits, sets, weights, prior, share)) == pytest.approx(total, rel=1e-4, abs=1e-5)


def test_what_is_left_out_has_no_gradient_and_the_rest_has_its_own() -> None:
    logits, sets, weights = arrays(3)
    gradients = []
    for share in (1.0, 0.25):
        logits.grad = None
        logits.requires_grad_()
        set_loss(logits, sets, weights, 0.1, share).backward()
        assert logits.grad is not None
        gradients.append(logits.grad.clone())
    moved = gradients[1].abs().sum(1) > 0
    decided = sets != 15
    for of_image, all_decided in zip(moved, decided, strict=True):
        assert int(of_image.sum()) == math.ceil(int(all_decided.sum()) * 0.25)
    chosen = moved[:, None].expand_as(logits)
    torch.testing.assert_close(gradients[1][chosen], gradients[0][chosen])
