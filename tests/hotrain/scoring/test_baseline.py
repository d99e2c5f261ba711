"""The colour histogram: what it can know, and what it cannot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drawn_shards import Spec
from hypothesis import given, settings
from hypothesis import strategies as st

from hodata.labels import TASKS, Label
from hodata.shards.reader import ShardIndex
from hotrain.errors import SelectionError
from hotrain.evaluate import evaluate
from hotrain.scoring.baseline import color_bins, fit_color_histogram, fit_posterior


def log_likelihood(posterior: np.ndarray, counts: np.ndarray) -> float:
    """Bin by bin and set by set: pixels times the log of the summed probability."""
    total = 0.0
    for bin_number, of_bin in enumerate(counts):
        for classes, pixels in enumerate(of_bin):
            if pixels:
                inside = sum(posterior[bin_number, c] for c in range(posterior.shape[1]) if classes >> c & 1)
                total += pixels * np.log(inside)
    return total


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_singletons_give_shares(seed: int) -> None:
    counts = np.zeros((4, 8), np.int64)
    counts[:, [1, 2, 4]] = np.random.default_rng(seed).integers(1, 10**7, (4, 3))
    expected = counts[:, [1, 2, 4]] / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(fit_posterior(counts, 3), expected, atol=1e-2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_fit_is_the_most_likely_one(seed: int) -> None:
    """No random neighbour explains sets of classes better."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 10**6, (3, 8)) * (rng.random((3, 8)) < 0.7)
    counts[:, 0] = 0
    counts[0, 1:5] += 10**5
    posterior = fit_posterior(counts, 3)
    np.testing.assert_allclose(posterior.sum(1), 1)
    best = log_likelihood(np.maximum(posterior, 1e-12), counts)
    for _ in range(20):
        other = np.maximum(posterior + rng.normal(0, 0.03, posterior.shape), 1e-9)
        assert log_likelihood(other / other.sum(1, keepdims=True), counts) <= best + 1e-4 * counts.sum()


def test_undecided_pixels_are_split_as_the_decided_ones_say() -> None:
    """Bin 0: background or object, and decided pixels say 1:3. All classes: no evidence at all."""
    counts = np.zeros((2, 8), np.int64)
    counts[0, 0b001], counts[0, 0b100], counts[0, 0b101], counts[0, 0b111] = 1000, 3000, 20_000, 10**6
    counts[1, 0b010] = 500
    np.testing.assert_allclose(fit_posterior(counts, 3)[0], [0.25, 0, 0.75], atol=0.01)


def test_colours_alone_solve_what_colours_decide(opened: Callable[..., ShardIndex]) -> None:
    index = opened(Spec("a", samples=8, kind="png"), Spec("a", "test", 4, kind="png"))
    task = TASKS["hand-object"]
    histogram = fit_color_histogram(index, index.select(split="train"), task)
    found = evaluate(index, index.select(split="test"), task, histogram)
    assert found.pooled.jaccard == pytest.approx(1.0, abs=0.01)


def test_sides_cannot_be_told_by_colour(opened: Callable[..., ShardIndex]) -> None:
    index = opened(
        Spec("l", samples=6, hand=Label.LEFT_HAND), Spec("r", samples=6, hand=Label.RIGHT_HAND), Spec("r", "test", 4)
    )
    histogram = fit_color_histogram(index, index.select(split="train"), TASKS["sides"])
    iou = evaluate(index, index.select(split="train"), TASKS["sides"], histogram).pooled.iou
    assert min(iou["left"], iou["right"]) < 0.5  # type: ignore[type-var]


def test_bins_are_32_per_channel() -> None:
    colors = np.array([[0, 0, 0], [7, 7, 7], [8, 0, 0], [255, 255, 255], [0, 0, 8]], dtype=np.uint8)
    assert color_bins(colors).tolist() == [0, 0, 1024, 32767, 1]


def test_without_training_samples_it_says_so(mixed: ShardIndex) -> None:
    with pytest.raises(SelectionError, match="no training sample"):
        fit_color_histogram(mixed, np.array([], dtype=np.int64), TASKS["hand"])
