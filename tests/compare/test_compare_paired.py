"""Means over seeds and paired differences: values by hand, pairing, coverage of what is only chance."""

from __future__ import annotations

import numpy as np
import pytest

from compare.paired import _summary, differences, estimates


class Share:
    """One figure, hit / total."""

    names = ("share",)

    def values(self, counts: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counts[..., 1] > 0, counts[..., 0] / counts[..., 1], np.nan)


def counted(hits: np.ndarray) -> np.ndarray:
    """int64 [N, 1, 3] of 1,000 pixels a picture."""
    return np.stack([hits, np.full(len(hits), 1000), np.full(len(hits), 1000)], 1)[:, None].astype(np.int64)


def groups(names: int, each: int) -> np.ndarray:
    return np.array([f"g{number // each}" for number in range(names * each)], dtype=object)


def test_the_value_is_the_mean_over_seeds_of_pooled_pixels() -> None:
    one, other = counted(np.arange(40) * 10), counted(np.full(40, 600))
    found = estimates(Share(), [one, other], groups(20, 2))["share"]
    assert found.by_seed == pytest.approx((0.195, 0.6)) and found.value == pytest.approx(0.3975)
    assert found.interval is not None and found.interval[0] < 0.25 and found.interval[1] > 0.55  # the seeds differ


def test_pairing_takes_out_what_is_hard_for_both() -> None:
    rng = np.random.default_rng(0)
    hard = np.repeat(rng.integers(100, 800, 20), 3)
    ones = [counted(hard + rng.integers(0, 30, 60)) for _ in range(3)]
    others = [counted(hard + 50 + rng.integers(0, 30, 60)) for _ in range(3)]
    found = differences(Share(), ones, others, groups(20, 3))["share"]
    assert found.value == pytest.approx(0.05, abs=0.01)
    assert found.interval is not None and 0.03 < found.interval[0] < found.interval[1] < 0.07
    back = differences(Share(), others, ones, groups(20, 3))["share"]
    assert back.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    alone = estimates(Share(), ones, groups(20, 3))["share"].interval
    assert alone is not None and alone[1] - alone[0] > 5 * (found.interval[1] - found.interval[0])


def test_a_gain_in_one_seed_of_three_is_not_sure() -> None:
    base = np.full(40, 400)
    ones, others = [counted(base)] * 3, [counted(base), counted(base), counted(base + 90)]
    found = differences(Share(), ones, others, groups(20, 2))["share"]
    assert found.value == pytest.approx(0.03)
    # Some draws take one seed three times; they lie sqrt(3 / 2) times as far from the mean as that seed.
    assert found.interval == pytest.approx((0.03 * (1 - 1.5**0.5), 0.03 + 0.06 * 1.5**0.5))


def test_draws_of_seeds_vary_as_means_of_seeds_do() -> None:
    """Where recordings say nothing, intervals of many trios are as wide as the formula says."""
    rng, found = np.random.default_rng(5), []
    for _ in range(60):
        shares = rng.normal(500, 60, 3).round()
        drawn = np.repeat((shares / 1000)[:, None, None], 2000, 1)  # [S, D, F'], the same in every draw of groups
        low, high = _summary(Share(), drawn[:, 0], drawn, np.array([20]))["share"].interval or (0, 0)
        found.append((low, high))
    spread = np.sqrt(1.5) * 60 / 1000
    widths = np.array([high - low for low, high in found])
    # The draws run from the smallest to the largest of three normal numbers, which lie 1.69 deviations apart.
    assert widths.mean() == pytest.approx(1.69 * spread, rel=0.15)


def test_a_share_is_never_below_nothing() -> None:
    seeds = [counted(np.full(40, hits)) for hits in (0, 0, 300)]
    interval = estimates(Share(), seeds, groups(20, 2))["share"].interval
    assert interval is not None and interval == pytest.approx((0.0, 0.1 + 0.2 * 1.5**0.5))
    below = differences(Share(), seeds, [counted(np.full(40, 0))] * 3, groups(20, 2))["share"].interval
    assert below is not None and below[0] == pytest.approx(-interval[1]) and below[1] > 0


def test_recordings_that_do_not_show_a_thing_do_not_count() -> None:
    counts = counted(np.full(40, 100))
    counts[18:] = 0  # 9 of 20 groups show it
    assert estimates(Share(), [counts], groups(20, 2))["share"].interval is None
    counts[18:20] = counted(np.full(2, 100))
    assert estimates(Share(), [counts], groups(20, 2))["share"].interval is not None


def test_few_groups_and_absent_figures_have_no_interval() -> None:
    few = estimates(Share(), [counted(np.full(9, 5))], groups(9, 1))["share"]
    assert few.value == pytest.approx(0.005) and few.interval is None
    nothing = estimates(Share(), [np.zeros((20, 1, 3), np.int64)], groups(20, 1))["share"]
    assert (nothing.value, nothing.interval, nothing.by_seed) == (None, None, (None,))


def test_unequal_numbers_of_seeds_cannot_be_paired() -> None:
    one = counted(np.full(20, 5))
    with pytest.raises(ValueError, match="1 and 2 seeds"):
        differences(Share(), [one], [one, one], groups(20, 1))
