"""Train: several runs at a time, each by the public command, restartable, with the time left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from hodata.errors import HodataError
from hotrain.checkpoint import only_writer
from hotrain.config import FitConfig, read_recipe

COMMAND = (sys.executable, "-m", "hotrain.cli")
_POLL = 1.0  # seconds
_REPORT = 60.0


class CompareError(HodataError):
    """What stops a comparison, in words for people."""


@dataclass(frozen=True)
class Job:
    """One command of `hotrain fit`.

    Args:
        name: for people.
        folder: of the run; `<folder>.json` beside it holds `facts`, `<folder>.log` what the command said.
        arguments: of `hotrain`, `--config` among them.
        images: that the run sees.
        data: hash of the samples that it learns from and is chosen by.
    """

    name: str
    folder: Path
    arguments: Sequence[str]
    images: int
    data: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the run: the same name may hold another recipe tomorrow, and options other defaults."""
        recipe = read_recipe(Path(self.arguments[self.arguments.index("--config") + 1]))
        defaults = {one.name: repr(one.default) for one in fields(FitConfig) if one.default is not MISSING}
        return {"arguments": list(self.arguments), "recipe": recipe, "defaults": defaults, "data": self.data}

    @property
    def note(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")


def train(jobs: Sequence[Job], at_once: int, say: Callable[[str], None] = print) -> None:
    """Do what is not done yet. A run that was stopped goes on from its last checkpoint.

    Raises:
        CompareError: a command failed, or a folder holds a run with other options.
    """
    waiting = [job for job in jobs if not _finished(job)]
    total = len(waiting)
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    began = reported = time.monotonic()
    if len(jobs) > total:
        say(f"{len(jobs) - total} of {len(jobs)} runs are there already")
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running.append((job, _start(job, max((os.cpu_count() or 1) // at_once, 1))))
            time.sleep(_POLL)
            for job, process in list(running):
                code = process.poll()
                if code is None:
                    continue
                running.remove((job, process))
                if code:
                    raise CompareError(f"{job.name} failed (exit {code}); the end of {job.log}:\n{_tail(job.log)}")
                _write(job, finished=True)
                say(f"{job.name}: trained; {_left(total, waiting, running, began)}")
                reported = time.monotonic()
            if time.monotonic() - reported > _REPORT:
                reported = time.monotonic()
                shares = ", ".join(f"{job.name} {_share(job):.0%}" for job, _ in running)
                say(f"{shares}; {_left(total, waiting, running, began)}")
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait()


def _start(job: Job, threads: int) -> subprocess.Popen[bytes]:
    resume = ["--resume"] if _begun(job) else []
    if not resume:
        with only_writer(job.folder):  # one whose comparison was killed may go on alone
            pass
        shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    _write(job, finished=False)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [*COMMAND, *job.arguments, *resume]
    with job.log.open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _begun(job: Job) -> bool:
    checkpoints = job.folder / "checkpoints"
    return checkpoints.is_dir() and any(checkpoints.iterdir())


def _finished(job: Job) -> bool:
    """Whether the run is complete; raises CompareError where the folder holds another one."""
    if not _begun(job):
        return False
    try:
        note: dict[str, Any] = json.loads(job.note.read_text())
        finished = bool(note.pop("finished"))
    except (OSError, ValueError, KeyError) as error:
        raise CompareError(
            f"{job.folder} holds a run, and {job.note}, which says of what, cannot be read ({error}); remove the "
            "folder, or give another --out"
        ) from error
    facts = job.facts
    other = sorted(name for name in {*note, *facts} if note.get(name) != facts.get(name))
    if other:
        raise CompareError(
            f"{job.folder} was trained with other options or on other pictures (other {', '.join(other)}); remove it, "
            "or give another --out"
        )
    return finished


def _write(job: Job, finished: bool) -> None:
    partial = job.note.with_name(f".{job.note.name}")
    partial.write_text(json.dumps({**job.facts, "finished": finished}, indent=1) + "\n")
    partial.replace(job.note)


def _share(job: Job) -> float:
    """How much of a run is done, by its log."""
    from hotrain.progress import read_log

    return max((entry["position"] for entry in read_log(job.folder)), default=0) / job.images


def _left(total: int, waiting: Sequence[Job], running: Sequence[tuple[Job, Any]], began: float) -> str:
    shares = [_share(job) for job, _ in running]
    done = total - len(waiting) - len(running) + sum(shares)
    left = f", about {(time.monotonic() - began) * (total - done) / done / 60:.0f} min left" if done > 0.05 else ""
    return f"{total - len(waiting) - len(running)} of {total} done{left}"


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-12:])
