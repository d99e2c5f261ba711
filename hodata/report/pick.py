"""Which samples to show: the same ones every time, spread over sources, splits and groups."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

_SALT = "hodata-show-1"


def spread_rows(index: ShardIndex, count: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Choose `count` rows in turn from every source and split, and within those from every group.

    Args:
        index: the shards.
        count: at most so many.
        rows: int64 [N], the rows to choose from; None: all.

    Returns:
        int64 [<= count], sorted by source, then train, val, test, then group and key. Depends on keys and groups
        only, not on how the shards are cut.
    """
    keys, groups, sources, splits = (index.column(name).tolist() for name in ("key", "group", "source", "split"))
    place = {"train": 0, "val": 1, "test": 2}
    strata: dict[tuple[str, int], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in (np.arange(len(index)) if rows is None else rows).tolist():
        strata[sources[row], place.get(splits[row], 3)][groups[row]].append(row)
    queues = [_in_turn(members, keys) for _, members in sorted(strata.items())]
    chosen = [row for _, _, row in sorted((turn, number, row) for number, q in enumerate(queues) for turn, row in q)]
    shown = sorted(chosen[:count], key=lambda row: (sources[row], place.get(splits[row], 3), groups[row], keys[row]))
    return np.array(shown, dtype=np.int64)


def _in_turn(groups: dict[str, list[int]], keys: list[str]) -> list[tuple[int, int]]:
    """(turn, row) of a stratum: one row of each group, then a second of each, groups and rows in hash order."""
    order: list[tuple[int, bytes, int]] = []
    for group, rows in groups.items():
        mixed = sorted(rows, key=lambda row: _hash(keys[row]))
        order += [(turn, _hash(group), row) for turn, row in enumerate(mixed)]
    order.sort()
    return [(position, row) for position, (_, _, row) in enumerate(order)]


def _hash(text: str) -> bytes:
    return hashlib.sha256(f"{_SALT}|{text}".encode()).digest()
