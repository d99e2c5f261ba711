"""Which figures an evaluation gives, and the counts of one image that they are made of.

Every figure is hit / total of pixels, summed over images first: counts are whole numbers, so that their sum is exact
in any order. A figure is absent (NaN) where its third count, the pixels of the truth, is 0. `jaccard`, the mean of the
IoUs of hand and object, is derived.

Shapes: F figures, K classes of the task, P public classes, H W pixels. Counts are int64 [..., F, 3].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import EXTENTS, Task, fold_sets
from hotrain.scoring.boundary import NEVER, OPEN, SURELY, boundary_counts, boundary_radius, box_around
from hotrain.scoring.hand_regions import fingertip_discs, wrist_bands
from hotrain.scoring.metrics import KINDS, accuracy_counts, fold_matrix, iou_counts, kind_fold

HIT, TOTAL, TRUTH = 0, 1, 2
FINGERTIPS, WITHOUT_WRIST = "fingertip_recall", "hand_iou_without_wrist"


@dataclass(frozen=True)
class Figures:
    """The figures of a task. A name with a dot is a path into the JSON document: `iou.hand`."""

    task: Task

    @cached_property
    def counted(self) -> tuple[str, ...]:
        """Names of the figures that have counts of their own, in the order of F."""
        return (
            *(f"iou.{name}" for name in self.task.public_classes),
            *(f"kinds.{name}" for name in self.kinds),
            "accuracy",
            *(f"boundary_iou.{name}" for name in self.regions),
            FINGERTIPS,
            WITHOUT_WRIST,
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all figures: those with counts, and `jaccard` last."""
        return (*self.counted, "jaccard")

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """`hand`, and `object` where the task has it."""
        return KINDS[1 : int(kind_fold(self.task).max()) + 1]

    @cached_property
    def regions(self) -> Mapping[str, frozenset[int]]:
        """What has a contour: name -> public classes that it unites; the classes but background, and the kinds."""
        classes = {name: frozenset({c}) for c, name in enumerate(self.task.public_classes) if c}
        fold = kind_fold(self.task)
        return classes | {name: frozenset(np.flatnonzero(fold == KINDS.index(name)).tolist()) for name in self.kinds}

    def of_image(
        self,
        sets: NDArray[np.uint8],
        answer: NDArray[np.uint8],
        matrix: NDArray[np.int64],
        extent: str,
        hands: Sequence[Mapping[str, Any]] = (),
    ) -> NDArray[np.int64]:
        """The counts of one image.

        Args:
            sets: uint8 [H, W], bit mask of the classes that a pixel may be.
            answer: uint8 [H, W], class below K.
            matrix: int64 [2**K, K], the two counted (`metrics.confusion`).
            extent: where a hand ends.
            hands: of the JSON member.

        Returns:
            int64 [F, 3].
        """
        folded = fold_matrix(matrix, self.task.fold(extent))
        by_kind = fold_matrix(folded, kind_fold(self.task))
        counts = [iou_counts(folded, c) for c in range(self.task.public)]
        counts += [iou_counts(by_kind, KINDS.index(name)) for name in self.kinds]
        right, decided = accuracy_counts(folded)
        counts.append((right, decided, decided))
        radius = boundary_radius(*sets.shape)
        box = box_around((self._sure[sets] | (answer > 0)), radius)
        for name in self.regions:
            counts.append(boundary_counts(*self._region(name, extent, sets[box], answer[box]), radius))
        if hands:
            counts += self._of_hands(*self._region("hand", extent, sets, answer), hands)
        else:
            counts += [(0, 0, 0), (0, 0, 0)]
        return np.array(counts, dtype=np.int64)

    def values(self, counts: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Counts [..., F, 3] -> figures float64 [..., F + 1] in the order of `names`; NaN where absent."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = np.where(counts[..., TRUTH] > 0, counts[..., HIT] / counts[..., TOTAL], np.nan)
        kinds = ratios[..., self.kind_columns]
        known = ~np.isnan(kinds)
        total = np.where(known, kinds, 0.0).sum(-1)
        with np.errstate(invalid="ignore"):
            jaccard = np.where(known.any(-1), total / known.sum(-1), np.nan)
        return np.concatenate([ratios, jaccard[..., None]], -1)

    @cached_property
    def kind_columns(self) -> list[int]:
        """Where the figures that `jaccard` is the mean of stand in `names`."""
        return [self.counted.index(f"kinds.{name}") for name in self.kinds]

    @cached_property
    def _sure(self) -> NDArray[np.bool_]:
        """bool [2**K]: sets that leave background out: only such a pixel can surely be of a region."""
        return np.arange(1 << len(self.task.classes)) % 2 == 0

    def _region(
        self, name: str, extent: str, sets: NDArray[np.uint8], answer: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """What the truth says of one region uint8 [H, W], and where it was predicted bool [H, W]."""
        says, answers = self._tables[extent, name]
        return says[sets], answers[answer]

    @cached_property
    def _tables(self) -> dict[tuple[str, str], tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
        """For each extent and region: what each set says uint8 [2**K], and which classes are of it bool [K]."""
        tables = {}
        for extent in EXTENTS:
            fold = self.task.fold(extent)
            folded = fold_sets(fold)
            for name, classes in self.regions.items():
                bits = sum(1 << c for c in classes)
                inside, outside = (folded & bits) > 0, (folded & ~np.uint8(bits)) > 0
                says = np.where(inside, np.where(outside, OPEN, SURELY), NEVER).astype(np.uint8)
                tables[extent, name] = says, np.isin(fold, list(classes))
        return tables

    def _of_hands(
        self, truth: NDArray[np.uint8], predicted: NDArray[np.bool_], hands: Sequence[Mapping[str, Any]]
    ) -> list[tuple[int, int, int]]:
        """Counts of fingertip recall and of the hand's IoU without the wrist band."""
        surely = truth == SURELY
        hit = surely & predicted
        counts = [(0, 0, 0), (0, 0, 0)]
        discs = fingertip_discs(hands, surely)
        if discs is not None:
            seen = _pixels(surely & discs)
            counts[0] = (_pixels(hit & discs), seen, seen)
        bands = wrist_bands(hands, surely.shape)
        if bands is not None:
            kept = ~bands
            union = _pixels((surely | (predicted & (truth == NEVER))) & kept)
            counts[1] = (_pixels(hit & kept), union, _pixels(surely & kept))
        return counts


def _pixels(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))
