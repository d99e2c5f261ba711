"""Two models on the same samples: signs, pairing, and what has no interval."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hodata.labels import TASKS
from hotrain.errors import SelectionError
from hotrain.scoring.comparison import compare
from hotrain.scoring.figures import Figures

FIGURES = Figures(TASKS["hand"])
HAND = FIGURES.counted.index("kinds.hand")


def evaluation(hits: np.ndarray, groups: np.ndarray, source: str = "one") -> Any:
    """Counts of samples with 1,000 pixels of hand each, of which some were found."""
    values = np.zeros((len(hits), len(FIGURES.counted), 3), np.int64)
    values[:, HAND] = np.stack([hits, np.full(len(hits), 1000), np.full(len(hits), 1000)], 1)
    names = np.array([f"g{n:02d}" for n in groups], dtype=object)
    return SimpleNamespace(
        figures=FIGURES,
        rows=np.arange(len(hits)),
        values=values,
        groups=names,
        sources=np.full(len(hits), source, dtype=object),
    )


def test_pairing_sees_a_small_steady_gain_that_hard_groups_would_hide() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(120) // 6
    hits = (400 + 500 * rng.random(20)).astype(np.int64)[groups]
    one = evaluation(hits, groups)
    other = evaluation(hits + rng.integers(5, 15, 120), groups)
    found = compare(one, other).pooled["kinds.hand"]
    assert found.difference == pytest.approx((other.values[:, HAND, 0].sum() - hits.sum()) / 120_000)
    assert found.interval is not None
    low, high = found.interval
    assert 0.005 < low < found.difference < high < 0.015
    swapped = compare(other, one).pooled["kinds.hand"]
    assert swapped.interval == pytest.approx((-high, -low))


def test_a_model_does_not_differ_from_itself() -> None:
    one = evaluation(np.random.default_rng(1).integers(0, 1000, 60), np.arange(60) // 4)
    found = compare(one, one)
    assert found.pooled["kinds.hand"].interval == (0.0, 0.0)
    assert found.by_source["one"]["kinds.hand"].difference == 0.0


def test_noise_between_equal_models_is_not_called_a_difference() -> None:
    """40 pairs that differ by chance alone: about 2 intervals may miss 0."""
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(40):
        hits, groups = rng.integers(300, 900, (2, 30)), np.arange(30)
        interval = compare(evaluation(hits[0], groups), evaluation(hits[1], groups)).pooled["kinds.hand"].interval
        assert interval is not None
        missed += not interval[0] <= 0 <= interval[1]
    assert missed <= 7


def test_few_groups_are_listed() -> None:
    groups = np.arange(30) // 10
    found = compare(evaluation(np.full(30, 500), groups), evaluation(500 + 10 * groups, groups)).pooled["kinds.hand"]
    assert found.interval is None
    assert found.by_group == pytest.approx({"g00": 0.0, "g01": 0.01, "g02": 0.02})


def test_an_absent_figure_has_no_difference() -> None:
    one = evaluation(np.full(30, 500), np.arange(30))
    found = compare(one, one).pooled["fingertip_recall"]
    assert (found.a, found.difference, found.interval, found.by_group) == (None, None, None, {})


def test_other_samples_are_refused() -> None:
    one = evaluation(np.full(30, 500), np.arange(30))
    other = evaluation(np.full(30, 500), np.arange(30))
    other.rows = other.rows + 1
    with pytest.raises(SelectionError, match="same samples"):
        compare(one, other)
