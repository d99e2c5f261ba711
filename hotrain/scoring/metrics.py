"""Counts first, figures later: one confusion matrix of set x predicted class per source gives every score.

Shapes: K classes of the task, P public classes, S sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Meaning, Task, fold_sets, scored_extent

if TYPE_CHECKING:
    from hotrain.scoring.sample_counts import SampleCounts

KINDS = ("background", "hand", "object")


def figure_text(value: float | None) -> str:
    """A figure of 0..1 for people; `n/a` where the truth has none."""
    return "n/a" if value is None else f"{value:.3f}"


@dataclass(frozen=True)
class Scores:
    """Figures of some pixels at one extent.

    Args:
        samples: images.
        extent: where a hand ends: `wrist`, `arm`, or `mixed` where sources at both are pooled.
        iou: public class -> IoU in 0..1, counted over the pixels whose set decides the class: the set is that class
            alone, or lacks it. None where no pixel of the truth is surely of the class: an absent class has no IoU.
        kinds: the same with sides and holders merged: `hand`, and `object` where the task has one.
        jaccard: mean of the IoUs of hand and object, whichever are present; None without either.
        accuracy: share of right answers over the pixels whose set has one class; None without such a pixel.
    """

    samples: int
    extent: str
    iou: Mapping[str, float | None]
    kinds: Mapping[str, float | None]
    jaccard: float | None
    accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "extent": self.extent,
            "iou": dict(self.iou),
            "kinds": dict(self.kinds),
            "jaccard": self.jaccard,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class Report:
    """Scores of an evaluation: `pooled` over all pixels, each source at its own extent, and source by source.

    `not_scored` counts, by source, the samples that were left out because their masks are no ground truth; `details`
    has the counts of every sample where they were asked for.
    """

    pooled: Scores
    iou_macro: Mapping[str, float | None]
    by_source: Mapping[str, Scores]
    not_scored: Mapping[str, int] = field(default_factory=dict)
    details: SampleCounts | None = field(default=None, compare=False, repr=False)

    @property
    def extents(self) -> dict[str, str]:
        """Source -> the extent at which it was scored."""
        return {name: scores.extent for name, scores in self.by_source.items()}

    def to_json(self) -> dict[str, Any]:
        """{samples, extent, iou, kinds, jaccard, accuracy, iou_macro, by_source, not_scored}."""
        by_source = {name: scores.to_json() for name, scores in self.by_source.items()}
        return {
            **self.pooled.to_json(),
            "iou_macro": dict(self.iou_macro),
            "by_source": by_source,
            "not_scored": dict(self.not_scored),
        }


def confusion(sets: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count pixels by what they may be and what was answered.

    Args:
        sets: uint8 [...], bit mask of the classes that a pixel may be.
        predicted: uint8 [...], class of the same pixels, below `classes`.
        classes: K.

    Returns:
        int64 [2**K, K].
    """
    cells = sets.ravel().astype(np.int64) * classes + predicted.ravel()
    return np.bincount(cells, minlength=classes << classes).reshape(1 << classes, classes)


def fold_matrix(matrix: NDArray[np.int64], fold: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Merge classes: a matrix [2**K, K] and fold [K] -> int64 [2**P, P], P = max(fold) + 1."""
    public = int(fold.max()) + 1
    folded = np.zeros((1 << public, public), dtype=np.int64)
    np.add.at(folded, (fold_sets(fold)[:, None], fold[None, :]), matrix)
    return folded


def iou_counts(matrix: NDArray[np.int64], class_id: int) -> tuple[int, int, int]:
    """(hit, union, truth) in pixels of one class of a matrix [2**P, P], over the pixels that decide it."""
    sets = np.arange(len(matrix))
    surely, never = sets == 1 << class_id, (sets >> class_id) & 1 == 0
    truth = int(matrix[surely].sum())
    return int(matrix[surely, class_id].sum()), truth + int(matrix[never, class_id].sum()), truth


def intersection_over_union(matrix: NDArray[np.int64], class_id: int) -> float | None:
    """IoU of one class of a matrix [2**P, P] over the pixels that decide it; None where it is absent."""
    hit, union, truth = iou_counts(matrix, class_id)
    return hit / union if truth else None


def accuracy_counts(matrix: NDArray[np.int64]) -> tuple[int, int]:
    """(right, all) pixels of a matrix [2**P, P] whose set has one class."""
    singles = matrix[1 << np.arange(matrix.shape[1])]
    return int(np.trace(singles)), int(singles.sum())


def accuracy(matrix: NDArray[np.int64]) -> float | None:
    """Share of right answers of a matrix [2**P, P] over the pixels whose set has one class."""
    right, total = accuracy_counts(matrix)
    return right / total if total else None


def kind_fold(task: Task) -> NDArray[np.uint8]:
    """uint8 [P]: public class -> background 0, hand 1, object 2."""
    return np.array([KINDS.index(task.kind_of(c)) for c in range(task.public)], dtype=np.uint8)


def source_extent(meanings: list[Meaning], task: Task, wanted: str) -> str:
    """The extent at which a source is scored: `wanted` if any of its meanings decides it.

    Pixels that do not decide it are left out of the count by their sets, so one meaning that does is enough.
    """
    extents = [scored_extent(meaning, task, wanted) for meaning in meanings]
    return wanted if wanted in extents or not extents else extents[0]


def score(matrix: NDArray[np.int64], samples: int, task: Task, extent: str) -> Scores:
    """Scores of one matrix [2**K, K] at one extent."""
    return _score_folded(fold_matrix(matrix, task.fold(extent)), samples, task, extent)


def report(
    matrices: Mapping[str, NDArray[np.int64]], samples: Mapping[str, int], task: Task, extents: Mapping[str, str]
) -> Report:
    """Scores of each source at its own extent, and pooled.

    Args:
        matrices: source -> int64 [2**K, K].
        samples: source -> images.
        task: whose classes these are.
        extents: source -> `wrist` or `arm`.
    """
    folded = {name: fold_matrix(matrix, task.fold(extents[name])) for name, matrix in matrices.items()}
    by_source = {
        name: _score_folded(matrix, samples[name], task, extents[name]) for name, matrix in sorted(folded.items())
    }
    found = {extents[name] for name in matrices}
    pooled = _score_folded(
        sum(folded.values(), np.zeros((1 << task.public, task.public), np.int64)),
        sum(samples[name] for name in matrices),
        task,
        found.pop() if len(found) == 1 else "mixed",
    )
    macro = {name: _mean([scores.iou[name] for scores in by_source.values()]) for name in task.public_classes}
    return Report(pooled, macro, by_source)


def _score_folded(matrix: NDArray[np.int64], samples: int, task: Task, extent: str) -> Scores:
    iou = {name: intersection_over_union(matrix, c) for c, name in enumerate(task.public_classes)}
    by_kind = fold_matrix(matrix, kind_fold(task))
    kinds = {
        name: intersection_over_union(by_kind, kind) for kind, name in enumerate(KINDS) if 0 < kind < by_kind.shape[1]
    }
    return Scores(samples, extent, iou, kinds, _mean(list(kinds.values())), accuracy(matrix))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
