"""Reading shards: every row of every index in one table, and positional, checked reads of members."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import HodataError, ShardError
from hodata.labels import Meaning
from hodata.sample import STRUCTURED
from hodata.shards.index import MEMBERS, IndexInfo, schema
from hodata.shards.locate import OpenShard, build_of, find_shards, open_shards
from hodata.shards.manifest import read_manifest
from hodata.shards.png import decode_mask
from hodata.shards.rows import CODED, Stretch, column_of, joined, may_share_keys

if TYPE_CHECKING:
    import pyarrow as pa


# Seconds before a read is tried again. Network disks fail for a moment, or give too few bytes or wrong ones.
PAUSES: tuple[float, ...] = (0.05, 0.2, 0.8)
_PASSING = {getattr(errno, name) for name in ("EIO", "ETIMEDOUT", "ESTALE") if hasattr(errno, name)}


class ShardIndex:
    """All samples of a set of shards. Make one with `ShardIndex.open`. Columns are read when they are asked for.

    Attributes:
        shards: absolute path of every tar, sorted by file name; `shard_number` gives each row's place in it.
        tars: the recorded facts of each tar, same order.
        meanings: by name, all that the rows refer to.
        plans: build name -> what its plan depends on (dataset, options, split policy).
        foreign: names of sources whose tars other programs wrote; `foreign_rows` bool [rows] marks their samples.
        left_out: name of a foreign source -> how many of its samples could not be indexed.
    """

    def __init__(self, opened: Sequence[OpenShard]) -> None:
        self.shards = [shard.path for shard in opened]
        self.tars = [shard.facts for shard in opened]
        self.shard_number = np.repeat(np.arange(len(opened), dtype=np.int32), [tar.samples for tar in self.tars])
        self.foreign_rows = np.array([shard.file.info.foreign for shard in opened])[self.shard_number]
        self.meanings: dict[str, Meaning] = {}
        self.plans: dict[str, Mapping[str, Any]] = {}
        self.foreign: set[str] = set()
        self.left_out: dict[str, int] = {}
        for info, path in {id(shard.file): (shard.file.info, shard.path) for shard in opened}.values():
            _add_meanings(self.meanings, info, path)
            self.plans[info.name] = info.plan
            if info.foreign:
                self.foreign.add(info.name)
                self.left_out[info.name] = self.left_out.get(info.name, 0) + len(info.left_out)
        self._builds = {(build_of(shard.path), shard.path.parent) for shard in opened if not shard.file.info.foreign}
        self._stretches = joined([Stretch(shard.file, shard.start, shard.facts.samples) for shard in opened])
        self._columns: dict[str, pa.Array] = {}

    @classmethod
    def open(cls, patterns: Sequence[str | Path] | str | Path) -> ShardIndex:
        """Open shards named by files, folders or globs.

        Raises:
            ShardError: nothing found, a tar without index, a tar of another size than recorded, one key twice, or
                one meaning's name with two definitions.
        """
        index = cls(open_shards(find_shards([patterns] if isinstance(patterns, str | Path) else patterns)))
        if may_share_keys(index._stretches):
            index.refuse_duplicates()
        index._require_meanings()
        return index

    def __len__(self) -> int:
        return len(self.shard_number)

    @property
    def meaning_names(self) -> list[str]:
        """Of `meanings`, sorted: the order in which arrays number them."""
        return sorted(self.meanings)

    @cached_property
    def table(self) -> pa.Table:
        """One row per sample, with all columns of `hodata.shards.index.schema`."""
        import pyarrow as pa

        kinds = schema()
        return pa.table([self.arrow(item.name).cast(item.type) for item in kinds], schema=kinds)

    def arrow(self, name: str) -> pa.Array:
        """One column; those of few different values (`rows.CODED`) are dictionary-encoded."""
        if name not in self._columns:
            self._columns[name] = column_of(self._stretches, name)
        return self._columns[name]

    def column(self, name: str) -> NDArray[Any]:
        """One column as a NumPy array (strings and lists: object)."""
        column = self.arrow(name)
        if name in CODED:  # one string object for each different value
            values: NDArray[Any] = column.dictionary.to_numpy(zero_copy_only=False)[column.indices.to_numpy()]
            return values
        array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return array

    def select(self, *, split: str | None = None, source: str | None = None) -> NDArray[np.int64]:
        """Row numbers of a split and a source, ascending; None: all."""
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            chosen &= self.where_equal("split", split)
        if source is not None:
            chosen &= self.where_equal("source", source)
        return np.flatnonzero(chosen)

    def where_equal(self, name: str, value: str) -> NDArray[np.bool_]:
        """bool [rows]: which rows have a value in one of the columns `rows.CODED`."""
        column = self.arrow(name)
        values = column.dictionary.to_pylist()
        mask: NDArray[np.bool_] = column.indices.to_numpy() == (values.index(value) if value in values else -1)
        return mask

    def data_hash(self, rows: NDArray[np.int64]) -> str:
        """sha256 (hex) of the selected rows: which samples of which tar contents, whatever the files' folder."""
        digest = hashlib.sha256()
        offsets, numbers = self.column("image_offset")[rows], self.shard_number[rows]
        offsets = offsets[np.lexsort((offsets, numbers))].astype("<i8")
        counts = np.bincount(numbers, minlength=len(self.tars))
        ends = np.cumsum(counts)
        for number in sorted(np.flatnonzero(counts).tolist(), key=lambda number: self.tars[number].sha256):
            digest.update(bytes.fromhex(self.tars[number].sha256))
            digest.update(offsets[ends[number] - counts[number] : ends[number]].tobytes())
        return digest.hexdigest()

    def row_order(self, rows: NDArray[np.int64]) -> str:
        """sha256 (hex) of the tars of the selected rows, in the order in which those are numbered."""
        numbers = np.unique(self.shard_number[rows]).tolist()
        return hashlib.sha256(b"".join(bytes.fromhex(self.tars[number].sha256) for number in numbers)).hexdigest()

    def reader(self) -> SampleReader:
        """Reads members of these rows; pickles, and opens its files anew in every process."""
        return SampleReader(self)

    def refuse_duplicates(self) -> None:
        """Raise ShardError where two rows have one key. `open` reads the keys only where that can be."""
        import pyarrow.compute as pc

        keys = self.arrow("key")
        if pc.count_distinct(keys).as_py() == len(keys):
            return
        seen: dict[str, Path] = {}
        for key, number in zip(keys.to_pylist(), self.shard_number.tolist(), strict=True):
            path = self.shards[number]
            if key in seen:
                raise ShardError(
                    f"key {key!r} stands in {seen[key]} and in {path}: one dataset was built twice into this "
                    "selection; leave one of them out"
                    + (" (or index with --prefix-keys, if these are different samples)" if self.foreign else "")
                )
            seen[key] = path

    def _require_meanings(self) -> None:
        unknown = sorted(set(self.arrow("meaning").unique().to_pylist()) - set(self.meanings))
        if unknown:
            raise ShardError(
                f"the index does not define the meaning {unknown[0]!r} that its rows name; run the build again"
            )

    @property
    def manifests(self) -> dict[str, dict[str, Any]]:
        """Build name -> manifest, for the builds that are complete."""
        found: dict[str, dict[str, Any]] = {}
        for name, folder in sorted(self._builds):
            path = folder / f"{name}.manifest.json"
            if path.exists():
                found[name] = read_manifest(path)
        return found

    @property
    def incomplete(self) -> list[str]:
        """Names of builds that have no manifest: they were not finished."""
        return sorted(name for name, folder in self._builds if not (folder / f"{name}.manifest.json").exists())


