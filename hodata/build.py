"""From a raw dataset to shards: plan, convert, commit, resume.

The plan (which sample goes to which place of which shard) exists before the first byte is written, so every shard is
an idempotent job: its bytes depend on nothing but the plan and the raw files. A killed build is run again and ends
with the same files, whatever the number of workers.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed_version
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from hodata.errors import HodataError, PlanError, SampleError, SourceError
from hodata.labels import LABELS
from hodata.sample import Record
from hodata.shards import FORMAT_VERSION
from hodata.shards.index import IndexInfo, TarFacts, read_index, read_info, write_index
from hodata.shards.manifest import read_manifest, write_manifest
from hodata.shards.writer import ShardWriter
from hodata.sources.base import LeftOut, Scan, Source
from hodata.splits import SPLITS, SplitPlan, assign_splits, leak_report

SAMPLES_PER_SHARD = 1000
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


@dataclass
class BuildReport:
    """What a build did.

    Args:
        samples: split -> samples in the finished shards.
        left_out: input that could not be used: missing partners, damaged files.
        left_out_by_split: samples that the split policy keeps out on purpose.
    """

    name: str
    folder: str
    samples: dict[str, int]
    groups: dict[str, int]
    shards: int
    reused_shards: int
    bytes: int
    left_out: list[LeftOut]
    left_out_by_split: list[LeftOut]
    notes: list[str]
    leaks: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Progress = Callable[[int, int], None]  # samples done, samples in all


def make_plan(source: Source, options: BuildOptions) -> BuildPlan:
    """Scan the raw dataset and lay out every shard.

    Raises:
        SourceError: nothing usable in the folder, or two samples with one key.
    """
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
    description = _describe(source, options, shards, keys)
    return BuildPlan(
        name=options.name,
        shards=shards,
        splits=splits,
        description=description,
        left_out=sorted(scan.left_out, key=lambda item: item.what),
        notes=[*scan.notes, *splits.notes],
        leaks=leak_report(chosen, splits.split_of),
    )


def build(
    source: Source,
    folder: Path,
    options: BuildOptions,
    *,
    plan: BuildPlan | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Write every shard of a dataset that is not there yet, then the merged index and the manifest.

    Args:
        source: an opened dataset.
        folder: output folder; made if missing. Files of other names in it are left alone.
        options: see `BuildOptions`.
        plan: from `make_plan`, if it was already made.
        executor: where shards are converted; by default `options.workers` processes.
        progress: called with (samples done, samples in all).

    Raises:
        PlanError: the folder holds files of this name that another plan wrote; the difference is named.
        SampleError: a sample cannot be converted and `on_error` is `fail`.
        HodataError: disk full, too many errors, or a worker died. Finished shards stay and are reused.
    """
    plan = plan or make_plan(source, options)
    if folder.exists() and not folder.is_dir():
        raise PlanError(f"{folder}: is a file; give the folder that the shards shall go to")
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, options.name):
            _prepare_folder(folder, plan, options)
            reused = _convert_all(source, folder, plan, options, executor, progress)
            return _commit(source, folder, plan, reused)


def build_key(name: str, key: str) -> str:
    """The key of a sample in the shards: the build's name, then the record's key, at most 88 characters."""
    full = f"{name}_{key}"
    if len(full) <= _MAX_KEY:
        return full
    return f"{full[: _MAX_KEY - 17]}-{hashlib.sha256(full.encode()).hexdigest()[:16]}"


# ---- plan ----


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


# ---- folder ----


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Two builds of one name in one folder would write the same temporary files."""
    path = folder / f".{name}.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder removes the file: a lock on a removed one keeps nobody out.
            held = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
        except BlockingIOError:
            held = False
        if not held:
            raise PlanError(f"{folder}: another build of {name!r} is running here; wait for it")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """What the system refuses to write, in words."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise HodataError(f"{path}: cannot be written ({error})") from error
        raise HodataError(
            f"{path}: the disk is full; free some space and run the same command again: finished shards are kept"
        ) from error


def _files_of(folder: Path, name: str) -> list[Path]:
    pattern = re.compile(rf"{re.escape(name)}(-(train|val|test)-\d{{6}}\.(tar|index)|\.index|\.manifest\.json)")
    return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))


