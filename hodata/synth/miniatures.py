"""Miniature datasets in their native layouts, drawn by the scene generator, with the full truth beside them."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hodata.errors import HodataError

SOURCES = ("freihand", "egohos", "egohands", "ho3d", "ho3d_v2", "mano", "ycb")
_COST = {"egohands": 10, "ho3d": 4, "ho3d_v2": 4}  # of a picture, roughly
MARKER = "SYNTHETIC.json"  # says that a folder was made here, and how


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

    The bytes depend on `frames` and `seed` only. Every folder appears complete or not at all; one that was made here
    before is replaced.

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
        HodataError: an unknown source, a number out of range, or OUT/<source> holds something else.
    """
    unknown = sorted(set(sources) - set(SOURCES))
    if unknown:
        raise HodataError(f"synth: no miniature is called {', '.join(unknown)}; there are {', '.join(SOURCES)}")
    if frames < 1 or workers < 1:
        raise HodataError(f"synth: frames ({frames}) and workers ({workers}) must be at least 1")
    out = Path(out)
    names = [name for name in SOURCES if name in sources]
    for name in names:
        _refuse_foreign(out / name)
    out.mkdir(parents=True, exist_ok=True)
    plans = {name: _writer(name).plan(frames, seed) for name in names}
    partial = {name: out / f".{name}.partial" for name in names}
    try:
        for folder in partial.values():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        jobs = [
            _Job(name, number, partial[name], what, seed) for name in names for number, what in enumerate(plans[name])
        ]
        results = _run(jobs, workers, progress)
        report = {}
        for name in names:
            done = [results[job.source, job.number] for job in jobs if job.source == name]
            _writer(name).finish(partial[name], plans[name], done)
            pictures = sum(_size(name, what) for what in plans[name])
            _write_marker(partial[name], name, frames, seed, pictures)
            report[name] = {"path": str(out / name), "pictures": pictures, "jobs": len(done)}
        for name in names:
            shutil.rmtree(out / name, ignore_errors=True)
            partial[name].rename(out / name)
    except OSError as error:
        raise HodataError(
            f"synth: cannot write to {out} ({error.strerror or error}); nothing was left there"
        ) from error
    finally:
        for folder in partial.values():
            shutil.rmtree(folder, ignore_errors=True)
    return report


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
    # The longest jobs first. Spawned, not forked: the caller may run threads.
    order = sorted(jobs, key=lambda job: -_size(job.source, job.what) * _COST.get(job.source, 1))
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Future[Any], _Job] = {pool.submit(_work, job): job for job in order}
        try:
            for future in as_completed(waiting):
                note(waiting[future], future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


def _refuse_foreign(folder: Path) -> None:
    """Raise unless `folder` is missing, empty, or was made here."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise HodataError(f"synth: {folder} is a file; choose another --out")
    if any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise HodataError(
            f"synth: {folder} holds files that synth did not write (no {MARKER}); they may be a real dataset: "
            "choose another --out or move them away"
        )


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
    }
    (folder / MARKER).write_text(json.dumps(facts, indent=2) + "\n")
