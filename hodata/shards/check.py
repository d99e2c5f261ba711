"""Is one shard what its index says? Its member table, and on request every byte, image, mask and label id."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hodata.errors import ShardError
from hodata.labels import LABELS, is_legal
from hodata.shards.foreign import table_problems
from hodata.shards.index import MEMBERS, IndexInfo, TarFacts
from hodata.shards.locate import read_own_index
from hodata.shards.parallel import Advance
from hodata.shards.png import decode_mask
from hodata.shards.select import Selector
from hodata.shards.tars import BLOCK, FileHash

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIXES = {"mask": "mask.png", "json": "json"}
_ROWS = 1_000  # of an index that are looked at together


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; offset -1 where no place in the tar can be named."""

    shard: str
    key: str
    offset: int
    what: str


@dataclass
class Checked:
    """The outcome for one shard: how many rows its index has, and how many of them were decoded."""

    samples: int = 0
    decoded: int = 0
    foreign: bool = False
    problems: list[Problem] = field(default_factory=list)


def check_shard(path: Path, full: bool, selector: Selector, advance: Advance) -> Checked:
    """Check one tar against its own index; damage becomes a `Problem`, never an exception.

    Args:
        path: the tar.
        full: also its sha256, and decode what `selector` chooses.
        selector: see `full`.
        advance: called with bytes passed (full), else once with 1.
    """
    checked = Checked()

    def problem(what: str, key: str = "", offset: int = -1) -> Problem:
        return Problem(path.name, key, offset, what)

    try:
        table, info = read_own_index(path)
        facts = info.tars[0]
        checked.samples, checked.foreign = len(table), info.foreign
        size = path.stat().st_size
        if size != facts.bytes:
            what = f"is {size:,} bytes long, its index records {facts.bytes:,}"
            checked.problems.append(problem(what, offset=size))
            return checked
        with path.open("rb") as file:
            checked.problems += _check_table(path, file.fileno(), table, info, problem)
            if full:
                digest = FileHash(file, advance)
                _check_contents(file.fileno(), digest, table, info, selector, checked, problem)
                digest.reach(size)
                if digest.hexdigest() != facts.sha256:
                    checked.problems.append(problem("its sha256 is not the recorded one: bytes have changed"))
    except ShardError as error:
        checked.problems.append(problem(str(error)))
    except OSError as error:
        checked.problems.append(problem(f"cannot be read ({error.strerror or error})"))
    finally:
        if not full:
            advance(1)
    return checked


def _check_table(
    path: Path, descriptor: int, table: pa.Table, info: IndexInfo, problem: Callable[..., Problem]
) -> Iterator[Problem]:
    if info.foreign:
        yield from (problem(what, key, offset) for key, offset, what in table_problems(path, table))
    else:
        rows = (row for batch in table.to_batches(_ROWS) for row in batch.to_pylist())
        yield from _check_members(descriptor, rows, info.tars[0], problem)


def _check_contents(
    descriptor: int,
    digest: FileHash,
    table: pa.Table,
    info: IndexInfo,
    selector: Selector,
    checked: Checked,
    problem: Callable[..., Problem],
) -> None:
    chosen = table.filter(selector.mask(table.column, len(table)))
    size = info.tars[0].bytes
    for batch in chosen.to_batches(_ROWS):
        for row in batch.to_pylist():
            digest.reach(min(max(row[f"{member}_offset"] + row[f"{member}_size"] for member in MEMBERS), size))
            found = _check_content(descriptor, row, size, info.foreign)
            checked.problems += [problem(what, row["key"], offset) for offset, what in found]
            checked.decoded += 1


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


def _check_content(descriptor: int, row: dict[str, Any], tar_size: int, foreign: bool) -> Iterator[tuple[int, str]]:
    from PIL import Image

    data = {}
    for member in MEMBERS:
        if foreign and member == "json" and row["json_offset"] < 0:
            continue
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
        fields = json.loads(data.get("json", b"{}"))
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
    names = () if foreign else ("key", "split", "group", "meaning")
    if not isinstance(fields, dict) or any(fields.get(name) != row[name] for name in names):
        yield row["json_offset"], "the JSON member contradicts the index"
