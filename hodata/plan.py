"""The plan of a build: which sample goes to which place of which shard, before the first byte is written.

A plan is a pure function of the raw folder's names and the options, so that every shard is an idempotent job.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hodata.errors import HodataError, SourceError
from hodata.sample import Record
from hodata.shards import FORMAT_VERSION
from hodata.sources.base import LeftOut, Scan, Source
from hodata.splits import SPLITS, SplitPlan, assign_splits, leak_report

SAMPLES_PER_SHARD = 1000
PROBED = 64  # records that a source proves its reading on
_SALT = "hodata-order-1"
_MAX_KEY = 88  # USTAR names end at 100 characters, the longest suffix is `.mask.png`
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class BuildOptions:
    """What a user may choose; everything here but `workers`, `overwrite` and error handling is part of the plan.

    Args:
        name: file prefix and the source's name in every table; `[a-z0-9_]+`.
        split_policy: clean, official or group.
        samples_per_shard: at least 1.
        limit: at most so many samples, spread over the dataset by hash; 0: all.
        on_error: `fail` stops at the first sample that cannot be converted, `skip` lists it and goes on.
        max_errors: with `skip`, stop when more samples than this fail; -1: never.
        overwrite: replace a build of this name made from another plan.
        workers: processes; 1 converts in this process.
    """

    name: str
    split_policy: str = "clean"
    samples_per_shard: int = SAMPLES_PER_SHARD
    limit: int = 0
    on_error: str = "fail"
    max_errors: int = -1
    overwrite: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise HodataError(
                f"--name {self.name!r}: use up to 64 lower-case letters, digits and underscores (it prefixes keys)"
            )
        if self.samples_per_shard < 1:
            raise HodataError(f"--samples-per-shard is {self.samples_per_shard}; it must be at least 1")


@dataclass(frozen=True)
class ShardPlan:
    """One shard of a plan: its file name without suffix, its split, its records in order."""

    shard: str
    split: str
    records: tuple[Record, ...]


@dataclass
class BuildPlan:
    """Everything that is known before the first image is opened."""

    name: str
    shards: list[ShardPlan]
    splits: SplitPlan
    description: dict[str, Any]  # readable; its hash is `hash`
    left_out: list[LeftOut]
    notes: list[str]
    leaks: dict[str, int]

    @property
    def hash(self) -> str:
        """sha256 (hex) of the description: another plan, another hash."""
        return hashlib.sha256(_canonical(self.description)).hexdigest()

    @property
    def samples(self) -> int:
        return sum(len(shard.records) for shard in self.shards)


def make_plan(source: Source, options: BuildOptions, progress: Callable[[int, int], None] | None = None) -> BuildPlan:
    """Scan the raw dataset, probe it, and lay out every shard.

    Args:
        progress: see `Source.prepare`.

    Raises:
        SourceError: nothing usable in the folder, two samples with one key, or annotations that contradict each other.
    """
    source.prepare(progress)
    scan = _with_valid_names(source.scan())
    if not scan.records:
        reasons = "".join(f"\n  {item.what}: {item.why}" for item in scan.left_out[:10])
        raise SourceError(f"{source.root}: {source.title} was recognised, but no sample can be used{reasons}")
    splits = assign_splits(scan.records, source.split_rules, options.split_policy)
    chosen = [record for record in scan.records if record.key in splits.split_of]
    keys = {record.key: build_key(options.name, record.key) for record in scan.records}
    _refuse_duplicates(scan.records, keys)
    chosen.sort(key=lambda record: _order(keys[record.key]))
    if options.limit:
        chosen = chosen[: options.limit]
    shards = []
    for split in SPLITS:
        members = [record for record in chosen if splits.split_of[record.key] == split]
        for number, start in enumerate(range(0, len(members), options.samples_per_shard)):
            part = tuple(members[start : start + options.samples_per_shard])
            shards.append(ShardPlan(f"{options.name}-{split}-{number:06d}", split, part))
    measured = source.probe(spread(chosen, PROBED))
    description = _describe(source, options, shards, keys)
    return BuildPlan(
        name=options.name,
        shards=shards,
        splits=splits,
        description=description,
        left_out=sorted(scan.left_out, key=lambda item: item.what),
        notes=[*scan.notes, *splits.notes, *measured],
        leaks=leak_report(chosen, splits.split_of),
    )


def spread(records: Sequence[Record], count: int) -> list[Record]:
    """At most `count` records, one of each recording before a second of any; the same ones in every run."""
    recordings: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: _order(record.key)):
        recordings[record.sequence or record.recording or record.group].append(record)
    turns = ((turn, place, record) for place, own in enumerate(recordings.values()) for turn, record in enumerate(own))
    return [record for _, _, record in sorted(turns, key=lambda item: item[:2])[:count]]


def build_key(name: str, key: str) -> str:
    """The key of a sample in the shards: the build's name, then the record's key, at most 88 characters."""
    full = f"{name}_{key}"
    if len(full) <= _MAX_KEY:
        return full
    return f"{full[: _MAX_KEY - 17]}-{hashlib.sha256(full.encode()).hexdigest()[:16]}"


def _with_valid_names(scan: Scan) -> Scan:
    """Leave out files whose names are not UTF-8: neither a manifest nor a Parquet file can hold them."""
    records, left_out = [], list(scan.left_out)
    for record in scan.records:
        if _as_text(record.image + record.mask) == record.image + record.mask:
            records.append(record)
        else:
            left_out.append(LeftOut(record.image, "its name is not valid UTF-8; rename it"))
    return Scan(records, [LeftOut(_as_text(item.what), _as_text(item.why)) for item in left_out], scan.notes)


def _as_text(name: str) -> str:
    """`name` with backslash escapes where it cannot be encoded."""
    return name.encode("utf-8", "backslashreplace").decode()


def _order(key: str) -> bytes:
    # Neighbouring video frames end up in different shards, so that even a small shuffle buffer mixes recordings.
    return hashlib.sha256(f"{_SALT}|{key}".encode()).digest()


def _refuse_duplicates(records: Sequence[Record], keys: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for record in records:
        key = keys[record.key]
        if key in seen:
            raise SourceError(f"{seen[key]} and {record.image} both get the key {key!r}; rename one of them")
        seen[key] = record.image


def _describe(
    source: Source, options: BuildOptions, shards: Sequence[ShardPlan], keys: Mapping[str, str]
) -> dict[str, Any]:
    digest = hashlib.sha256()
    kinds = {Path(record.image).suffix.lower().replace("jpeg", "jpg") for shard in shards for record in shard.records}
    if len(kinds) > 1:
        raise SourceError(
            f"{source.root}: images are of several kinds ({', '.join(sorted(kinds))}); one build holds one kind: "
            "convert them, or build each kind from a folder of its own"
        )
    for shard in shards:
        for record in shard.records:
            digest.update(
                f"{keys[record.key]}\t{shard.split}\t{record.group}\t{record.image}\t{record.mask}\n".encode()
            )
    samples = Counter({shard.split: 0 for shard in shards})
    for shard in shards:
        samples[shard.split] += len(shard.records)
    return {
        "format_version": FORMAT_VERSION,
        "name": options.name,
        "source": source.name,
        "dataset_version": source.version,
        "options": {
            "split_policy": options.split_policy,
            "samples_per_shard": options.samples_per_shard,
            "limit": options.limit,
            **source.options(),
        },
        "meanings": [meaning.to_json() for meaning in source.meanings],
        "samples": dict(samples),
        "image_kind": next(iter(kinds)).lstrip("."),
        "keys_sha256": digest.hexdigest(),
    }


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
