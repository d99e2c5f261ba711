"""Are these shards what their index says? Quick: sizes, index, member table. Full: every byte, image and label id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hodata.errors import ShardError
from hodata.shards.check import Problem, check_shard
from hodata.shards.index import TarFacts, read_info
from hodata.shards.locate import build_of, find_shards, own_index, read_own_index
from hodata.shards.manifest import read_manifest
from hodata.shards.parallel import each_shard
from hodata.shards.reader import ShardIndex
from hodata.shards.select import Selector, select_rows


@dataclass
class Verification:
    """The outcome.

    Args:
        samples: rows of the indexes that could be read.
        decoded: those whose image, mask and JSON were decoded.
        shards, foreign: tars, and how many of them other programs wrote.
        problems: what is wrong.
        notes: for people.
    """

    samples: int = 0
    decoded: int = 0
    shards: int = 0
    foreign: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("samples", "decoded", "shards", "foreign")}
        return {"ok": self.ok, **counts, "problems": [asdict(problem) for problem in self.problems]}


def verify(
    patterns: Sequence[str | Path],
    *,
    full: bool = False,
    workers: int = 1,
    selector: Selector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Check shards; damage becomes a `Problem`, never an exception.

    Args:
        patterns: shards, folders or globs.
        full: also the sha256 of every tar, and decode every image and mask. Without it only file sizes, the index
            and the table of members are promised.
        workers: processes.
        selector: with `full`, decode only these samples; every byte is still read.
        progress: called with (done, in all): bytes with `full`, else shards.

    Raises:
        ShardError: the patterns name no shard.
        EmptySelectionError: the selector leaves no sample.
    """
    paths = find_shards(patterns)
    selector = selector or Selector()
    result = Verification(shards=len(paths), notes=_notes(paths, selector))
    total = sum(path.stat().st_size for path in paths) if full else len(paths)
    jobs = [(path, full, selector) for path in paths]
    for checked in each_shard(check_shard, jobs, workers=workers, total=total, progress=progress):
        result.samples += checked.samples
        result.decoded += checked.decoded
        result.foreign += checked.foreign
        result.problems += checked.problems
    result.problems += _check_builds(paths)
    if not result.problems:
        result.problems += _check_together(paths)
    return result


def _notes(paths: Sequence[Path], selector: Selector) -> list[str]:
    if not selector:
        return []
    try:
        return select_rows(ShardIndex.open(paths), selector).notes
    except ShardError:
        return []  # what is wrong is found shard by shard


def _check_together(paths: Sequence[Path]) -> Iterator[Problem]:
    """What only the shards together can show: a key twice, a meaning with two definitions, a false merged index."""
    try:
        index = ShardIndex.open(paths)
        index.refuse_duplicates()
    except ShardError as error:
        yield Problem("", "", -1, str(error))
        return
    start = 0
    for path, facts in zip(index.shards, index.tars, strict=True):
        own, info = read_own_index(path)
        if facts != info.tars[0] or not own.equals(index.table.slice(start, facts.samples)):
            merged = f"{build_of(path)}.index"
            yield Problem(path.name, "", -1, f"{merged} tells other things of it; delete {merged}: it is not needed")
        start += facts.samples


def _check_builds(paths: Sequence[Path]) -> Iterator[Problem]:
    """Every tar is in its build's manifest with the recorded facts, every build has one, and no tar of it is gone.

    Tars of other programs have no manifest, so none is missed.
    """
    manifests: dict[Path, dict[str, Any] | None] = {}
    for path in paths:
        try:
            facts: TarFacts | None = None
            info = read_info(own_index(path))
            if info.foreign:
                continue
            facts = info.tars[0]
        except ShardError:
            pass  # reported by check_shard
        manifest_path = path.with_name(f"{build_of(path)}.manifest.json")
        if manifest_path not in manifests:
            try:
                manifests[manifest_path] = read_manifest(manifest_path)
            except ShardError:
                manifests[manifest_path] = None
                what = f"no readable {manifest_path.name}: its build is not complete, rerun it"
                yield Problem(path.name, "", -1, what)
        manifest = manifests[manifest_path]
        if manifest is None:
            continue
        listed = {shard["name"]: shard for shard in manifest["shards"]}
        if path.name not in listed:
            yield Problem(path.name, "", -1, f"{manifest_path.name} does not list it")
        elif facts is not None and asdict(facts) != listed[path.name]:
            yield Problem(path.name, "", -1, f"its index and {manifest_path.name} record different facts")
    for manifest_path, manifest in manifests.items():
        for shard in manifest["shards"] if manifest else ():
            if not manifest_path.with_name(shard["name"]).exists():
                yield Problem(shard["name"], "", -1, f"{manifest_path.name} lists it, but it is not there")
