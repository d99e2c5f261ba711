"""The order of a run against its definition, and against itself."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotrain.errors import SelectionError
from hotrain.order import PATTERN, Order, interleave, permutation, place_counts, uniforms


def slow_samples(order: Order, stop: int) -> list[tuple[int, int]]:
    """Walk the positions one by one and take the next sample of a source each time its place comes."""
    taken = [0] * len(order.sources)
    found = []
    for position in range(stop):
        source = int(order.pattern[position % PATTERN])
        epoch, offset = divmod(taken[source], int(order.sizes[source]))
        found.append(
            (source, int(permutation(int(order.sizes[source]), order.seed, order.sources[source], epoch)[offset]))
        )
        taken[source] += 1
    return found


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 700), min_size=1),
    seed=st.integers(0, 2**62),
    weight=st.floats(0.01, 50),
)
def test_every_sample_once_per_epoch_of_its_source_at_any_weight(
    sizes: dict[str, int], seed: int, weight: float
) -> None:
    order = Order(sizes, seed, {min(sizes): weight})
    expected = slow_samples(order, 2 * PATTERN + 100)
    source, sample = order.locate(np.arange(2 * PATTERN + 100))
    assert list(zip(source.tolist(), sample.tolist(), strict=True)) == expected
    for number, size in enumerate(order.sizes):
        own = sample[source == number]
        for epoch in range(len(own) // size):
            assert sorted(own[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_a_position_is_independent_of_how_it_is_asked_for() -> None:
    order = Order({"a": 50, "b": 9000}, 3)
    positions = np.random.default_rng(0).integers(0, 10**9, 300)
    together = np.stack(order.locate(positions), 1)
    fresh = [np.stack(Order({"b": 9000, "a": 50}, 3).locate(np.array([p])), 1)[0] for p in positions]
    np.testing.assert_array_equal(together, fresh)


def test_the_order_never_changes() -> None:
    """A golden hash: a change here breaks every checkpoint and needs a new ORDER_VERSION."""
    order = Order({"freihand": 977, "egohos": 331, "ho3d": 12}, 7, {"ho3d": 200.0})
    source, sample = order.locate(np.arange(0, 200_000, 7))
    digest = hashlib.sha256(np.stack([source, sample]).astype("<i8").tobytes()).hexdigest()
    numbers = hashlib.sha256(uniforms(7, 123_456, 1, 32).astype("<f8").tobytes()).hexdigest()
    assert (digest[:16], numbers[:16]) == GOLDEN


GOLDEN = ("c7cd765e836256fd", "070476ca622a5632")


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40))
def test_places_are_in_proportion(shares: list[float]) -> None:
    exact = np.array(shares) / sum(shares) * PATTERN
    counts = place_counts(np.array(shares))
    assert counts.sum() == PATTERN
    assert counts.min() >= 1
    if exact.min() >= 1:
        assert np.abs(counts - exact).max() < 1


@pytest.mark.parametrize("shares", [[1, 1], [5, 3, 1], [1000, 1], [7, 11, 13, 17, 19]])
def test_sources_are_spread_evenly(shares: list[float]) -> None:
    """In any window each source has its share, up to the few places that the others may push it."""
    counts = place_counts(np.array(shares, dtype=float))
    pattern = interleave(counts)
    assert np.bincount(pattern).tolist() == counts.tolist()
    for source, count in enumerate(counts):
        seen = np.cumsum(pattern == source)
        ideal = np.arange(1, PATTERN + 1) * count / PATTERN
        assert np.abs(seen - ideal).max() <= len(shares) / 2 + 1


def test_epochs_and_seeds_differ() -> None:
    orders = [permutation(1000, seed, name, epoch) for seed in (0, 1) for name in "ab" for epoch in (0, 1)]
    for number, one in enumerate(orders):
        for other in orders[number + 1 :]:
            assert (one == other).mean() < 0.02


def test_uniforms_are_uniform_and_apart() -> None:
    numbers = np.array([uniforms(5, position, 0, 4) for position in range(4000)])
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert ((counts - 800) ** 2 / 800).sum() < 60  # chi-square of 19 degrees of freedom: 60 has p < 1e-5
    assert abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.06
    other = np.array([uniforms(5, position, 1, 4) for position in range(4000)])
    assert abs(np.corrcoef(numbers[:, 0], other[:, 0])[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("sizes", "weights", "words"),
    [
        ({}, {}, "no source"),
        ({"a": 0}, {}, "'a' has no samples"),
        ({"a": 2}, {"b": 1.0}, "'b'.*selected sources: a"),
        ({"a": 2}, {"a": 0.0}, "a=0.0.*positive"),
        ({"a": 2}, {"a": float("nan")}, "positive"),
    ],
)
def test_refusals(sizes: dict[str, int], weights: dict[str, float], words: str) -> None:
    with pytest.raises(SelectionError, match=words):
        Order(sizes, 0, weights)
