"""Miniature datasets in their native layouts, drawn by the scene generator, with the full truth beside them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hodata.errors import HodataError
from hodata.lock import only_one
from hodata.processes import spawned

SOURCES = ("freihand", "egohos", "egohands", "ho3d", "ho3d_v2", "mano", "ycb")
_COST = {"egohands": 10, "ho3d": 4, "ho3d_v2": 4}  # of a picture, roughly
_DESKTOP = {".DS_Store", "Thumbs.db"}  # what file managers leave in a folder that was opened
MARKER = "SYNTHETIC.json"  # says that a folder was made here, how, and what is in it


@dataclass(frozen=True)
class _Job:
    source: str
    number: int
    folder: Path
    what: Any
    seed: int


def write_miniatures(
    out: Path,
    sources: Sequence[str] = SOURCES,
    frames: int = 600,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write OUT/<source> for each source, in the layout its authors ship.

    Same environment and CPU family, same `frames` and `seed`: same bytes, from any number of workers. Every folder
    appears complete or not at all; one that was made here before, and holds nothing else, is replaced.

    Args:
        out: parent folder; made if missing.
        sources: some of `SOURCES`.
        frames: about how many pictures each dataset gets (FreiHAND's four versions count; EgoHands gets 0.4 of it).
        seed: another seed, other people, things and pictures.
        workers: processes; 1 draws in this one.
        progress: called with (pictures done, pictures in all).

    Returns:
        source -> {path, pictures, jobs}.

    Raises:
        HodataError: an unknown source, a number out of range, OUT/<source> holds something else, another run writes
            there, the disk refuses, or a worker died. It says what was replaced by then and what could not be removed.
    """
    unknown = sorted(set(sources) - set(SOURCES))
    if unknown:
        raise HodataError(f"synth: no miniature is called {', '.join(unknown)}; there are {', '.join(SOURCES)}")
    if frames < 1 or workers < 1:
        raise HodataError(f"synth: frames ({frames}) and workers ({workers}) must be at least 1")
    out = Path(out)
    names = [name for name in SOURCES if name in sources]
    plans = {name: _writer(name).plan(frames, seed) for name in names}
    partial = {name: out / f".{name}.partial" for name in names}
    new: list[str] = []  # what is in place
    try:
        if out.exists() and not out.is_dir():
            raise HodataError(f"synth: {out} is a file; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        with only_one(out / ".synth.lock", HodataError(f"synth: another run is writing to {out}; wait for it")):
            for name in names:
                _refuse_foreign(out / name)
            try:
                for folder in partial.values():
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir()
                report = _draw(plans, partial, frames, seed, workers, progress)
                for name in names:
                    try:
                        _put(partial[name], out / name)
                    except HodataError as error:
                        raise HodataError(f"{error}" + (f" ({', '.join(new)}: new there)" if new else "")) from error
                    new.append(name)
                    if _aside(out / name).exists():
                        shutil.rmtree(_aside(out / name))
            finally:
                for folder in partial.values():
                    shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        left = [str(f) for name in names for f in (partial[name], _aside(out / name)) if os.path.lexists(f)]
        raise HodataError(
            f"synth: cannot write to {out} ({error}); "
            + (f"only {', '.join(new)} is new there" if new else "nothing was replaced there")
            + (f"; remove {', '.join(left)}" if left else "")
        ) from error
    return {name: {"path": str(out / name), **facts} for name, facts in report.items()}


def _draw(
    plans: dict[str, list[Any]],
    folders: dict[str, Path],
    frames: int,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, dict[str, Any]]:
    """Fill the folders; returns source -> {pictures, jobs}."""
    jobs = [_Job(name, number, folders[name], what, seed) for name in plans for number, what in enumerate(plans[name])]
    results = _run(jobs, workers, progress)
    report = {}
    for name, plan in plans.items():
        done = [results[job.source, job.number] for job in jobs if job.source == name]
        _writer(name).finish(folders[name], plan, done)
        pictures = sum(_size(name, what) for what in plan)
        _write_marker(folders[name], name, frames, seed, pictures)
        report[name] = {"pictures": pictures, "jobs": len(done)}
    return report


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _put(finished: Path, folder: Path) -> None:
    """Put a finished miniature in its place; the one before is then aside, or stays where this fails."""
    _refuse_foreign(folder)  # once more: drawing takes minutes, in which somebody may unpack a dataset
    old = _aside(folder)
    if old.exists():  # of a run that was killed here
        shutil.rmtree(old)
    if folder.exists():
        folder.rename(old)
    try:
        finished.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise


def _writer(name: str) -> Any:
    """What plans and writes a miniature: `plan`, `pictures`, `write`, `finish`."""
    if name in ("ho3d", "ho3d_v2"):
        from hodata.synth.native_ho3d import V2, V3

        return V3 if name == "ho3d" else V2
    return import_module(f"hodata.synth.native_{name}")


def _size(name: str, what: Any) -> int:
    """Pictures in a job."""
    return int(_writer(name).pictures(what))


def _work(job: _Job) -> Any:
    return _writer(job.source).write(job.what, job.folder, job.seed)


def _run(jobs: list[_Job], workers: int, progress: Callable[[int, int], None] | None) -> dict[tuple[str, int], Any]:
    total = sum(_size(job.source, job.what) for job in jobs)
    results: dict[tuple[str, int], Any] = {}
    done = 0

    def note(job: _Job, result: Any) -> None:
        nonlocal done
        results[job.source, job.number] = result
        done += _size(job.source, job.what)
        if progress is not None:
            progress(done, total)

    if workers == 1:
        for job in jobs:
            note(job, _work(job))
        return results
    order = sorted(jobs, key=lambda job: -_size(job.source, job.what) * _COST.get(job.source, 1))  # the longest first
    with spawned(workers, "run the command again with fewer --workers") as pool:
        waiting: dict[Future[Any], _Job] = {pool.submit(_work, job): job for job in order}
        for future in as_completed(waiting):
            note(waiting[future], future.result())
    return results


def _refuse_foreign(folder: Path) -> None:
    """Raise unless `folder` is missing, empty, or holds what was made here and nothing else: it will be replaced."""
    advice = "choose another --out or move it away"
    if folder.is_symlink():
        raise HodataError(f"synth: {folder} is a link, and the whole folder would be replaced; {advice}")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise HodataError(f"synth: {folder} is a file; {advice}")
    if not any(folder.iterdir()):
        return
    if not (folder / MARKER).is_file():
        raise HodataError(
            f"synth: {folder} holds files that synth did not write (no {MARKER}); they may be a real dataset: {advice}"
        )
    try:
        ours = json.loads((folder / MARKER).read_text())["files"]
        foreign = next((name for name, size in _files_in(folder) if name != MARKER and ours.get(name) != size), None)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HodataError(
            f"synth: {folder / MARKER} does not list what synth wrote (an earlier version did not): remove {folder} if "
            "nothing else is in it, or choose another --out"
        ) from None
    if foreign is not None:
        raise HodataError(
            f"synth: {folder / foreign} is not as synth wrote it, so a real dataset may be in {folder}: {advice}"
        )


def _files_in(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and bytes of every file and link below a folder, but for what file managers leave."""

    def refuse(error: OSError) -> None:
        raise error

    for here, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        for name in sorted({*files, *links} - _DESKTOP):
            path = Path(here) / name
            yield path.relative_to(folder).as_posix(), path.lstat().st_size


def _write_marker(folder: Path, name: str, frames: int, seed: int, pictures: int) -> None:
    from hodata.synth.scene import SCENE_VERSION

    facts = {
        "made_by": "hodata synth",
        "source": name,
        "scene_version": SCENE_VERSION,
        "frames": frames,
        "seed": seed,
        "pictures": pictures,
        "note": "drawn by a program: no picture, person or number of the real dataset is in here",
        "files": dict(_files_in(folder)),  # name -> bytes: what the next run may replace
    }
    (folder / MARKER).write_text(json.dumps(facts, indent=2) + "\n")