def _prepare_folder(folder: Path, plan: BuildPlan, options: BuildOptions) -> None:
    """Refuse what another plan wrote (or remove it under `--overwrite`), and clear away temporary files of ours."""
    for path in folder.glob(f".{plan.name}-*.tmp"):
        path.unlink()
    existing = _files_of(folder, plan.name)
    if options.overwrite:
        # What commits a build goes first, so that a kill in between leaves nothing that looks finished.
        for path in sorted(existing, key=lambda path: (path.suffix == ".tar", path.suffix == ".index")):
            path.unlink()
        return
    planned = {shard.shard for shard in plan.shards}
    for path in existing:
        difference = _difference(path, plan)
        if not difference and path.suffix == ".tar" and path.stem not in planned:
            difference = "this plan has no shard of that name"
        if difference:
            raise PlanError(
                f"{path}: belongs to another build named {plan.name!r}: {difference}; pass --overwrite to replace that "
                "build, or choose another --name or --out"
            )


def _difference(path: Path, plan: BuildPlan) -> str:
    """How the plan behind an existing file differs from this one; empty if it does not."""
    if path.suffix == ".tar":
        return ""
    try:
        if path.suffix == ".json":
            other = read_manifest(path).get("plan", {})
        else:
            other = read_info(path).plan
    except HodataError as error:
        return str(error)
    differences = []
    for field_name in sorted(plan.description.keys() | other.keys()):
        ours, theirs = plan.description.get(field_name), other.get(field_name)
        if ours == theirs:
            continue
        if isinstance(ours, dict) and isinstance(theirs, dict):
            differences += [
                f"{part} was {theirs.get(part)}, now {ours.get(part)}"
                for part in sorted(ours.keys() | theirs.keys())
                if ours.get(part) != theirs.get(part)
            ]
        elif field_name == "keys_sha256":
            differences.append("the raw folder holds other files, or they fall into other splits")
        elif field_name == "meanings":
            differences.append("the masks have another meaning")
        else:
            differences.append(f"{field_name} was {theirs}, now {ours}")
    return "; ".join(differences)


def _is_finished(folder: Path, shard: str) -> bool:
    index, tar = folder / f"{shard}.index", folder / f"{shard}.tar"
    if not index.exists() or not tar.exists():
        return False
    facts = read_info(index).tars[0]
    return (facts.name, facts.bytes) == (tar.name, tar.stat().st_size)


# ---- convert ----


@dataclass(frozen=True)
class _Job:
    source: Source
    folder: Path
    shard: ShardPlan
    info: IndexInfo
    image_kind: str
    skip: bool
    max_errors: int
    replace_existing: bool


