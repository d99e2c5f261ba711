"""Means over seeds, and paired differences, with intervals by a bootstrap over groups and seeds.

Each draw takes groups and seeds with replacement, independently (Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 2007): the groups by `hotrain.scoring.intervals`, the same for every recipe and seed, so that what is hard
for all cancels out. A mean of S seeds drawn from S varies by (S - 1) / S of what it should, so that part of each draw
is widened. Three seeds still say little of their spread; every seed's own value is kept beside the interval.

Shapes: S seeds, N rows, G groups, D draws, F figures. Counts are int64 [..., F, 3].
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hotrain.scoring.figures import TRUTH
from hotrain.scoring.intervals import DRAWS, LEAST_GROUPS, drawn_values, group_totals, interval, optional, shown_by

Counts = NDArray[np.int64]


class Named(Protocol):
    """What makes figures of counts: `hotrain.scoring.figures.Figures`, or ratios of our own."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def values(self, counts: Any) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Estimate:
    """A figure, or a difference of one.

    Args:
        value: mean over seeds; None where absent.
        interval: 95 %; None where fewer than 10 groups show it. Of one seed it is over groups alone.
        by_seed: of each seed.
    """

    value: float | None
    interval: tuple[float, float] | None
    by_seed: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "interval": list(self.interval) if self.interval else None,
            "by_seed": list(self.by_seed),
        }


def estimates(figures: Named, counts: Sequence[Counts], groups: NDArray[np.object_]) -> dict[str, Estimate]:
    """Figure -> mean over seeds. `counts`: S of [N, F, 3]; `groups`: [N]."""
    return _summary(figures, *_values(figures, counts, groups), _showing(figures, counts[0], groups), lowest=0.0)


def differences(
    figures: Named, a: Sequence[Counts], b: Sequence[Counts], groups: NDArray[np.object_]
) -> dict[str, Estimate]:
    """Figure -> b - a, seed by seed. Both were counted on the same rows, and have the same seeds."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} seeds cannot be paired")
    whole_a, drawn_a = _values(figures, a, groups)
    whole_b, drawn_b = _values(figures, b, groups)
    return _summary(figures, whole_b - whole_a, drawn_b - drawn_a, _showing(figures, a[0], groups))


def _values(
    figures: Named, counts: Sequence[Counts], groups: NDArray[np.object_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Figures of each seed [S, F'], and of each draw of groups [S, D, F']."""
    totals = [group_totals(each, groups)[1] for each in counts]
    whole = np.stack([figures.values(each.sum(0)) for each in totals])
    drawn = np.stack([drawn_values(figures, each, "compare") for each in totals])  # type: ignore[arg-type]
    return whole, drawn


def _summary(
    figures: Named,
    whole: NDArray[np.float64],
    drawn: NDArray[np.float64],
    showing: NDArray[np.int64],
    lowest: float = -1.0,
) -> dict[str, Estimate]:
    """Shares lie in 0..1, and their differences in -1..1: what is widened stays within."""
    seeds = len(whole)
    chosen = _drawn_seeds(seeds, drawn.shape[1])
    mixed = drawn[chosen, np.arange(drawn.shape[1])].mean(0)  # [S, D, F'] by [S, D] -> [D, F']
    if seeds > 1:
        all_seeds = drawn.mean(0)
        mixed = np.clip(all_seeds + np.sqrt(seeds / (seeds - 1)) * (mixed - all_seeds), lowest, 1.0)
    found = {}
    for number, name in enumerate(figures.names):
        value = optional(float(whole[:, number].mean()))
        known = showing[number] >= LEAST_GROUPS and value is not None and not np.isnan(mixed[:, number]).all()
        by_seed = tuple(optional(float(each)) for each in whole[:, number])
        found[name] = Estimate(value, interval(mixed[:, number]) if known else None, by_seed)
    return found


def _drawn_seeds(seeds: int, draws: int = DRAWS) -> NDArray[np.int64]:
    """int64 [S, D]: the seeds of each draw, by raw Philox words, which NumPy promises never to change."""
    words = np.random.Philox(key=int.from_bytes(hashlib.sha256(b"compare/seeds").digest()[:16], "little"))
    uniform = (words.random_raw(seeds * draws) >> np.uint64(11)) * 2.0**-53
    return (uniform * seeds).astype(np.int64).reshape(seeds, draws)


def _showing(figures: Named, counts: Counts, groups: NDArray[np.object_]) -> NDArray[np.int64]:
    """int64 [F']: groups whose truth shows each figure; the truth is the same for every row and seed."""
    totals = group_totals(counts, groups)[1]
    shown = totals[..., TRUTH] > 0
    if len(figures.names) > shown.shape[1]:  # `jaccard` is made of others
        shown = shown_by(figures, totals)  # type: ignore[arg-type]
    return np.asarray(shown.sum(0))
