"""Are these shards what their index says? Quick: sizes, index, member table. Full: every byte, image and label id."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from hodata.errors import ShardError
from hodata.labels import LABELS, is_legal
from hodata.shards.index import MEMBERS, TarFacts
from hodata.shards.locate import find_shards, read_own_index
from hodata.shards.manifest import read_manifest
from hodata.shards.reader import ShardIndex
from hodata.shards.writer import BLOCK

_SUFFIXES = {"mask": "mask.png", "json": "json"}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; offset -1 where no place in the tar can be named."""

    shard: str
    key: str
    offset: int
    what: str


@dataclass
class Verification:
    """The outcome: `samples` counts the rows of the indexes that could be read."""

    samples: int
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "samples": self.samples, "problems": [asdict(problem) for problem in self.problems]}


def verify(
    patterns: Sequence[str | Path],
    *,
    full: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Check shards; damage becomes a `Problem`, never an exception.

    Args:
        patterns: shards, folders or globs.
        full: also the sha256 of every tar, and decode every image and mask. Without it only file sizes, the index
            and the table of members are promised.
        workers: processes.
        progress: called with (shards done, shards in all).

    Raises:
        ShardError: the patterns name no shard.
    """
    paths = find_shards(patterns)
    samples = 0
    problems: list[Problem] = []
    for done, (count, found) in enumerate(_each_shard(paths, full, workers), start=1):
        samples += count
        problems += found
        if progress:
            progress(done, len(paths))
    problems += _check_builds(paths)
    if not problems:
        problems += _check_together(paths)
    return Verification(samples, problems)


def _each_shard(paths: Sequence[Path], full: bool, workers: int) -> Iterator[tuple[int, list[Problem]]]:
    if workers <= 1 or len(paths) == 1:
        yield from (_check_shard(path, full) for path in paths)
        return
    with ProcessPoolExecutor(min(workers, len(paths)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(_check_shard, paths, [full] * len(paths))


def _check_shard(path: Path, full: bool) -> tuple[int, list[Problem]]:
    def problem(what: str, key: str = "", offset: int = -1) -> Problem:
        return Problem(path.name, key, offset, what)

    try:
        table, info = read_own_index(path)
    except ShardError as error:
        return 0, [problem(str(error))]
    facts = info.tars[0]
    rows = table.to_pylist()
    size = path.stat().st_size
    if size != facts.bytes:
        return len(rows), [problem(f"is {size:,} bytes long, its index records {facts.bytes:,}", offset=size)]
    problems: list[Problem] = []
    with path.open("rb") as file:
        descriptor = file.fileno()
        problems += _check_members(descriptor, rows, facts, problem)
        if full:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts.sha256:
                problems.append(problem("its sha256 is not the recorded one: bytes have changed"))
            for row in rows:
                problems += [
                    problem(what, row["key"], offset) for offset, what in _check_content(descriptor, row, size)
                ]
    return len(rows), problems


def _check_members(
    descriptor: int, rows: Iterable[dict[str, Any]], facts: TarFacts, problem: Callable[..., Problem]
) -> Iterator[Problem]:
    """The member table: headers stand where the index says, with the right names and sizes, and nothing between."""
    expected = 0
    for row in rows:
        for member in MEMBERS:
            offset, size = row[f"{member}_offset"], row[f"{member}_size"]
            name = f"{row['key']}.{_SUFFIXES.get(member, row['image_kind'])}"
            if offset != expected + BLOCK:
                yield problem(f"{name} should start at {expected + BLOCK}, the index says {offset}", row["key"], offset)
                return
            try:
                header = tarfile.TarInfo.frombuf(os.pread(descriptor, BLOCK, offset - BLOCK), "utf-8", "strict")
            except (tarfile.HeaderError, UnicodeDecodeError) as error:
                yield problem(f"no tar header before {name} ({error})", row["key"], offset - BLOCK)
                return
            if header.name != name or header.size != size:
                found = f"{header.name} ({header.size} bytes)"
                yield problem(f"the index says {name} ({size} bytes), the tar {found}", row["key"], offset - BLOCK)
                return
            expected = offset + -(-size // BLOCK) * BLOCK
    if facts.bytes < expected + 2 * BLOCK or any(os.pread(descriptor, 2 * BLOCK, expected)):
        yield problem("the tar does not end after its last sample", offset=expected)


def _check_content(descriptor: int, row: dict[str, Any], tar_size: int) -> Iterator[tuple[int, str]]:
    import json
    import zlib

    from PIL import Image

    from hodata.shards.png import decode_mask

    data = {}
    for member in MEMBERS:
        offset = row[f"{member}_offset"]
        if not 0 <= offset <= offset + row[f"{member}_size"] <= tar_size:
            yield offset, f"{member}: the index places it outside the tar"
            return
        data[member] = os.pread(descriptor, row[f"{member}_size"], offset)
        if zlib.crc32(data[member]) != row[f"{member}_crc32"]:
            yield offset, f"{member}: other bytes than recorded (crc32)"
            return
    size = (row["width"], row["height"])
    try:
        with Image.open(io.BytesIO(data["image"])) as image:
            image.load()
            if image.size != size:
                yield row["image_offset"], f"image is {image.size}, the index says {size}"
        mask = decode_mask(data["mask"])
        fields = json.loads(data["json"])
    except Exception as error:
        yield row["image_offset"], f"cannot be decoded ({error})"
        return
    if (mask.shape[1], mask.shape[0]) != size:
        yield row["mask_offset"], f"mask is {mask.shape[1]}x{mask.shape[0]}, the image {size[0]}x{size[1]}"
    counts = np.bincount(mask.ravel(), minlength=256)
    illegal = np.flatnonzero((counts > 0) & ~is_legal())
    if len(illegal):
        yield row["mask_offset"], f"mask holds ids that are no labels: {illegal.tolist()}"
    if any(counts[label] != row[f"pixels_{label.label_name}"] for label in LABELS):
        yield row["mask_offset"], "mask has other pixel counts than the index"
    names = ("key", "split", "group", "meaning")
    if not isinstance(fields, dict) or any(fields.get(name) != row[name] for name in names):
        yield row["json_offset"], "the JSON member contradicts the index"


def _check_together(paths: Sequence[Path]) -> Iterator[Problem]:
    """What only the shards together can show: a key twice, a meaning with two definitions, a false merged index."""
    try:
        index = ShardIndex.open(paths)
    except ShardError as error:
        yield Problem("", "", -1, str(error))
        return
    start = 0
    for path, facts in zip(index.shards, index.tars, strict=True):
        own, info = read_own_index(path)
        if facts != info.tars[0] or not own.equals(index.table.slice(start, facts.samples)):
            merged = f"{path.stem.rsplit('-', 2)[0]}.index"
            yield Problem(path.name, "", -1, f"{merged} tells other things of it; delete {merged}: it is not needed")
        start += facts.samples


def _check_builds(paths: Sequence[Path]) -> Iterator[Problem]:
    """Every tar is in its build's manifest with the recorded facts, every build has one, and no tar of it is gone."""
    manifests: dict[Path, dict[str, Any] | None] = {}
    for path in paths:
        manifest_path = path.with_name(path.stem.rsplit("-", 2)[0] + ".manifest.json")
        if manifest_path not in manifests:
            try:
                manifests[manifest_path] = read_manifest(manifest_path)
            except ShardError:
                manifests[manifest_path] = None
                yield Problem(
                    path.name, "", -1, f"no readable {manifest_path.name}: its build is not complete, rerun it"
                )
        manifest = manifests[manifest_path]
        if manifest is None:
            continue
        listed = {shard["name"]: shard for shard in manifest["shards"]}
        if path.name not in listed:
            yield Problem(path.name, "", -1, f"{manifest_path.name} does not list it")
            continue
        try:
            _, info = read_own_index(path)
        except ShardError:
            continue  # reported by _check_shard
        if asdict(info.tars[0]) != listed[path.name]:
            yield Problem(path.name, "", -1, f"its index and {manifest_path.name} record different facts")
    for manifest_path, manifest in manifests.items():
        for shard in manifest["shards"] if manifest else ():
            if not manifest_path.with_name(shard["name"]).exists():
                yield Problem(shard["name"], "", -1, f"{manifest_path.name} lists it, but it is not there")
