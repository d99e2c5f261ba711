"""The order of a run against its definition, and against itself."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import second_order
from hypothesis import given, settings
from hypothesis import strategies as st

from hotrain.errors import SelectionError
from hotrain.order import (
    BLOCK,
    ORDER_VERSION,
    PATTERN,
    Order,
    block_permutation,
    interleave,
    place_counts,
    uniforms,
)
from hotrain.order import permutation as order_permutation

permutation = lru_cache(order_permutation)


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


@settings(max_examples=15, deadline=None)
@given(sizes=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 300), min_size=1), data=st.data())
def test_when_is_the_inverse_of_where(sizes: dict[str, int], data: st.DataObject) -> None:
    order = Order(sizes, 5, {min(sizes): 40.0})
    source = data.draw(st.integers(0, len(sizes) - 1))
    for epoch in (0, 1, 30):
        sample = data.draw(st.integers(0, int(order.sizes[source]) - 1))
        position = order.when(source, sample, epoch)
        assert [int(found[0]) for found in order.locate(np.array([position]))] == [source, sample]
        before = order.locate(np.arange(position))
        assert int(((before[0] == source) & (before[1] == sample)).sum()) == epoch


def test_a_position_is_independent_of_how_it_is_asked_for() -> None:
    order = Order({"a": 50, "b": 9000}, 3)
    positions = np.random.default_rng(0).integers(0, 10**9, 300)
    together = np.stack(order.locate(positions), 1)
    fresh = [np.stack(Order({"b": 9000, "a": 50}, 3).locate(np.array([p])), 1)[0] for p in positions]
    np.testing.assert_array_equal(together, fresh)


def golden_cases() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "order.json").read_text())
    return cases


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case["name"])
def test_the_order_never_changes(case: dict[str, Any]) -> None:
    """Golden hashes: a change here breaks every checkpoint, needs a new ORDER_VERSION and a line in CHANGELOG.md."""
    order = Order(case["sizes"], case["seed"], case["weights"], case["shards"])
    source, sample = order.locate(np.arange(case["start"], case["stop"], case["step"]))
    digest = hashlib.sha256(np.stack([source, sample]).astype("<i8").tobytes()).hexdigest()
    numbers = np.concatenate([uniforms(case["seed"], case["stop"], purpose, 32) for purpose in (0, 1, 2)])
    assert (ORDER_VERSION, digest) == (1, case["sha256"])
    assert hashlib.sha256(numbers.astype("<f8").tobytes()).hexdigest() == case["uniforms_sha256"]


orders = st.fixed_dictionaries(
    {
        "sizes": st.dictionaries(st.sampled_from("abcde"), st.integers(1, 120), min_size=1),
        "seed": st.integers(0, 2**63 - 1),
        "weight": st.floats(1e-3, 1e3),
        "blocks": st.booleans(),
        "start": st.integers(0, 30_000),
    }
)


def check_against_second(case: dict[str, Any]) -> None:
    sizes, weights = case["sizes"], {max(case["sizes"]): case["weight"]}
    shards = {name: [size // 3, 0, size - size // 3] for name, size in sizes.items()} if case["blocks"] else None
    positions = list(range(case["start"], case["start"] + 150))
    order = Order(sizes, case["seed"], weights, shards)
    source, sample = order.locate(np.array(positions))
    found = [(order.sources[s], n) for s, n in zip(source.tolist(), sample.tolist(), strict=True)]
    assert found == second_order.samples(sizes, case["seed"], weights, positions, shards)


@settings(max_examples=5, deadline=None)
@given(orders)
def test_a_second_implementation_agrees(case: dict[str, Any]) -> None:
    check_against_second(case)


@pytest.mark.soak
@settings(max_examples=300, deadline=None)
@given(orders)
def test_a_second_implementation_agrees_on_many(case: dict[str, Any]) -> None:
    check_against_second(case)


@pytest.mark.parametrize(("seed", "position", "purpose"), [(0, 0, 0), (7, 123_456, 1), (2**63 - 1, 2**40, 2)])
def test_uniforms_a_second_time(seed: int, position: int, purpose: int) -> None:
    """The upper 53 bits of Philox words with (seed, position) as the key and the purpose high in the counter."""
    expected = [w // 2**11 / 2**53 for w in second_order.words(seed + (position << 64), 9, purpose << 192)]
    assert uniforms(seed, position, purpose, 9).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    shards=st.lists(st.integers(1, 12), min_size=1, max_size=40), seed=st.integers(0, 2**62), epoch=st.integers(0, 9)
)
def test_block_order_takes_whole_shards_a_few_at_a_time(shards: list[int], seed: int, epoch: int) -> None:
    order = block_permutation(shards, seed, "s", epoch)
    assert sorted(order.tolist()) == list(range(sum(shards)))
    shard_of = np.repeat(np.arange(len(shards)), shards)[order]
    place = 0
    taken: set[int] = set()
    while place < len(order):
        left = len(shards) - len(taken)
        block = set(shard_of[place : place + sum(sorted(shards)[-BLOCK:])].tolist()) if left else set()
        count = 0
        members: set[int] = set()
        for shard in shard_of[place:].tolist():
            if shard not in members and len(members) == BLOCK:
                break
            members.add(shard)
            count += 1
        assert members <= block and not members & taken
        assert count == sum(shards[shard] for shard in members)
        taken |= members
        place += count
    assert len(taken) == len(shards)


def test_block_order_mixes_and_differs_between_epochs() -> None:
    first, second = (block_permutation([50] * 20, 1, "s", epoch) for epoch in (0, 1))
    assert (first == second).mean() < 0.02
    shard_of = np.repeat(np.arange(20), 50)[first]
    assert len(set(shard_of[:40].tolist())) == BLOCK  # the first samples come from all shards of the first block
    assert (np.diff(shard_of) == 0).mean() < 0.3


def test_few_permutations_are_held() -> None:
    order = Order({"a": 10, "b": 10}, 0)
    for start in range(0, 400, 20):
        order.locate(np.arange(start, start + 20))
    assert all(len(held) <= 2 for held in order._held)


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
