"""Text columns of an index as small numbers: a million Python strings take a second to make and 60 MB to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex


def coded(index: ShardIndex, name: str) -> tuple[list[str], NDArray[np.int32]]:
    """A text column as (its distinct values, sorted; int32 [rows]: the place of each row's value among them)."""
    import pyarrow as pa

    column = index.table.column(name).dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no rows
        return [], np.zeros(0, dtype=np.int32)
    values: list[str] = column.dictionary.to_pylist()
    order = sorted(range(len(values)), key=values.__getitem__)
    place = np.empty(len(values), dtype=np.int32)
    place[order] = np.arange(len(values), dtype=np.int32)
    return [values[number] for number in order], place[column.indices.to_numpy()]


def present(index: ShardIndex, name: str, rows: NDArray[np.int64]) -> list[str]:
    """The distinct values that some rows have in a text column, sorted."""
    values, codes = coded(index, name)
    return [values[code] for code in np.unique(codes[rows]).tolist()]
