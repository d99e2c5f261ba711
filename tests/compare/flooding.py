"""Shares of pixels called what they are not, where the stored masks cannot tell: figures of `truth.kinds_seen`.

Shapes: N pictures, K classes; counts are int64 [..., F, 3] of (hit, total, truth), as in `hotrain.scoring.figures`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Task

CALLED, TRULY, WRONGLY, OBJECT, ARM_AS_HAND = "called", "truly", "wrongly", "object_iou", "arm_as_hand"


class Flooding:
    """Figures, for `compare.paired`.

    called: of the pixels drawn as background, those called object or arm.
    truly: of the same pixels, those that are object or arm.
    wrongly: of the pixels drawn as background that are background, those called object or arm.
    object_iou: of objects against the full truth.
    arm_as_hand: of the pixels that are arm, those called hand.
    """

    names = (CALLED, TRULY, WRONGLY, OBJECT, ARM_AS_HAND)

    def __init__(self, task: Task) -> None:
        self._hand, self._object = task.classes.index("hand"), task.classes.index("object")
        self._arm = task.classes.index("arm")

    def counts(self, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N, 2, 2**K, K] of `truth.kinds_seen` -> int64 [N, F, 3]."""
        # Only what surely is of one class counts: second-order objects may be anything.
        every, behind = (pixels[:, part][:, 1 << np.arange(pixels.shape[-1])] for part in (0, 1))  # [N, K, K]
        flood = [self._object, self._arm]
        called, truly, all_behind = behind[:, :, flood].sum((1, 2)), behind[:, flood].sum((1, 2)), behind.sum((1, 2))
        hit = every[:, self._object, self._object]
        union = every[:, self._object].sum(1) + every[:, :, self._object].sum(1) - hit
        grounds, arms = behind[:, 0].sum(1), every[:, self._arm].sum(1)
        parts = [
            (called, all_behind, all_behind),
            (truly, all_behind, all_behind),
            (behind[:, 0][:, flood].sum(1), grounds, grounds),
            (hit, union, every[:, self._object].sum(1)),
            (every[:, self._arm, self._hand], arms, arms),
        ]
        return np.stack([np.stack(part, -1) for part in parts], 1)

    def values(self, counts: Any) -> NDArray[np.float64]:
        """Counts [..., F, 3] -> float64 [..., F]; NaN where there is no such pixel."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counts[..., 1] > 0, counts[..., 0] / counts[..., 1], np.nan)
