"""Rows of index files: small files are read at once, of large ones only the columns that somebody asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hodata.errors import ShardError
from hodata.shards.index import IndexInfo, parse_info, read_columns, read_index, schema

if TYPE_CHECKING:
    import pyarrow as pa

LAZY_ROWS = 20_000  # of a file: from here on reading all columns takes longer than a person should wait

# Columns with few different values: kept as numbers into a list of those.
CODED = (
    *("source", "split", "subset", "group", "recording", "sequence", "camera", "subject", "view"),
    *("shard", "image_kind", "meaning", "mask_origin"),
)


class IndexFile:
    """One index file. Make one with `IndexFile.open`; pickles.

    Attributes:
        path: the file.
        info: its metadata.
        rows: how many it holds.
        keys: the smallest and the largest key where that is known without reading them.
    """

    def __init__(self, path: Path, info: IndexInfo, rows: int, keys: tuple[str, str] | None) -> None:
        self.path = path
        self.info = info
        self.rows = rows
        self.keys = keys
        self._table: pa.Table | None = None
        self._identity = _identity(path)

    @classmethod
    def open(cls, path: Path) -> IndexFile:
        """Raises ShardError: missing, damaged, no index, or of a newer format version."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                metadata, names = file.metadata, set(file.schema_arrow.names)
        except (pa.ArrowException, OSError):
            names = set()
        if not names >= set(schema().names) or metadata.num_rows < LAZY_ROWS:
            table, info = read_index(path)  # whose errors name what is wrong
            opened = cls(path, info, len(table), None)
            opened._table = table
            return opened
        info = parse_info(path, metadata.metadata, metadata.num_rows)
        return cls(path, info, metadata.num_rows, _range(metadata, "key"))

    def column(self, name: str) -> pa.ChunkedArray:
        """One column, `CODED` ones dictionary-encoded.

        Raises:
            ShardError: damaged, or another file than the one that was opened.
        """
        if self._table is not None:
            column = self._table.column(name)
            return column.dictionary_encode() if name in CODED else column
        if _identity(self.path) != self._identity:
            raise ShardError(f"{self.path}: was replaced while it was read; start again")
        return read_columns(self.path, [name], coded=CODED).column(name)


@dataclass(frozen=True)
class Stretch:
    """Neighbouring rows of one index file."""

    file: IndexFile
    start: int
    count: int


def column_of(stretches: Sequence[Stretch], name: str) -> pa.Array:
    """One column of several stretches, in their order; each file is read once."""
    import pyarrow as pa

    read: dict[int, pa.ChunkedArray] = {}
    pieces: list[pa.Array] = []
    for stretch in stretches:
        whole = read.setdefault(id(stretch.file), None) or stretch.file.column(name)
        read[id(stretch.file)] = whole
        pieces += whole.slice(stretch.start, stretch.count).chunks
    kind = pa.dictionary(pa.int32(), pa.string()) if name in CODED else schema().field(name).type
    return pa.chunked_array(pieces, kind).unify_dictionaries().combine_chunks()


def joined(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The same rows in as few stretches as possible."""
    found: list[Stretch] = []
    for item in stretches:
        if found and found[-1].file is item.file and found[-1].start + found[-1].count == item.start:
            item = Stretch(item.file, found[-1].start, found[-1].count + item.count)
            found.pop()
        found.append(item)
    return found


def may_share_keys(stretches: Sequence[Stretch]) -> bool:
    """Whether two of the files may hold one key. Inside a file none is twice: its build refuses that, `verify` checks.

    Keys begin with their build's name, so the ranges of two builds hardly ever overlap.
    """
    files = {id(stretch.file): stretch.file for stretch in stretches}
    if len(files) == 1:
        return next(iter(files.values())).keys is None
    ranges = [file.keys for file in files.values()]
    if None in ranges:
        return True
    ordered = sorted(item for item in ranges if item)
    return any(one[1] >= other[0] for one, other in pairwise(ordered))


def _range(metadata: Any, name: str) -> tuple[str, str] | None:
    place = [metadata.schema.column(number).path for number in range(metadata.num_columns)].index(name)
    groups = [metadata.row_group(number).column(place).statistics for number in range(metadata.num_row_groups)]
    if not all(group is not None and group.has_min_max for group in groups):
        return None
    return min(group.min for group in groups), max(group.max for group in groups)


def _identity(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