class SampleReader:
    """Positional reads by row number, checked by crc32, from any number of threads.

    Holds no state but open files, of which it keeps those that were read last, and which shards are damaged.
    """

    def __init__(self, index: ShardIndex) -> None:
        self._shards = [str(path) for path in index.shards]
        self._numbers = index.shard_number
        self._keys = index.arrow("key")
        self._facts = _json_facts(index) if index.foreign else None
        self._members = {
            member: tuple(index.column(f"{member}_{part}") for part in ("offset", "size", "crc32"))
            for member in MEMBERS
        }
        self._begin()

    def _begin(self) -> None:
        self._files: dict[int, _OpenFile] = {}
        self._damaged: set[int] = set()  # shards whose bytes are wrong at every try
        self._lock = Lock()
        self._process = os.getpid()

    def image(self, row: int) -> bytes:
        """The image file's bytes. Raises ShardError on damage, naming shard, key and offset."""
        return self._read("image", row)

    def mask(self, row: int) -> NDArray[np.uint8]:
        """The label map uint8 [H, W]."""
        return decode_mask(self._read("mask", row))

    def json(self, row: int) -> dict[str, Any]:
        """The JSON member, with its structured fields (`hands`, `instances`, ...) as lists and objects.

        Of a tar that another program wrote: what its JSON member says, if there is one, and over it what the index
        says: key, source, split, group, meaning and so on.
        """
        facts = self._facts.slice(row, 1).to_pylist()[0] if self._facts is not None else {}
        foreign = facts.pop("foreign", False)
        fields: dict[str, Any] = json.loads(self._read("json", row)) if self._members["json"][0][row] >= 0 else {}
        if foreign:
            return fields | facts
        return fields | {name: json.loads(fields[name]) for name in STRUCTURED if name in fields}

    def _read(self, member: str, row: int) -> bytes:
        number = int(self._numbers[row])
        for pause in () if number in self._damaged else PAUSES:
            try:
                return self._read_once(member, row)
            except ShardError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno not in _PASSING:
                    raise
            self._reopen(number)
            time.sleep(pause)
        try:
            return self._read_once(member, row)
        except ShardError as error:
            if not isinstance(error.__cause__, OSError):
                self._damaged.add(number)  # one that was cut off has thousands of such samples, at a second each
            raise

    def _read_once(self, member: str, row: int) -> bytes:
        number = int(self._numbers[row])
        offset, size, crc32 = (int(values[row]) for values in self._members[member])
        try:
            file = self._file(number)
            data = os.pread(file.descriptor, size, offset)
            while len(data) < size and (more := os.pread(file.descriptor, size - len(data), offset + len(data))):
                data += more
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # which says nothing of the shard
                raise HodataError(f"{self._shards[number]}: {error.strerror}; allow more with `ulimit -n`") from error
            raise ShardError(f"{self._shards[number]}: cannot be read at offset {offset} ({error})") from error
        if len(data) != size or zlib.crc32(data) != crc32:
            what = f"{len(data)} of {size} bytes" if len(data) != size else "other bytes than the index records"
            raise ShardError(
                f"{self._shards[number]}: {self._keys[row].as_py()} ({member}) at offset {offset}: {what}; "
                "the file is damaged: copy it again, or delete it and its .index and build it (or index it) again"
            )
        return data

    def _reopen(self, number: int) -> None:
        """Forget a file's descriptor, which may be what is stale."""
        with self._lock:
            self._files.pop(number, None)

    def _file(self, number: int) -> _OpenFile:
        if self._process != os.getpid():  # after fork: share nothing with the parent, whose threads may hold the lock
            self._begin()
        with self._lock:
            file = self._files.pop(number, None) or _OpenFile(self._shards[number])
            self._files[number] = file
            if len(self._files) > _most_open():
                del self._files[next(iter(self._files))]
        return file

    def close(self) -> None:
        """Close the files, each when its last read has ended."""
        self._files = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_lock", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


