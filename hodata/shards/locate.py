"""Finding shards, and the index of each: beside it, in its build's merged index, or in the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hodata.errors import ShardError
from hodata.shards.index import IndexInfo, TarFacts, read_index
from hodata.shards.rows import IndexFile

if TYPE_CHECKING:
    import pyarrow as pa


def find_shards(patterns: Sequence[str | Path]) -> list[Path]:
    """Absolute paths of the tars that files, folders or globs name, each once, sorted by file name.

    Not by path: rows are numbered in this order, and a run that goes on must find them where they were, whatever its
    folders are called by then.

    Raises:
        ShardError: a pattern names no tar; the message says where it looked.
    """
    found: set[Path] = set()
    for pattern in map(str, patterns):
        path = Path(pattern)
        if path.is_dir():
            # Not what macOS leaves beside each file on other systems' disks: `._x.tar`.
            matches = list(path.glob("[!.]*.tar")) or list(path.rglob("[!.]*.tar"))
        elif has_magic(pattern) and not path.exists():
            # Path.glob raises on patterns that are merely unusual (`**.tar`).
            matches = [Path(match) for match in glob(pattern, recursive=True)]  # noqa: PTH207
        else:
            matches = [path.with_suffix(".tar") if path.suffix in ("", ".index") else path]
        matches = [match for match in matches if match.suffix == ".tar" and match.is_file()]
        if not matches and "://" in pattern:
            raise ShardError(
                f"{pattern}: addresses are not read, only files; mount the bucket, with the .index files beside the "
                "tars, or copy it, and name the folder"
            )
        if not matches:
            raise ShardError(
                f"{pattern}: no .tar shard found (looked in {Path.cwd() if not path.is_absolute() else path.parent}); "
                "name shards, a folder of them or a quoted glob such as 'shards/*.tar'"
            )
        found.update(match.resolve() for match in matches)
    return sorted(found, key=lambda path: (path.name, path))


@dataclass(frozen=True)
class OpenShard:
    """A tar, and where its rows stand."""

    path: Path
    file: IndexFile
    start: int
    facts: TarFacts


def open_shards(paths: Sequence[Path]) -> list[OpenShard]:
    """Each tar with its rows: in its build's merged index where that lists it, else in its own.

    Raises:
        ShardError: no index, a damaged one, or a tar of another size than recorded.
    """
    merged: dict[Path, dict[str, OpenShard]] = {}
    found = []
    for path in paths:
        whole = path.with_name(f"{build_of(path)}.index")
        if whole not in merged:
            merged[whole] = _places(whole) if whole.exists() else {}
        shard = merged[whole].get(path.name) or _places(own_index(path), path.name)[path.name]
        _check_size(path, shard.facts)
        found.append(replace(shard, path=path))  # an index in the cache lies elsewhere
    return found


def _places(path: Path, only: str = "") -> dict[str, OpenShard]:
    """Name of a tar -> where an index file has its rows; `only`: the one that it may list."""
    file = IndexFile.open(path)
    if only:
        _require_tar(path, file.info, only)
    starts = np.cumsum([0, *(facts.samples for facts in file.info.tars)]).tolist()
    return {
        facts.name: OpenShard(path.with_name(facts.name), file, start, facts)
        for facts, start in zip(file.info.tars, starts, strict=False)
    }


def build_of(shard: Path) -> str:
    """`<name>` of `<name>-<split>-<number>.tar`."""
    return shard.stem.rsplit("-", 2)[0]


def read_own_index(tar: Path) -> tuple[pa.Table, IndexInfo]:
    """The index of one tar alone.

    Raises:
        ShardError: missing, damaged, or of another tar.
    """
    path = own_index(tar)
    table, info = read_index(path)
    _require_tar(path, info, tar.name)
    return table, info


def _require_tar(path: Path, info: IndexInfo, name: str) -> None:
    if [facts.name for facts in info.tars] != [name]:
        raise ShardError(f"{path}: is the index of {info.tars[0].name}; delete it and run the build again")


def own_index(tar: Path) -> Path:
    """Where the index of a tar is: beside it, or in the cache of `hodata index` if its folder is read-only.

    Raises:
        ShardError: neither is there; says how to make one.
    """
    beside, cached = tar.with_suffix(".index"), cached_index(tar)
    if beside.exists() or cached.exists():
        return beside if beside.exists() else cached
    raise ShardError(
        f"{tar}: has no {beside.name} beside it. If hodata wrote it, its build was not finished: run it again. If "
        f"another program did, say what its masks mean: hodata index {tar.name} --meaning NAME"
    )


def cached_index(tar: Path) -> Path:
    """Where the index of a tar lies whose folder cannot be written to: in $HODATA_CACHE, or ~/.cache/hodata."""
    folder = Path(os.environ.get("HODATA_CACHE") or Path.home() / ".cache/hodata")
    return folder / f"{tar.stem}-{hashlib.sha256(os.fsencode(tar)).hexdigest()[:16]}.index"


def _check_size(path: Path, facts: TarFacts) -> None:
    size = path.stat().st_size
    if size != facts.bytes:
        raise ShardError(
            f"{path}: is {size:,} bytes long, its index records {facts.bytes:,}; "
            "copy it again, or delete it and its .index and run the build again"
        )
