"""Is one model better than another? The same samples, the same drawn groups, the difference of every figure.

A paired bootstrap: both models are resampled by the same groups, so what is hard for both cancels out. An interval of
the difference that excludes 0 is evidence that other recordings of this kind would agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotrain.errors import SelectionError
from hotrain.scoring.figures import Figures
from hotrain.scoring.intervals import LEAST_GROUPS, drawn_values, group_totals, interval, optional, shown_by
from hotrain.scoring.sample_counts import SampleCounts
from hotrain.scoring.scorecard import BOOTSTRAP, OVERALL


@dataclass(frozen=True)
class Difference:
    """One figure of two models, A and B.

    Args:
        a, b: values; None where absent.
        difference: b - a.
        interval: of the difference, where at least 10 groups show the figure.
        by_group: group -> difference, where fewer do.
    """

    a: float | None
    b: float | None
    difference: float | None
    interval: tuple[float, float] | None
    by_group: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "interval": list(self.interval) if self.interval else None,
            "by_group": dict(self.by_group),
        }


@dataclass(frozen=True)
class Comparison:
    """Figure -> difference, over all samples and by source."""

    samples: int
    groups: int
    pooled: Mapping[str, Difference]
    by_source: Mapping[str, Mapping[str, Difference]]

    def to_json(self) -> dict[str, Any]:
        """{samples, groups, bootstrap, figures: {figure: difference}, by_source: {source: {figure: difference}}}."""
        return {
            "samples": self.samples,
            "groups": self.groups,
            "bootstrap": BOOTSTRAP,
            "figures": {name: one.to_json() for name, one in self.pooled.items()},
            "by_source": {
                source: {name: one.to_json() for name, one in figures.items()}
                for source, figures in self.by_source.items()
            },
        }


def compare(a: SampleCounts, b: SampleCounts) -> Comparison:
    """Compare two evaluations of the same rows.

    Raises:
        SelectionError: other rows or another task.
    """
    if a.figures != b.figures or not np.array_equal(a.rows, b.rows):
        raise SelectionError("two evaluations can only be compared on the same samples and the same task")
    by_source = {}
    for source in sorted(set(a.sources)):
        own = a.sources == source
        by_source[source] = _differences(a.figures, a.values[own], b.values[own], a.groups[own], source)
    pooled = _differences(a.figures, a.values, b.values, a.groups, OVERALL)
    return Comparison(len(a.rows), len(set(a.groups)), pooled, by_source)


def _differences(
    figures: Figures,
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    groups: NDArray[np.object_],
    stream: str,
) -> dict[str, Difference]:
    """Figure -> difference, of counts int64 [N, F, 3]."""
    names, of_a = group_totals(a, groups)
    _, of_b = group_totals(b, groups)
    whole_a, whole_b = figures.values(of_a.sum(0)), figures.values(of_b.sum(0))
    drawn = drawn_values(figures, of_b, stream) - drawn_values(figures, of_a, stream)
    by_group = figures.values(of_b) - figures.values(of_a)
    shown = shown_by(figures, of_a) & shown_by(figures, of_b)
    found = {}
    for number, name in enumerate(figures.names):
        difference = optional(float(whole_b[number] - whole_a[number]))
        enough = difference is not None and np.count_nonzero(shown[:, number]) >= LEAST_GROUPS
        listed = [] if enough else np.flatnonzero(shown[:, number]).tolist()
        found[name] = Difference(
            optional(float(whole_a[number])),
            optional(float(whole_b[number])),
            difference,
            interval(drawn[:, number]) if enough else None,
            {names[group]: float(by_group[group, number]) for group in listed},
        )
    return found
