"""Choosing samples without rewriting shards: an expression over the index, and keys to leave out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.errors import EmptySelectionError, HodataError
from hodata.shards.where import Where
from hodata.shards.where_values import Columns

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

_MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Selector:
    """What a person asked for. Pickles; checked when it is made.

    Args:
        where: an expression, see `hodata.shards.where`; empty: everything.
        exclude: keys to leave out.

    Raises:
        WhereError: the expression is wrong.
    """

    where: str = ""
    exclude: frozenset[str] = frozenset()

    @classmethod
    def of(cls, where: str, files: Iterable[Path]) -> Selector:
        """From the options --where and --exclude; raises as the class and `read_keys`."""
        return cls(where, frozenset(key for path in files for key in read_keys(path)))

    def __post_init__(self) -> None:
        _ = self._condition

    @cached_property
    def _condition(self) -> Where | None:
        return Where(self.where) if self.where.strip() else None

    def __getstate__(self) -> dict[str, object]:
        return {"where": self.where, "exclude": self.exclude}

    def __bool__(self) -> bool:
        return bool(self.where.strip() or self.exclude)

    def masks(self, columns: Columns, rows: int) -> dict[str, NDArray[np.bool_]]:
        """What each part of the request allows: {part in words: bool [rows]}, in the order of the request."""
        found: dict[str, NDArray[np.bool_]] = {}
        if self._condition is not None:
            found |= zip(self._condition.parts, self._condition.masks(columns, rows), strict=True)
        if self.exclude:
            found[f"not among {len(self.exclude):,} excluded keys"] = ~_among(columns, self.exclude)
        return found

    def mask(self, columns: Columns, rows: int) -> NDArray[np.bool_]:
        """bool [rows]: the rows that are meant."""
        return np.logical_and.reduce([np.ones(rows, dtype=bool), *self.masks(columns, rows).values()])


@dataclass(frozen=True)
class Selected:
    """Rows of an index, int64, ascending, and what a person should be told of them."""

    rows: NDArray[np.int64]
    notes: list[str] = field(default_factory=list)


def select_rows(index: ShardIndex, selector: Selector, split: str | None = None) -> Selected:
    """The rows that a selector and a split allow.

    Raises:
        EmptySelectionError: no row is left; says how many each part left.
    """
    parts = selector.masks(index.arrow, len(index))
    if split is not None:
        parts[f"split {split}"] = index.where_equal("split", split)
    left = np.ones(len(index), dtype=bool)
    counts = []
    for part, mask in parts.items():
        left &= mask
        counts.append((part, int(left.sum())))
    if not left.any():
        raise EmptySelectionError(empty_text(len(index), counts))
    return Selected(np.flatnonzero(left), missing_keys(index, selector.exclude))


def empty_text(total: int, counts: Iterable[tuple[str, int]]) -> str:
    """What is said of an empty selection: how many rows were left after each part, in turn."""
    lines = [f"\n  {left:>{len(f'{total:,}')},} left by  {part}" for part, left in counts]
    return f"no sample is selected of {total:,}{''.join(lines)}"


def missing_keys(index: ShardIndex, exclude: frozenset[str]) -> list[str]:
    """A note on the excluded keys that no row has."""
    if not exclude:
        return []
    import pyarrow.compute as pc

    keys = index.arrow("key")
    missing = exclude - set(pc.filter(keys, _among(index.arrow, exclude)).to_pylist())
    return missing_note(exclude, missing)


def missing_note(exclude: frozenset[str], missing: frozenset[str]) -> list[str]:
    if not missing:
        return []
    of_all = f"{len(missing):,} of {len(exclude):,} excluded keys"
    return [f"{of_all} are in none of the shards; the first: {min(missing)!r}"]


def read_keys(path: Path) -> list[str]:
    """Keys of a text file, one a line; empty lines and those that begin with `#` are skipped.

    Raises:
        HodataError: it cannot be read, is larger than 256 MiB, or is not UTF-8.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise HodataError(f"{path}: is larger than {_MAX_BYTES // 2**20} MiB; it should hold one key a line")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise HodataError(f"{path}: cannot be read as a list of keys, one a line ({error})") from error
    return [line for line in lines if line and not line.startswith("#")]


def _among(columns: Columns, keys: frozenset[str]) -> NDArray[np.bool_]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found: NDArray[np.bool_] = pc.is_in(columns("key"), value_set=pa.array(sorted(keys), pa.string())).to_numpy(
        zero_copy_only=False
    )
    return found
