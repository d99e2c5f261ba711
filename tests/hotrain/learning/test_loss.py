"""The loss over sets against an independent NumPy twin, and its properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hodata.labels import MEANINGS, TASKS, Label, task_table
from hotrain.learning.loss import class_sets, set_weights
from hotrain.learning.loss import set_loss as weighted_set_loss


def slow_loss(logits: np.ndarray, sets: np.ndarray) -> float:
    """Pixel by pixel: -log of the summed softmax of the classes in the set, in exact sums of float64."""
    total = 0.0
    batch, classes, height, width = logits.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                pixel = logits[b, :, y, x].astype(np.float64)
                weights = [math.exp(value - pixel.max()) for value in pixel]
                inside = math.fsum(weights[c] for c in range(classes) if int(sets[b, y, x]) >> c & 1)
                total -= math.log(inside / math.fsum(weights))
    return total


def set_loss(logits: torch.Tensor, sets: torch.Tensor, prior: float = 0.0) -> torch.Tensor:
    """With a weight of 1 for every set that decides anything."""
    weights = set_weights(np.ones(1 << logits.shape[1], dtype=np.int64), 0.0)
    return weighted_set_loss(logits, sets, weights, prior)


def arrays(seed: int, classes: int, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 4, 5, generator=generator) * scale
    sets = torch.randint(1, 1 << classes, (2, 4, 5), generator=generator, dtype=torch.int64).byte()
    return logits, sets


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 8), scale=st.sampled_from([0.1, 3.0, 40.0]))
def test_equals_the_slow_twin(seed: int, classes: int, scale: float) -> None:
    logits, sets = arrays(seed, classes, scale)
    assert float(set_loss(logits, sets)) == pytest.approx(slow_loss(logits.numpy(), sets.numpy()), rel=1e-4, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 8))
def test_singletons_are_cross_entropy(seed: int, classes: int) -> None:
    logits, _ = arrays(seed, classes)
    truth = torch.randint(0, classes, (2, 4, 5), generator=torch.Generator().manual_seed(seed))
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = set_loss(mine, (1 << truth).byte())
    reference = functional.cross_entropy(theirs, truth, reduction="sum")
    torch.testing.assert_close(loss, reference)
    loss.backward()
    reference.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), part_of=st.lists(st.integers(0, 3), min_size=2, max_size=8))
def test_a_partition_into_sets_is_cross_entropy_of_the_merged_classes(seed: int, part_of: list[int]) -> None:
    """Whatever classes are merged, by summing their probabilities: plain cross-entropy over the parts, gradient too."""
    names = sorted(set(part_of))
    member = torch.tensor([[part == name for part in part_of] for name in names])
    logits, _ = arrays(seed, len(part_of))
    truth = torch.randint(0, len(names), (2, 4, 5), generator=torch.Generator().manual_seed(seed))
    mine, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    merged = torch.einsum("pk,bkhw->bphw", member.double(), theirs.softmax(1)).log().contiguous()
    expected = functional.nll_loss(merged, truth, reduction="sum")
    bits = (member * (1 << torch.arange(len(part_of)))).sum(1).byte()
    loss = set_loss(mine, bits[truth])
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-4)
    loss.backward()
    expected.backward()
    assert mine.grad is not None and theirs.grad is not None
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5)


def test_all_classes_cost_exactly_nothing() -> None:
    logits, _ = arrays(0, 4, 50.0)
    logits.requires_grad_()
    loss = set_loss(logits, torch.full((2, 4, 5), 0b1111, dtype=torch.uint8))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None and not logits.grad.any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6))
def test_weights_multiply_each_pixel(seed: int, classes: int) -> None:
    logits, sets = arrays(seed, classes)
    weights = torch.rand(1 << classes, generator=torch.Generator().manual_seed(seed))
    expected = sum(
        float(weights[int(of_pixel)])
        * slow_loss(logits.numpy()[b, :, y, x][None, :, None, None], of_pixel[None, None, None])
        for (b, y, x), of_pixel in np.ndenumerate(sets.numpy())
    )
    assert float(weighted_set_loss(logits, sets, weights)) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=8, max_size=8), st.sampled_from([0.0, 0.5, 1.0]))
def test_set_weights_balance_shares(pixels: list[int], balance: float) -> None:
    weights = set_weights(np.array(pixels), balance).numpy()
    assert weights[-1] == 0 and (weights[:-1] > 0).all() and weights.max() <= 10
    if balance == 0:
        assert (weights[:-1] == 1).all()
    for one in range(7):
        for other in range(7):
            if pixels[one] and pixels[other] and max(weights[one], weights[other]) < 10:
                ratio = (pixels[other] / pixels[one]) ** balance
                assert weights[one] / weights[other] == pytest.approx(ratio, rel=1e-4)
    present = np.array(pixels[:-1], dtype=float)
    if present.any() and weights.max() < 10:
        assert (weights[:-1] * present).sum() == pytest.approx(present.sum(), rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6), prior=st.sampled_from([0.05, 1.0]))
def test_the_prior_costs_what_background_lacks_of_an_open_set(seed: int, classes: int, prior: float) -> None:
    logits, sets = arrays(seed, classes)
    shares = logits.double().softmax(1).numpy()
    expected = 0.0
    for (b, y, x), of_pixel in np.ndenumerate(sets.numpy()):
        members = [c for c in range(classes) if int(of_pixel) >> c & 1]
        if 0 in members and len(members) < classes:
            expected -= prior * math.log(shares[b, 0, y, x] / math.fsum(shares[b, c, y, x] for c in members))
    found = float(set_loss(logits, sets, prior)) - float(set_loss(logits, sets))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6), prior=st.sampled_from([0.0, 0.3]))
def test_the_gradient_is_that_of_the_formula(seed: int, classes: int, prior: float) -> None:
    logits, sets = arrays(seed, classes)
    mine, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    set_loss(mine, sets, prior).backward()
    for (b, y, x), of_pixel in np.ndenumerate(sets.numpy()):
        if of_pixel == (1 << classes) - 1:
            continue
        pixel, members = theirs[b, :, y, x], [c for c in range(classes) if of_pixel >> c & 1]
        loss = pixel.logsumexp(0) - pixel[members].logsumexp(0)
        if 0 in members:
            loss = loss + prior * (pixel[members].logsumexp(0) - pixel[0])
        loss.backward()
    expected = torch.zeros_like(logits) if theirs.grad is None else theirs.grad.float()
    torch.testing.assert_close(mine.grad, expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_finite_at_extreme_logits() -> None:
    logits = torch.tensor([1e4, -1e4, 0.0])[None, :, None, None].requires_grad_()
    loss = set_loss(logits, torch.tensor([[[0b010]]], dtype=torch.uint8))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2e4)
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits, sets = arrays(1, 3)
    loss = set_loss(logits.bfloat16(), sets)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(set_loss(logits.bfloat16().float(), sets)))


def test_sets_follow_each_image_s_own_meaning() -> None:
    task, meanings = TASKS["hand-object"], [MEANINGS["egohos"], MEANINGS["hand-wrist"]]
    label = torch.tensor([[[0, 1, 255]], [[0, 9, 10]]], dtype=torch.uint8)
    tables = torch.from_numpy(np.stack([task_table(meaning, task) for meaning in meanings]))
    sets = class_sets(label, torch.tensor([0, 1], dtype=torch.int16), tables)
    expected = [[task_table(m, task)[v] for v in row[0]] for m, row in zip(meanings, label.numpy(), strict=True)]
    np.testing.assert_array_equal(sets.numpy()[:, 0], expected)
    counts = torch.bincount(sets.reshape(-1), minlength=1 << len(task.classes))
    assert counts.sum() == 6 and counts[-1] == 1 and counts[0b0100] == 1  # one void pixel, one object
    assert sets[0, 0, 2] == 0b1111 and int(Label.VOID) == 255
