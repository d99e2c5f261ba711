"""All figures of an evaluation, with intervals, per source and overall, and the JSON document of `hotrain eval`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hotrain.scoring.figures import FINGERTIPS, WITHOUT_WRIST
from hotrain.scoring.intervals import (
    DRAWS,
    LEAST_GROUPS,
    LEVEL,
    SEED,
    Spread,
    drawn_values,
    group_totals,
    interval,
    shown_by,
    spread,
)
from hotrain.scoring.metrics import Report
from hotrain.scoring.sample_counts import SampleCounts

BOOTSTRAP = {"unit": "group", "draws": DRAWS, "seed": SEED, "level": LEVEL, "least_groups": LEAST_GROUPS}
OVERALL = ""  # the random stream of all sources together


@dataclass(frozen=True)
class Scorecard:
    """Figures with their spread: over all samples, and source by source.

    Args:
        pooled: groups are drawn from all sources together.
        macro: `iou_macro.<class>` -> interval of the mean over sources, where each source's own IoU has one.
        by_source: name -> spread.
    """

    pooled: Spread
    macro: Mapping[str, tuple[float, float]]
    by_source: Mapping[str, Spread]


def scorecard(counts: SampleCounts) -> Scorecard:
    """The spread of every figure of an evaluation."""
    figures = counts.figures
    names, totals = group_totals(counts.values, counts.groups)
    pooled = spread(figures, names, totals, drawn_values(figures, totals, OVERALL))
    by_source, drawn, showing = {}, {}, {}
    for source in sorted(set(counts.sources)):
        own = counts.sources == source
        names, totals = group_totals(counts.values[own], counts.groups[own])
        drawn[source] = drawn_values(figures, totals, source)
        showing[source] = shown_by(figures, totals).sum(0)
        by_source[source] = spread(figures, names, totals, drawn[source])
    macro = {}
    for name in figures.task.public_classes:
        column = figures.names.index(f"iou.{name}")
        have = [source for source in by_source if showing[source][column]]
        if have and all(showing[source][column] >= LEAST_GROUPS for source in have):
            macro[f"iou_macro.{name}"] = interval(np.mean([drawn[source][:, column] for source in have], 0))
    return Scorecard(pooled, macro, by_source)


def document(report: Report, card: Scorecard) -> dict[str, Any]:
    """What `hotrain eval --json` prints; docs/evaluation.md describes it."""
    whole = report.to_json()
    by_source = {name: {**scores, **spread_json(card.by_source[name])} for name, scores in whole["by_source"].items()}
    own = spread_json(card.pooled)
    own["intervals"] |= {name: list(limits) for name, limits in card.macro.items()}
    return {**whole, **own, "bootstrap": BOOTSTRAP, "by_source": by_source}


def spread_json(found: Spread) -> dict[str, Any]:
    """The figures that `Scores` lacks, and the spread of all."""
    prefix = "boundary_iou."
    boundary = {name[len(prefix) :]: value for name, value in found.value.items() if name.startswith(prefix)}
    return {
        "groups": found.groups,
        "boundary_iou": boundary,
        FINGERTIPS: found.value[FINGERTIPS],
        WITHOUT_WRIST: found.value[WITHOUT_WRIST],
        "intervals": {name: list(limits) for name, limits in found.interval.items()},
        "by_group": {name: dict(values) for name, values in found.by_group.items()},
    }