class _OpenFile:
    """A file that closes itself when nobody reads it any more."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if "descriptor" in self.__dict__:
            os.close(self.descriptor)


@cache
def _most_open() -> int:
    """How many files a reader keeps open: a quarter of what the system allows a process, which may have several."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 128
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1024 if allowed == resource.RLIM_INFINITY else min(max(allowed // 4, 8), 1024)


# What a JSON member says that stands in the index too.
_JSON_FACTS = (
    *("key", "source", "split", "subset", "group", "recording", "sequence", "frame", "instant", "subject", "view"),
    *("meaning", "mask_origin", "width", "height"),
)


def _json_facts(index: ShardIndex) -> pa.Table:
    """`_JSON_FACTS` of every row, and whether another program wrote its tar."""
    import pyarrow as pa

    return pa.table({name: index.arrow(name) for name in _JSON_FACTS} | {"foreign": index.foreign_rows})


def _add_meanings(meanings: dict[str, Meaning], info: IndexInfo, path: Path) -> None:
    for data in info.meanings:
        meaning = Meaning.from_json(data)
        known = meanings.setdefault(meaning.name, meaning)
        if dict(known.sets) != dict(meaning.sets):
            raise ShardError(
                f"{path}: defines the meaning {meaning.name!r} differently from another shard of this selection; "
                "give one of the two another name in its labels.toml and build it again"
            )
