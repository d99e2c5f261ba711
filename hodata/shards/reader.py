"""Reading shards: every row of every index in one table, and positional, checked reads of members."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.labels import Meaning
from hodata.sample import STRUCTURED
from hodata.shards.index import MEMBERS, IndexInfo, TarFacts, read_index
from hodata.shards.manifest import read_manifest
from hodata.shards.png import decode_mask

if TYPE_CHECKING:
    import pyarrow as pa


class ShardIndex:
    """All samples of a set of shards. Make one with `ShardIndex.open`.

    Attributes:
        table: one row per sample; columns as in `hodata.shards.index.schema`.
        shards: absolute path of every tar, sorted; `shard_number` gives each row's place in it.
        tars: the recorded facts of each tar, same order.
        meanings: by name, all that the rows refer to.
        plans: build name -> what its plan depends on (dataset, options, split policy).
    """

    def __init__(
        self,
        table: pa.Table,
        shards: list[Path],
        tars: list[TarFacts],
        meanings: dict[str, Meaning],
        plans: dict[str, Mapping[str, Any]],
    ) -> None:
        self.table = table
        self.shards = shards
        self.tars = tars
        self.meanings = meanings
        self.plans = plans
        self.shard_number = np.repeat(np.arange(len(tars), dtype=np.int32), [tar.samples for tar in tars])

    @classmethod
    def open(cls, patterns: Sequence[str | Path] | str | Path) -> ShardIndex:
        """Open shards named by files, folders or globs.

        Raises:
            ShardError: nothing found, a tar without index, a tar of another size than recorded, one key twice, or
                one meaning's name with two definitions.
        """
        import pyarrow as pa

        paths = find_shards([patterns] if isinstance(patterns, str | Path) else patterns)
        tables: list[pa.Table] = []
        tars: list[TarFacts] = []
        meanings: dict[str, Meaning] = {}
        plans: dict[str, Mapping[str, Any]] = {}
        merged: dict[Path, tuple[pa.Table, IndexInfo] | None] = {}
        for path in paths:
            rows, info, facts = _rows_of(path, merged)
            _check_size(path, facts)
            _add_meanings(meanings, info, path)
            plans[info.name] = info.plan
            tables.append(rows.replace_schema_metadata(None))
            tars.append(facts)
        index = cls(pa.concat_tables(tables).combine_chunks(), paths, tars, meanings, plans)
        index._refuse_duplicates()
        index._require_meanings()
        return index

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> NDArray[Any]:
        """One column as a NumPy array (strings and lists: object)."""
        column: NDArray[Any] = self.table.column(name).to_numpy()
        return column

    def select(self, *, split: str | None = None, source: str | None = None) -> NDArray[np.int64]:
        """Row numbers of a split and a source, ascending; None: all."""
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            chosen &= self.column("split") == split
        if source is not None:
            chosen &= self.column("source") == source
        return np.flatnonzero(chosen)

    def data_hash(self, rows: NDArray[np.int64]) -> str:
        """sha256 (hex) of the selected rows: which samples of which tar contents, whatever the files' folder."""
        digest = hashlib.sha256()
        offsets, numbers = self.column("image_offset")[rows], self.shard_number[rows]
        for number in sorted(set(numbers.tolist()), key=lambda number: self.tars[number].sha256):
            digest.update(bytes.fromhex(self.tars[number].sha256))
            digest.update(np.sort(offsets[numbers == number]).astype("<i8").tobytes())
        return digest.hexdigest()

    def reader(self) -> SampleReader:
        """Reads members of these rows; pickles, and opens its files anew in every process."""
        return SampleReader(self)

    def _refuse_duplicates(self) -> None:
        import pyarrow.compute as pc

        keys = self.table.column("key")
        if pc.count_distinct(keys).as_py() == len(keys):
            return
        seen: dict[str, Path] = {}
        for key, number in zip(keys.to_pylist(), self.shard_number.tolist(), strict=True):
            path = self.shards[number]
            if key in seen:
                raise ShardError(
                    f"key {key!r} stands in {seen[key]} and in {path}: one dataset was built twice into this "
                    "selection; leave one of them out"
                )
            seen[key] = path

    def _require_meanings(self) -> None:
        unknown = sorted(set(self.table.column("meaning").unique().to_pylist()) - set(self.meanings))
        if unknown:
            raise ShardError(
                f"the index does not define the meaning {unknown[0]!r} that its rows name; run the build again"
            )

    @property
    def manifests(self) -> dict[str, dict[str, Any]]:
        """Build name -> manifest, for the builds that are complete."""
        found: dict[str, dict[str, Any]] = {}
        for name, folder in sorted({(_name_of(path), path.parent) for path in self.shards}):
            path = folder / f"{name}.manifest.json"
            if path.exists():
                found[name] = read_manifest(path)
        return found

    @property
    def incomplete(self) -> list[str]:
        """Names of builds that have no manifest: they were not finished."""
        builds = {(_name_of(path), path.parent) for path in self.shards}
        return sorted(name for name, folder in builds if not (folder / f"{name}.manifest.json").exists())


