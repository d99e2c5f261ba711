"""An index for tars that another program wrote: webdataset's writer, tarfile, GNU tar.

Every image and mask is decoded once, and what cannot be used is listed in the index with its reason. From then on such
a tar is read like any other. What its masks mean is the user's word: ids must be those of the shard format.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hodata.errors import HodataError, SampleError, ShardError
from hodata.labels import MEANINGS, is_legal
from hodata.sample import Record, Sample, mask_instances
from hodata.shards.index import MEMBERS, IndexInfo, Member, TarFacts, index_row, read_info, schema, write_index
from hodata.shards.locate import build_of, cached_index, find_shards
from hodata.shards.parallel import Advance, each_shard
from hodata.shards.png import decode_mask
from hodata.shards.tars import FileHash, Place, read_contents, suffixes_of
from hodata.sources.base import SPLIT_WORDS

if TYPE_CHECKING:
    import pyarrow as pa

ABSENT = Member(-1, 0, 0)
_LIMITS = {"image": 512 * 2**20, "mask": 512 * 2**20, "json": 64 * 2**20}
_ROWS = 5_000  # of one piece of the table


@dataclass(frozen=True)
class ForeignOptions:
    """How the members of a tar are to be read.

    Args:
        meaning: name of a built-in `Meaning`.
        name: of the source in every table; empty: from the tars' names.
        split: train, val or test; empty: the word in each tar's name.
        mask_suffix: what follows the key in a mask's name.
        image_suffixes: the same for images; a sample has one of them.
        group_pattern: regular expression on a key; its (...) parts, or all it matches, name the recording. Empty: each
            tar is one.
        mask_origin: as in the shard format; empty: unknown.
        prefix_keys: put the tar's name before each key, for tars that number their samples anew.
        out: folder for the indexes; None: beside the tars, or the cache where that cannot be written to.
    """

    meaning: str
    name: str = ""
    split: str = ""
    mask_suffix: str = "mask.png"
    image_suffixes: tuple[str, ...] = ("jpg", "jpeg", "png")
    group_pattern: str = ""
    mask_origin: str = ""
    prefix_keys: bool = False
    out: Path | None = None


@dataclass(frozen=True)
class Indexed:
    """The outcome for one tar."""

    shard: str
    index: str
    samples: int
    left_out: list[dict[str, str]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def index_tars(
    patterns: Sequence[str | Path],
    options: ForeignOptions,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Indexed]:
    """Write an index for each tar; `progress` is called with (bytes done, bytes in all).

    Raises:
        ShardError: a tar is damaged, holds not one usable sample, or has an index that a build wrote.
        HodataError: the options fit no tar.
    """
    paths = find_shards(patterns)
    name = options.name or _common_name(paths)
    if not re.fullmatch(r"[a-z0-9_]{1,64}", name):
        raise HodataError(f"--name {name}: must be small letters, digits and _ (at most 64)")
    try:
        re.compile(options.group_pattern)
    except re.error as error:
        raise HodataError(f"--group-pattern {options.group_pattern!r}: is no regular expression ({error})") from error
    jobs = [(path, name, options.split or _split_of(path), options) for path in paths]
    for path in paths:
        _refuse_replacing(_beside(path, options))
    total = sum(path.stat().st_size for path in paths)
    return list(each_shard(_index_tar, jobs, workers=workers, total=total, progress=progress))


def _index_tar(path: Path, name: str, split: str, options: ForeignOptions, advance: Advance) -> Indexed:
    contents = read_contents(path)
    left_out = [{"what": what, "why": why} for what, why in contents.refused.items()]
    tables: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        digest = FileHash(file, advance)
        for key, sample in contents.samples.items():
            digest.reach(max(place.offset + place.size for place in sample.values()))
            try:
                if key in contents.twice:
                    raise SampleError(key, f"has two members {contents.twice[key]}")
                rows.append(_row(file.fileno(), path, key, sample, name, split, options))
            except SampleError as error:
                left_out.append({"what": error.where, "why": error.what})
            if len(rows) == _ROWS:
                tables, rows = [*tables, _table(rows)], []
        size = path.stat().st_size
        digest.reach(size)
    table = _concat([*tables, _table(rows)])
    if not len(table):
        first = f"; the first: {left_out[0]['what']}: {left_out[0]['why']}" if left_out else ""
        raise ShardError(f"{path}: holds no usable sample of {len(contents.samples):,}{first}")
    facts = TarFacts(path.name, size, digest.hexdigest(), len(table))
    plan = {"foreign": True, **{key: value for key, value in asdict(options).items() if key != "out"}}
    info = IndexInfo(name, "", plan, (MEANINGS[options.meaning].to_json(),), (facts,), left_out)
    return Indexed(path.name, str(_write(path, table, info, options)), len(table), left_out)


def _row(
    descriptor: int, path: Path, key: str, sample: Mapping[str, Place], name: str, split: str, options: ForeignOptions
) -> dict[str, Any]:
    """The row of one sample; SampleError says why it has none."""
    from hodata.sources.images import check_image, require_size

    mask_suffix = options.mask_suffix.lower()
    images = [suffix for suffix in options.image_suffixes if suffix in sample and suffix != mask_suffix]
    if mask_suffix not in sample:
        raise SampleError(key, f"has no member {mask_suffix}; it has {suffixes_of(sample)} (--mask-suffix chooses)")
    if len(images) != 1:
        what = f"has {len(images)} images ({', '.join(images)})" if images else "has no image"
        raise SampleError(key, f"{what}; it has {suffixes_of(sample)} (--image-suffix chooses)")
    places = {"image": sample[images[0]], "mask": sample[mask_suffix]}
    if "json" in sample:
        places["json"] = sample["json"]
    data = {member: _read(descriptor, key, member, place) for member, place in places.items()}
    kind, size = check_image(data["image"], key)
    try:
        mask = decode_mask(data["mask"])
    except Exception as error:  # Pillow raises many kinds on hostile bytes
        raise SampleError(key, f"its mask cannot be read ({error})") from error
    require_size(mask, size, key, images[0])
    illegal = np.flatnonzero((np.bincount(mask.ravel(), minlength=256) > 0) & ~is_legal()).tolist()
    if illegal:
        raise SampleError(key, f"its mask holds ids that are no labels: {illegal[:8]}; build it with `folder` instead")
    if "json" in data and not _is_object(data["json"]):
        raise SampleError(key, "its JSON member is not a JSON object")
    recording = _recording(key, path, options.group_pattern)
    members = {member: Member(place.offset, place.size, zlib.crc32(data[member])) for member, place in places.items()}
    return index_row(
        Sample(data["image"], kind, mask, options.meaning, instances=mask_instances(mask)),
        Record(
            key,
            f"{name}/{recording}",
            "",
            f"{key}.{images[0]}",
            recording=recording,
            mask_origin=options.mask_origin,
        ),
        key=f"{path.stem}/{key}" if options.prefix_keys else key,
        source=name,
        split=split,
        shard=path.name,
        members={"json": ABSENT, **members},
    )


def _read(descriptor: int, key: str, member: str, place: Place) -> bytes:
    if place.size > _LIMITS[member]:
        raise SampleError(key, f"its {member} has {place.size:,} bytes, over the limit of {_LIMITS[member]:,}")
    data = os.pread(descriptor, place.size, place.offset)
    if len(data) != place.size or not data:
        raise SampleError(key, f"its {member} has {len(data):,} of {place.size:,} bytes")
    return data


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def _recording(key: str, path: Path, pattern: str) -> str:
    if not pattern:
        return path.stem
    match = re.search(pattern, key)
    if match is None:
        raise SampleError(key, f"does not match --group-pattern {pattern!r}")
    return "_".join(part or "" for part in match.groups()) or match[0]


def _write(path: Path, table: pa.Table, info: IndexInfo, options: ForeignOptions) -> Path:
    """Beside the tar, or in the cache if its folder cannot be written to; returns where."""
    place = _beside(path, options)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_index(place, table, info)
        return place
    except OSError as error:
        if options.out is not None:
            raise HodataError(f"{place}: cannot be written ({error.strerror or error})") from error
    place = cached_index(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_index(place, table, info)
    except OSError as error:
        raise HodataError(
            f"{place}: cannot be written ({error.strerror or error}), nor can {path.parent}; set HODATA_CACHE to a "
            "folder that can"
        ) from error
    return place


def _beside(path: Path, options: ForeignOptions) -> Path:
    return path.with_suffix(".index") if options.out is None else options.out / cached_index(path).name


def _refuse_replacing(index: Path) -> None:
    if not index.exists():
        return
    try:
        foreign = read_info(index).foreign
    except ShardError:
        raise ShardError(f"{index}: exists and is no index of hodata; move it away, or give --out") from None
    if not foreign:
        raise ShardError(f"{index}: was written by `hodata build`; its tar needs no other index")


def _split_of(path: Path) -> str:
    found = {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", path.stem.lower()) if word in SPLIT_WORDS}
    if len(found) != 1:
        raise HodataError(f"{path.name}: its name does not say whether it is train, val or test; give --split")
    return found.pop()


def _common_name(paths: Sequence[Path]) -> str:
    """What the tars' names have in common without number and split, else their folder's name."""
    stem = os.path.commonprefix([build_of(path) for path in paths])  # noqa: RUF071  character by character it is
    words = [word for word in re.split(r"[^a-z0-9]+", stem.lower()) if word and word not in SPLIT_WORDS]
    if not any(word.strip("0123456789") for word in words):
        words = [word for word in re.split(r"[^a-z0-9]+", paths[0].parent.name.lower()) if word]
    return "_".join(words)[:64] or "foreign"


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=schema())


def _concat(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables)


def table_problems(path: Path, table: pa.Table) -> Iterator[tuple[str, int, str]]:
    """(key, offset, what): members that do not stand where the index of a foreign tar says.

    Raises:
        ShardError: the tar cannot be walked.
    """
    contents = read_contents(path)
    standing = {(place.offset, place.size) for sample in contents.samples.values() for place in sample.values()}
    for batch in table.to_batches(_ROWS):
        for row in batch.to_pylist():
            for member in MEMBERS:
                place = (row[f"{member}_offset"], row[f"{member}_size"])
                if place not in standing and place[0] >= 0:
                    yield row["key"], place[0], f"the tar has no member of {place[1]:,} bytes there ({member})"
