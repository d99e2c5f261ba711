"""The counts of every image of an evaluation: what groups, intervals, comparisons and the page are made of.

Shapes: N rows, F figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hodata.labels import Task
from hotrain.distributed import all_reduce_sum
from hotrain.scoring.figures import Figures

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex


class SampleCounts:
    """Filled by `evaluate`; the same on every rank after `join`.

    Args:
        index: the shards.
        rows: int64 [N], the rows that will be scored.
        task: whose classes are scored.
        extents: source -> the extent at which it is scored.

    Attributes:
        rows: int64 [N].
        values: int64 [N, F, 3]; zero where a row was not scored.
        groups, sources: of each row.
    """

    def __init__(self, index: ShardIndex, rows: NDArray[np.int64], task: Task, extents: Mapping[str, str]) -> None:
        self.figures = Figures(task)
        self.rows = rows
        self.sources, self.groups = index.column("source")[rows], index.column("group")[rows]
        self.values = np.zeros((len(rows), len(self.figures.counted), 3), dtype=np.int64)
        self._extents = extents
        self._place = {row: place for place, row in enumerate(rows.tolist())}

    def add(
        self,
        row: int,
        sets: NDArray[np.uint8],
        answer: NDArray[np.uint8],
        matrix: NDArray[np.int64],
        hands: Sequence[Mapping[str, Any]],
    ) -> None:
        """Count one image; arguments as of `Figures.of_image`."""
        place = self._place[row]
        self.values[place] = self.figures.of_image(sets, answer, matrix, self._extents[self.sources[place]], hands)

    def join(self) -> None:
        """Sum over the ranks: each row was counted by one of them."""
        self.values = all_reduce_sum(torch.from_numpy(self.values)).numpy()
