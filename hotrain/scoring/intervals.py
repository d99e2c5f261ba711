"""How far figures would move with other recordings: a bootstrap over groups.

Frames of one recording resemble each other, so frames cannot be drawn one by one: whole groups are (Davison and
Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). The interval runs from the 2.5th to the 97.5th
percentile of the draws. With few groups it would be too narrow, so below 10 groups that show a figure there is none,
and the value of each group is given.

Draws use raw Philox words, the only random numbers that NumPy promises never to change.

Shapes: N samples, G groups, D draws, F figures, F + 1 with `jaccard`. Counts are int64 [..., F, 3].
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hotrain.scoring.figures import TRUTH, Figures

DRAWS = 2000
SEED = 0
LEVEL = 0.95
LEAST_GROUPS = 10
_CHUNK = 100  # draws at a time: bounds the memory

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Figures of some samples, and how far they would move.

    Args:
        groups: how many there are.
        value: figure -> value over all samples; None where absent.
        interval: figure -> (low, high), where at least 10 groups show it.
        by_group: figure -> group -> value, where fewer do.
    """

    groups: int
    value: Mapping[str, float | None]
    interval: Mapping[str, tuple[float, float]]
    by_group: Mapping[str, Mapping[str, float]]


def group_totals(counts: NDArray[np.int64], groups: NDArray[np.object_]) -> tuple[list[str], NDArray[np.int64]]:
    """Sum counts [N, F, 3] over each group: names, sorted, and int64 [G, F, 3]."""
    names, place = np.unique(groups.astype(str), return_inverse=True)
    totals = np.zeros((len(names), *counts.shape[1:]), dtype=np.int64)
    np.add.at(totals, place, counts)
    return names.tolist(), totals


def spread(figures: Figures, names: list[str], totals: NDArray[np.int64], drawn: Floats) -> Spread:
    """Values, intervals and values by group.

    Args:
        figures: of the counts.
        names: of the groups.
        totals: int64 [G, F, 3].
        drawn: float64 [D, F + 1], see `drawn_values`.
    """
    whole = figures.values(totals.sum(0))
    by_group = figures.values(totals)
    shown = shown_by(figures, totals)
    intervals, listed = {}, {}
    for number, name in enumerate(figures.names):
        if np.isnan(whole[number]):
            continue
        if np.count_nonzero(shown[:, number]) >= LEAST_GROUPS:
            intervals[name] = interval(drawn[:, number])
        else:
            listed[name] = {names[group]: float(by_group[group, number]) for group in np.flatnonzero(shown[:, number])}
    values = {name: optional(value) for name, value in zip(figures.names, whole.tolist(), strict=True)}
    return Spread(len(names), values, intervals, listed)


def shown_by(figures: Figures, totals: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [G, F + 1]: which groups show which figure; `jaccard`: those that show every kind that is anywhere."""
    shown = totals[..., TRUTH] > 0
    kinds = shown[:, figures.kind_columns]
    every = (kinds | ~kinds.any(0)).all(1) & kinds.any(1)
    return np.column_stack([shown, every])


def drawn_values(figures: Figures, totals: NDArray[np.int64], stream: str, draws: int = DRAWS) -> Floats:
    """Figures float64 [D, F + 1] of groups drawn with replacement; NaN where a draw has no pixel of the truth.

    Args:
        figures: of the counts.
        totals: int64 [G, F, 3].
        stream: names the random numbers: equal streams and G draw the same groups, which pairs two models.
        draws: D.
    """
    groups = len(totals)
    flat = totals.reshape(groups, -1).astype(np.float64)  # exact below 2**53
    key = int.from_bytes(hashlib.sha256(f"bootstrap/{SEED}/{stream}".encode()).digest()[:16], "little")
    words = np.random.Philox(key=key)
    parts = []
    for begin in range(0, draws, _CHUNK):
        count = min(_CHUNK, draws - begin)
        uniform = (words.random_raw(count * groups) >> np.uint64(11)) * 2.0**-53
        chosen = (uniform * groups).astype(np.int64).reshape(count, groups)
        cells = (chosen + groups * np.arange(count)[:, None]).ravel()
        times = np.bincount(cells, minlength=count * groups).reshape(count, groups).astype(np.float64)
        parts.append(figures.values((times @ flat).reshape(count, *totals.shape[1:])))
    return np.concatenate(parts)


def interval(drawn: Floats) -> tuple[float, float]:
    """The middle 95 % of draws float64 [D]; draws without the figure (NaN) are left out."""
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def optional(value: float) -> float | None:
    """NaN as None."""
    return value if value == value else None
