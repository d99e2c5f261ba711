"""The boxes of hands that the index holds, for crops that are laid and scaled by them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hotrain.input_rule import InputRule

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex


class HandBoxes:
    """Boxes by row: two flat arrays, which forked processes share.

    Args:
        index: the shards.
    """

    def __init__(self, index: ShardIndex) -> None:
        lists = index.arrow("hand_boxes")
        counts = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        boxes = lists.flatten().flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, 4)
        there = (boxes[:, 2:] >= boxes[:, :2]).all(1)  # a hand without a visible pixel has an empty box
        self._boxes = boxes[there]
        kept = np.add.reduceat(np.append(there, False), np.cumsum(np.append(0, counts[:-1]))) * (counts > 0)
        self._borders = np.concatenate([[0], np.cumsum(kept)])

    def of(self, row: int) -> NDArray[np.float32]:
        """float32 [N, 4]: left, top, right and bottom pixel of each hand of a row."""
        return self._boxes[self._borders[row] : self._borders[row + 1]]

    def typical_size(self, index: ShardIndex, rows: Iterable[NDArray[np.int64]], rule: InputRule) -> float:
        """Root of the area of a typical hand, pixels as the network sees it: the sources' medians, geometric mean.

        Args:
            index: the shards.
            rows: int64 [R] of each source; those without boxes are left out.
            rule: how an image enters the network.

        Returns:
            1 where no source has boxes.
        """
        width, height = index.column("width").astype(np.int64), index.column("height").astype(np.int64)
        medians = []
        for own in rows:
            counts = self._borders[own + 1] - self._borders[own]
            row = np.repeat(own, counts)
            first = np.repeat(self._borders[own] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
            boxes = self._boxes[first + np.arange(len(row))]
            if not len(boxes):
                continue
            shapes, code = np.unique(np.stack([width[row], height[row]], 1), axis=0, return_inverse=True)
            seen = np.array([rule.network_size(int(w), int(h)) for w, h in shapes]) / shapes
            sides = (boxes[:, 2:] - boxes[:, :2] + 1) * seen[code.reshape(-1)]
            medians.append(float(np.median(np.sqrt(sides.prod(1)))))
        return float(np.exp(np.mean(np.log(medians)))) if medians else 1.0