class SampleReader:
    """Positional reads by row number, checked by crc32. Holds no state but open file descriptors."""

    def __init__(self, index: ShardIndex) -> None:
        self._shards = [str(path) for path in index.shards]
        self._numbers = index.shard_number
        self._keys = index.table.column("key")
        self._members = {
            member: tuple(index.column(f"{member}_{part}") for part in ("offset", "size", "crc32"))
            for member in MEMBERS
        }
        self._files: dict[int, int] = {}
        self._process = os.getpid()

    def image(self, row: int) -> bytes:
        """The image file's bytes. Raises ShardError on damage, naming shard, key and offset."""
        return self._read("image", row)

    def mask(self, row: int) -> NDArray[np.uint8]:
        """The label map uint8 [H, W]."""
        return decode_mask(self._read("mask", row))

    def json(self, row: int) -> dict[str, Any]:
        """The JSON member, with its structured fields (`hands`, `instances`, ...) as lists and objects."""
        fields: dict[str, Any] = json.loads(self._read("json", row))
        return fields | {name: json.loads(fields[name]) for name in STRUCTURED if name in fields}

    def _read(self, member: str, row: int) -> bytes:
        number = int(self._numbers[row])
        offset, size, crc32 = (int(values[row]) for values in self._members[member])
        try:
            data = os.pread(self._descriptor(number), size, offset)
        except OSError as error:
            raise ShardError(f"{self._shards[number]}: cannot be read at offset {offset} ({error})") from error
        if len(data) != size or zlib.crc32(data) != crc32:
            what = f"{len(data)} of {size} bytes" if len(data) != size else "other bytes than the index records"
            raise ShardError(
                f"{self._shards[number]}: {self._keys[row].as_py()} ({member}) at offset {offset}: {what}; "
                "the file is damaged: copy it again, or delete it and its .index and run the build again"
            )
        return data

    def _descriptor(self, number: int) -> int:
        if self._process != os.getpid():  # after fork: share nothing with the parent
            self._files, self._process = {}, os.getpid()
        if number not in self._files:
            self._files[number] = os.open(self._shards[number], os.O_RDONLY)
        return self._files[number]

    def close(self) -> None:
        """Close the files that this process opened."""
        if self._process == os.getpid():
            for descriptor in self._files.values():
                os.close(descriptor)
        self._files = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        if "_files" in self.__dict__:
            self.close()


def find_shards(patterns: Sequence[str | Path]) -> list[Path]:
    """Absolute paths of the tars that files, folders or globs name, sorted, each once.

    Raises:
        ShardError: a pattern names no tar; the message says where it looked.
    """
    found: set[Path] = set()
    for pattern in map(str, patterns):
        path = Path(pattern)
        if path.is_dir():
            matches = list(path.glob("*.tar")) or list(path.rglob("*.tar"))
        elif has_magic(pattern) and not path.exists():
            # Path.glob raises on patterns that are merely unusual (`**.tar`).
            matches = [Path(match) for match in glob(pattern, recursive=True)]  # noqa: PTH207
        else:
            matches = [path.with_suffix(".tar") if path.suffix in ("", ".index") else path]
        matches = [match for match in matches if match.suffix == ".tar" and match.is_file()]
        if not matches:
            raise ShardError(
                f"{pattern}: no .tar shard found (looked in {Path.cwd() if not path.is_absolute() else path.parent}); "
                "name shards, a folder of them or a quoted glob such as 'shards/*.tar'"
            )
        found.update(match.resolve() for match in matches)
    return sorted(found)


def _name_of(shard: Path) -> str:
    return shard.stem.rsplit("-", 2)[0]


def _rows_of(path: Path, merged: dict[Path, tuple[pa.Table, IndexInfo] | None]) -> tuple[pa.Table, IndexInfo, TarFacts]:
    """A tar's rows: from its build's merged index where that lists it, else from its own."""
    whole = path.with_name(f"{_name_of(path)}.index")
    if whole not in merged:
        merged[whole] = read_index(whole) if whole.exists() else None
    entry = merged[whole]
    if entry is not None:
        table, info = entry
        start = 0
        for facts in info.tars:
            if facts.name == path.name:
                return table.slice(start, facts.samples), info, facts
            start += facts.samples
    own = path.with_suffix(".index")
    if not own.exists():
        raise ShardError(
            f"{path}: has no {own.name} beside it; its build was not finished (run it again), "
            "or it is a tar that hodata did not write (name the shards with a glob, or move it away)"
        )
    table, info = read_own_index(path)
    return table, info, info.tars[0]


def read_own_index(tar: Path) -> tuple[pa.Table, IndexInfo]:
    """The index beside a tar.

    Raises:
        ShardError: missing, damaged, or of another tar.
    """
    path = tar.with_suffix(".index")
    table, info = read_index(path)
    if [facts.name for facts in info.tars] != [tar.name]:
        raise ShardError(f"{path}: is the index of {info.tars[0].name}; delete it and run the build again")
    return table, info


def _check_size(path: Path, facts: TarFacts) -> None:
    size = path.stat().st_size
    if size != facts.bytes:
        raise ShardError(
            f"{path}: is {size:,} bytes long, its index records {facts.bytes:,}; "
            "copy it again, or delete it and its .index and run the build again"
        )


def _add_meanings(meanings: dict[str, Meaning], info: IndexInfo, path: Path) -> None:
    for data in info.meanings:
        meaning = Meaning.from_json(data)
        known = meanings.setdefault(meaning.name, meaning)
        if dict(known.sets) != dict(meaning.sets):
            raise ShardError(
                f"{path}: defines the meaning {meaning.name!r} differently from another shard of this selection; "
                "give one of the two another name in its labels.toml and build it again"
            )
