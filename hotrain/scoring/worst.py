"""Which samples to look at: those a model answers worst, and for comparison those it answers best."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from hotrain.scoring.sample_counts import SampleCounts

_PER_GROUP = 2


def worst_and_best(counts: SampleCounts, worst: int, best: int) -> tuple[list[int], list[int]]:
    """Places of samples (into `counts.rows`) by the mean IoU of hand and object, the extreme one first.

    At most two of a group: ten frames of one bad recording show one failure. A sample without hand and object has no
    such figure and is never shown.
    """
    jaccard = counts.figures.values(counts.values)[:, -1]
    order = np.argsort(jaccard, kind="stable")[: int((~np.isnan(jaccard)).sum())]
    low = _spread(counts, order, worst)
    return low, [place for place in _spread(counts, order[::-1], best + len(low)) if place not in low][:best]


def _spread(counts: SampleCounts, order: NDArray[np.int64], wanted: int) -> list[int]:
    taken: Counter[str] = Counter()
    chosen: list[int] = []
    for place in order.tolist():
        if len(chosen) == wanted:
            break
        group = str(counts.groups[place])
        if taken[group] < _PER_GROUP:
            taken[group] += 1
            chosen.append(place)
    return chosen