def _convert_all(
    source: Source,
    folder: Path,
    plan: BuildPlan,
    options: BuildOptions,
    executor: Executor | None,
    progress: Progress | None,
) -> int:
    """Write every shard that is not finished; returns how many were."""
    info = IndexInfo(
        name=plan.name,
        plan_hash=plan.hash,
        plan=plan.description,
        meanings=plan.description["meanings"],
        tars=(),
    )
    jobs = [
        _Job(
            source,
            folder,
            shard,
            info,
            plan.description["image_kind"],
            options.on_error == "skip",
            options.max_errors,
            options.overwrite or (folder / f"{shard.shard}.index").exists(),
        )
        for shard in plan.shards
        if not _is_finished(folder, shard.shard)
    ]
    pending = {job.shard.shard for job in jobs}
    reused = [shard for shard in plan.shards if shard.shard not in pending]
    report = progress or (lambda done, total: None)
    done = errors = 0

    def finished(samples: int, skipped: int) -> None:
        nonlocal done, errors
        done += samples
        errors += skipped
        report(done, plan.samples)
        if 0 <= options.max_errors < errors:
            raise HodataError(_too_many(errors, options.max_errors))

    finished(
        sum(len(shard.records) for shard in reused),
        sum(len(read_info(folder / f"{shard.shard}.index").left_out) for shard in reused),
    )
    if executor is None and (options.workers <= 1 or len(jobs) <= 1):
        for job in jobs:
            finished(len(job.shard.records), _convert_shard(job))
        return len(reused)
    pool = executor or ProcessPoolExecutor(
        min(options.workers, len(jobs)), mp_context=get_context("spawn"), initializer=_die_with_parent
    )
    with pool if executor is None else nullcontext():
        futures: dict[Future[int], _Job] = {pool.submit(_convert_shard, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                finished(len(futures[future].shard.records), future.result())
        except BrokenProcessPool:
            raise HodataError(
                "a worker process died (killed, or out of memory); finished shards are kept: run the same command "
                "again, with fewer --workers if memory is short"
            ) from None
        finally:
            for future in futures:
                future.cancel()
    return len(reused)


def _die_with_parent() -> None:
    """In a worker: when the parent is killed, stop at once instead of writing beside the build that follows."""
    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _convert_shard(job: _Job) -> int:
    """Write one shard; returns how many of its samples were skipped."""
    with (
        _disk_errors(job.folder),
        ShardWriter(job.folder, job.shard.shard, job.info, job.source.licence, job.replace_existing) as writer,
    ):
        for record in job.shard.records:
            try:
                sample = job.source.load(record)
                if sample.image_kind != job.image_kind:
                    raise SampleError(
                        record.image,
                        f"holds {sample.image_kind} data, this build stores {job.image_kind}; rename it",
                    )
            except SampleError as error:
                if not job.skip:
                    raise
                writer.leave_out(error.where, error.what)
                if 0 <= job.max_errors < writer.left_out:
                    raise HodataError(_too_many(writer.left_out, job.max_errors)) from error
                continue
            writer.add(sample, record, key=build_key(job.info.name, record.key), split=job.shard.split)
    return writer.left_out


def _too_many(errors: int, limit: int) -> str:
    return f"{errors} samples could not be converted, more than --max-errors {limit}; `--on-error fail` shows the first"


# ---- commit ----


def _commit(source: Source, folder: Path, plan: BuildPlan, reused: int) -> BuildReport:
    """Merge the indexes and write the manifest: the build is complete."""
    import pyarrow as pa

    tables, tars, failed = [], [], []
    for shard in plan.shards:
        table, info = read_index(folder / f"{shard.shard}.index")
        tables.append(table)
        tars.append(info.tars[0])
        failed += [LeftOut(item["what"], item["why"]) for item in info.left_out]
    rows = pa.concat_tables(tables)
    if not len(rows):
        raise HodataError(
            f"not one of {plan.samples:,} samples could be converted; the first: {failed[0].what}: {failed[0].why}; "
            "mend the cause and build again with --overwrite"
        )
    samples = dict.fromkeys(SPLITS, 0) | Counter(rows.column("split").to_pylist())
    members: dict[str, set[str]] = {split: set() for split in SPLITS}
    for split, group in zip(rows.column("split").to_pylist(), rows.column("group").to_pylist(), strict=True):
        members[split].add(group)
    meanings = plan.description["meanings"]
    merged = IndexInfo(plan.name, plan.hash, plan.description, meanings, tars, [asdict(item) for item in failed])
    write_index(folder / f"{plan.name}.index", rows, merged)
    report = BuildReport(
        name=plan.name,
        folder=str(folder),
        samples=samples,
        groups={split: len(members[split]) for split in SPLITS},
        shards=len(tars),
        reused_shards=reused,
        bytes=sum(tar.bytes for tar in tars),
        left_out=[*plan.left_out, *failed],
        left_out_by_split=plan.splits.left_out,
        notes=plan.notes,
        leaks=plan.leaks,
    )
    write_manifest(folder / f"{plan.name}.manifest.json", _manifest(source, plan, report, tars))
    return report


def _manifest(source: Source, plan: BuildPlan, report: BuildReport, tars: Sequence[TarFacts]) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "name": plan.name,
        "dataset": {
            "source": source.name,
            "title": source.title,
            "version": source.version,
            "licence": source.licence,
            "citation": source.citation,
            "url": source.url,
        },
        "plan_hash": plan.hash,
        "plan": plan.description,
        "labels": {str(int(label)): label.label_name for label in LABELS},
        "meanings": plan.description["meanings"],
        "samples": report.samples,
        "groups": plan.splits.groups,
        "leaks": report.leaks,
        "shards": [asdict(tar) for tar in tars],
        "left_out": [asdict(item) for item in (*report.left_out, *report.left_out_by_split)],
        "notes": report.notes,
        "libraries": {name: installed_version(name) for name in ("hodata", "numpy", "pillow", "pyarrow")},
    }


def default_workers() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))
