"""Text columns of an index as small numbers: a million Python strings take a second to make and 60 MB to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex


def coded(index: ShardIndex, name: str) -> tuple[list[str], NDArray[np.int32]]:
    """A text column as (its distinct values, sorted; int32 [rows]: the place of each row's value among them)."""
    column = index.arrow(name).dictionary_encode()
    values, codes = column.dictionary.to_pylist(), column.indices.to_numpy()
    # A dictionary that was read may list values that only rows of other shards have.
    present = np.unique(codes).tolist()
    order = sorted(present, key=values.__getitem__)
    place = np.full(len(values), -1, dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return [values[number] for number in order], place[codes]


def present(index: ShardIndex, name: str, rows: NDArray[np.int64]) -> list[str]:
    """The distinct values that some rows have in a text column, sorted."""
    values, codes = coded(index, name)
    return [values[code] for code in np.unique(codes[rows]).tolist()]
