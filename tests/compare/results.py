"""What was measured: every figure of every row, and differences between rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compare.flooding import ARM_AS_HAND, CALLED, OBJECT, TRULY, WRONGLY, Flooding
from compare.paired import Estimate, Named, differences, estimates
from compare.score import TASK, Scores
from hotrain.learning.guards import missing_classes
from hotrain.scoring.figures import FINGERTIPS, Figures

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

PUBLISHED, TUNED, AS_DRAWN, IGNORE, OURS = "published", "tuned", "as-drawn", "ignore", "ours"


@dataclass(frozen=True)
class Measure:
    """One figure.

    Args:
        title: in tables.
        part: of `Scores`.
        figure: its name there.
        hand_only: over the sources whose masks never say what is an object; else over all.
        source: over this one alone; empty: all.
    """

    title: str
    part: str
    figure: str
    hand_only: bool = False
    source: str = ""


OBJECT_IOU = Measure("object IoU", "stored", "kinds.object")
HAND_IOU = Measure("hand IoU", "stored", "kinds.hand")
OBJECT_TRUTH = Measure("object IoU, truth", "wrist", "kinds.object")
HAND_WRIST = Measure("hand IoU, wrist", "wrist", "kinds.hand")
HAND_ARM = Measure("hand IoU, arm", "arm", "kinds.hand")
HAND_BOUNDARY = Measure("hand boundary", "stored", "boundary_iou.hand")
OBJECT_BOUNDARY = Measure("object boundary", "stored", "boundary_iou.object")
TIPS = Measure("fingertip recall", "stored", FINGERTIPS)
ACCURACY = Measure("accuracy", "stored", "accuracy")
SCORES = (OBJECT_IOU, HAND_IOU, HAND_WRIST, HAND_ARM, OBJECT_BOUNDARY, HAND_BOUNDARY, TIPS, ACCURACY)

ARMS = Measure("arm called hand", "pixels", ARM_AS_HAND)
FLOOD = Measure("called object or arm", "pixels", CALLED, hand_only=True)
FLOOD_TRUTH = Measure("are object or arm", "pixels", TRULY, hand_only=True)
FLOOD_WRONG = Measure("background called so", "pixels", WRONGLY, hand_only=True)
FLOOD_OBJECT = Measure("object IoU, hand-only", "pixels", OBJECT, hand_only=True)
FLOODING = (FLOOD, FLOOD_TRUTH, FLOOD_WRONG, FLOOD_OBJECT)
MEASURES = (*SCORES, OBJECT_TRUTH, ARMS, *FLOODING)


@dataclass(frozen=True)
class Pictures:
    """What was scored on, of all sets one after the other.

    Args:
        groups: str [N]: recordings; those of two sets are never one.
        sources: str [N].
        hand_only: the sources whose masks never say what is an object.
    """

    groups: NDArray[np.object_]
    sources: NDArray[np.object_]
    hand_only: tuple[str, ...]

    @classmethod
    def of(cls, sets: Mapping[str, ShardIndex]) -> Pictures:
        """The splits test of sets by their names."""
        groups: list[str] = []
        sources: list[str] = []
        with_objects = set()
        for name, index in sets.items():
            rows = index.select(split="test")
            own = index.column("source")[rows].astype(str)
            groups += [f"{name}/{group}" for group in index.column("group")[rows]]
            sources += own.tolist()
            known = set(own.tolist())
            with_objects |= {one for one in known if "object" not in missing_classes(index, rows[own == one], TASK)}
        hand_only = tuple(sorted(set(sources) - with_objects))
        return cls(np.array(groups, dtype=object), np.array(sources, dtype=object), hand_only)


class Results:
    """Figures of the rows of a comparison.

    Args:
        pictures: N of them.
        scores: row -> the scores of each of its seeds, on these pictures.
    """

    def __init__(self, pictures: Pictures, scores: Mapping[str, Sequence[Scores]]) -> None:
        self.scores, self.hand_only = scores, pictures.hand_only
        self._groups, sources = pictures.groups, pictures.sources
        self.sources = sorted(set(sources.tolist()))
        self._of_source = {name: sources == name for name in self.sources}
        self.groups = {name: len(set(self._groups[own])) for name, own in self._of_source.items()}
        self.samples = {name: int(own.sum()) for name, own in self._of_source.items()}
        self.value = cache(self._value)
        self.difference = cache(self._difference)

    def _value(self, row: str, measure: Measure) -> Estimate:
        """Mean over the seeds of a row."""
        figures, chosen = self._figures(measure)
        counts = [self._counts(each, measure, chosen) for each in self.scores[row]]
        return estimates(figures, counts, self._groups[chosen])[measure.figure]

    def _difference(self, one: str, other: str, measure: Measure) -> Estimate:
        """other - one, paired by seed and group."""
        figures, chosen = self._figures(measure)
        a, b = ([self._counts(each, measure, chosen) for each in self.scores[row]] for row in (one, other))
        return differences(figures, a, b, self._groups[chosen])[measure.figure]

    def _figures(self, measure: Measure) -> tuple[Named, NDArray[np.bool_]]:
        wanted = [measure.source] if measure.source else self.hand_only if measure.hand_only else self.sources
        chosen = np.any([self._of_source[name] for name in wanted], 0)
        return (Flooding(TASK) if measure.part == "pixels" else Figures(TASK)), chosen

    @staticmethod
    def _counts(scores: Scores, measure: Measure, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = getattr(scores, measure.part)[chosen]
        return Flooding(TASK).counts(counts) if measure.part == "pixels" else counts

    def to_json(self) -> dict[str, Any]:
        """{samples, groups, rows: {row: {figure: estimate}}, differences: {"ours - row": {figure: estimate}}}."""
        return {
            "samples": self.samples,
            "groups": self.groups,
            "hand_only": self.hand_only,
            "rows": {
                row: {measure.title: self.value(row, measure).to_json() for measure in MEASURES} for row in self.scores
            },
            "differences": {
                f"{OURS} - {row}": {
                    measure.title: self.difference(row, OURS, measure).to_json() for measure in MEASURES
                }
                for row in self.scores
                if row != OURS
            },
        }
