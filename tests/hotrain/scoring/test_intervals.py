"""The bootstrap against a plain one with Python's lists, known coverage, and its rules on few groups."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from hodata.labels import TASKS
from hotrain.scoring.figures import Figures
from hotrain.scoring.intervals import drawn_values, group_totals, interval, spread

FIGURES = Figures(TASKS["hand-object"])
HAND = FIGURES.names.index("kinds.hand")
OBJECT = FIGURES.names.index("kinds.object")


def random_counts(rng: np.random.Generator, samples: int) -> np.ndarray:
    truth = rng.integers(0, 100, (samples, len(FIGURES.counted)))
    total = truth + rng.integers(0, 50, truth.shape)
    return np.stack([(truth * rng.random(truth.shape)).astype(np.int64), total, truth], -1)


def test_draws_equal_a_plain_loop_over_groups() -> None:
    rng = np.random.default_rng(0)
    counts = random_counts(rng, 60)
    groups = np.array([f"g{n}" for n in rng.integers(0, 13, 60)], dtype=object)
    names, totals = group_totals(counts, groups)
    assert names == sorted(set(groups))
    for name, total in zip(names, totals, strict=True):
        np.testing.assert_array_equal(total, sum(c for c, g in zip(counts, groups, strict=True) if g == name))

    found = drawn_values(FIGURES, totals, "source", draws=250)
    key = hashlib.sha256(b"bootstrap/0/source").digest()[:16]
    words = np.random.Philox(key=int.from_bytes(key, "little"))
    for draw in range(250):
        chosen = [math.floor((int(word) >> 11) / 2**53 * len(names)) for word in words.random_raw(len(names))]
        drawn = [counts[place] for g in chosen for place in np.flatnonzero(groups == names[g])]
        total = np.sum(drawn, 0)
        hand, thing = (total[c][0] / total[c][1] for c in (HAND, OBJECT))
        assert found[draw, HAND] == pytest.approx(hand)
        assert found[draw, -1] == pytest.approx((hand + thing) / 2)


def test_draws_are_the_same_every_time_and_differ_by_stream() -> None:
    _, totals = group_totals(random_counts(np.random.default_rng(1), 30), np.arange(30).astype(str).astype(object))
    one, again = drawn_values(FIGURES, totals, "a", 300), drawn_values(FIGURES, totals, "a", 300)
    np.testing.assert_array_equal(one, again)
    assert (one[:, HAND] != drawn_values(FIGURES, totals, "b", 300)[:, HAND]).mean() > 0.9
    np.testing.assert_array_equal(one[:120], drawn_values(FIGURES, totals, "a", 120))


def test_the_interval_leaves_out_a_fortieth_at_either_end() -> None:
    drawn = np.random.default_rng(3).permutation(np.arange(4001.0))
    assert interval(drawn) == pytest.approx((100, 3900))
    assert interval(np.concatenate([drawn, np.full(9, np.nan)])) == pytest.approx((100, 3900))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """100 experiments of 40 groups whose frames share a value: an interval over frames would cover far less."""
    rng = np.random.default_rng(2)
    covered = {"groups": 0, "frames": 0}
    for experiment in range(100):
        share = rng.normal(0.7, 0.1, 40).clip(0, 1).repeat(8)
        counts = np.zeros((320, len(FIGURES.counted), 3), np.int64)
        counts[:, HAND] = np.stack([(1000 * share).astype(np.int64), np.full(320, 1000), np.full(320, 1000)], 1)
        for unit, groups in (("groups", np.arange(320) // 8), ("frames", np.arange(320))):
            _, totals = group_totals(counts, groups.astype(str).astype(object))
            low, high = interval(drawn_values(FIGURES, totals, f"{experiment}", 200)[:, HAND])
            covered[unit] += low <= 0.7 <= high
    assert 86 <= covered["groups"] <= 100
    assert covered["frames"] < 70  # 51 expected: the interval is sqrt(8) times too narrow


def test_few_groups_are_listed_and_have_no_interval() -> None:
    counts = random_counts(np.random.default_rng(3), 40)
    groups = np.array([f"g{n // 2:02d}" for n in range(40)], dtype=object)
    counts[8:, OBJECT] = 0  # four groups show an object
    names, totals = group_totals(counts, groups)
    found = spread(FIGURES, names, totals, drawn_values(FIGURES, totals, "s", 100))
    assert found.groups == 20
    assert "kinds.hand" in found.interval and "kinds.hand" not in found.by_group
    assert set(found.by_group["kinds.object"]) == {"g00", "g01", "g02", "g03"}
    assert "kinds.object" not in found.interval and "jaccard" not in found.interval
    assert set(found.by_group["jaccard"]) == {"g00", "g01", "g02", "g03"}
    low, high = found.interval["kinds.hand"]
    assert low < found.value["kinds.hand"] < high  # type: ignore[operator]


def test_what_is_absent_has_neither_value_nor_interval_nor_groups() -> None:
    counts = random_counts(np.random.default_rng(4), 40)
    counts[:, OBJECT, [0, 2]] = 0  # answered, but never there
    names, totals = group_totals(counts, np.arange(40).astype(str).astype(object))
    found = spread(FIGURES, names, totals, drawn_values(FIGURES, totals, "s", 100))
    assert found.value["kinds.object"] is None
    assert "kinds.object" not in found.interval and "kinds.object" not in found.by_group
    assert found.value["jaccard"] == found.value["kinds.hand"]
    assert "jaccard" in found.interval


def test_large_counts_stay_exact() -> None:
    counts = np.zeros((12, len(FIGURES.counted), 3), np.int64)
    counts[:, HAND] = [2**48 + 1, 2**49, 2**49]
    names, totals = group_totals(counts, np.arange(12).astype(str).astype(object))
    found = spread(FIGURES, names, totals, drawn_values(FIGURES, totals, "s", 20))
    assert found.interval["kinds.hand"] == (found.value["kinds.hand"],) * 2
