"""From a raw dataset to shards: plan, convert, commit, resume.

The plan (which sample goes to which place of which shard) exists before the first byte is written, so every shard is
an idempotent job: its bytes depend on nothing but the plan and the raw files. A killed build is run again and ends
with the same files, whatever the number of workers.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hodata.errors import HodataError, PlanError, SampleError, Unannotated
from hodata.labels import LABELS
from hodata.lock import only_one
from hodata.plan import BuildOptions, BuildPlan, ShardPlan, build_key, make_plan
from hodata.processes import spawned
from hodata.shards import FORMAT_VERSION
from hodata.shards.index import IndexInfo, TarFacts, read_index, read_info, write_index
from hodata.shards.manifest import read_manifest, write_manifest
from hodata.shards.writer import UNANNOTATED, ShardWriter, errors_in
from hodata.sources.base import LeftOut, Source
from hodata.splits import SPLITS


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
        executor: where shards are converted; by default `options.workers` processes. What it raises itself, as where
            one of its workers died, is raised as it is.
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
        busy = PlanError(f"{folder}: another build of {options.name!r} is running here; wait for it")
        with only_one(folder / f".{options.name}.lock", busy):
            _prepare_folder(folder, plan, options)
            reused = _convert_all(source, folder, plan, options, executor, progress)
            return _commit(source, folder, plan, reused)


# ---- folder ----


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
        sum(errors_in(read_info(folder / f"{shard.shard}.index").left_out) for shard in reused),
    )
    if executor is None and (options.workers <= 1 or len(jobs) <= 1):
        for job in jobs:
            finished(len(job.shard.records), _convert_shard(job))
        return len(reused)
    advice = "finished shards are kept: run the same command again, with fewer --workers if memory is short"
    with spawned(min(options.workers, len(jobs)), advice) if executor is None else nullcontext(executor) as pool:
        futures: dict[Future[int], _Job] = {pool.submit(_convert_shard, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                finished(len(futures[future].shard.records), future.result())
        finally:
            for future in futures:
                future.cancel()
    return len(reused)


def _convert_shard(job: _Job) -> int:
    """Write one shard; returns how many of its samples could not be converted."""
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
            except Unannotated as error:
                writer.leave_out(error.where, error.what, kind=UNANNOTATED)
                continue
            except SampleError as error:
                if not job.skip:
                    raise
                writer.leave_out(error.where, error.what)
                if 0 <= job.max_errors < writer.errors:
                    raise HodataError(_too_many(writer.errors, job.max_errors)) from error
                continue
            writer.add(sample, record, key=build_key(job.info.name, record.key), split=job.shard.split)
    return writer.errors


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
        "libraries": {name: _installed(name) for name in ("hodata", "numpy", "pillow", "pyarrow")},
    }


def _installed(name: str) -> str:
    """The version of a package; a source tree that PYTHONPATH names has none, and builds all the same."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
