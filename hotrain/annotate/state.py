"""What an annotation has done so far, so that a killed one goes on and ends with the same bytes.

    OUT/.annotate/plan.json           which model, which options: another one is refused
    OUT/.annotate/batches/000012.json the frames of batch 12: its files are complete

Batches are cut from the whole list of frames before anything is known of finished ones. A network's answer depends in
the last bits on the images beside it in a batch, so a batch is done as a whole or again as a whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotrain.annotate.files import write_atomic
from hotrain.annotate.inputs import Frame
from hotrain.errors import AnnotateError

FOLDER = ".annotate"
APPLIED = "applied.json"  # the review whose verdicts hold
VERDICTS = "review.json"  # in the output folder: what the review page saves
STATE_VERSION = 1


@dataclass(frozen=True)
class Batch:
    """Neighbouring frames that enter the network together."""

    number: int
    frames: Sequence[Frame]

    def fingerprint(self) -> str:
        """Of the frames' names and their files' size and time: changed files are annotated again."""
        digest = hashlib.sha256()
        for frame in self.frames:
            try:
                status = frame.path.stat()
                facts = f"{status.st_size} {status.st_mtime_ns}"
            except OSError:
                facts = "missing"
            digest.update(f"{frame.name}\0{facts}\0{frame.number}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def cut(frames: Sequence[Frame], size: int) -> list[Batch]:
    """All frames in batches of `size`, the last one shorter."""
    return [Batch(number, frames[start : start + size]) for number, start in enumerate(range(0, len(frames), size))]


class State:
    """The folder `.annotate` of an output folder."""

    def __init__(self, out: Path, part: str = "") -> None:
        self._out, self._folder = out, out / FOLDER / part

    @classmethod
    def open(cls, out: Path, plan: Mapping[str, Any], *, overwrite: bool = False, part: str = "") -> State:
        """Begin or go on.

        Args:
            out: the output folder.
            part: subfolder, where something is annotated beside the first pass.
            plan: model and options, as JSON; decides every byte.
            overwrite: forget an annotation of another plan; its files stay until they are replaced, a person's
                verdicts on it are put aside.

        Raises:
            AnnotateError: the folder holds an annotation by another plan, or one that a person reviewed.
        """
        state = cls(out, part)
        before = state.plan()
        wanted = {"state_version": STATE_VERSION, **plan}
        if not part and (out / FOLDER / APPLIED).exists():
            if not overwrite:
                raise AnnotateError(
                    f"{out}: holds a review that was applied, and annotating again would undo it; "
                    "give another --out, or --overwrite to begin anew"
                )
            state._begin_anew()
            before = None
        if before is not None and before != wanted:
            if not overwrite:
                differing = sorted(name for name in {*before, *wanted} if before.get(name) != wanted.get(name))
                listed = "; ".join(f"{name}: {before.get(name)} there, {wanted.get(name)} now" for name in differing)
                raise AnnotateError(
                    f"{out}: holds an annotation by another model or with other options ({listed}); "
                    "give another --out, or --overwrite to begin anew"
                )
            state._begin_anew()
        if before != wanted:
            write_atomic(state._folder / "plan.json", (json.dumps(wanted, indent=1, sort_keys=True) + "\n").encode())
        return state

    def _begin_anew(self) -> None:
        shutil.rmtree(self._folder)
        put_verdicts_aside(self._out)

    def plan(self) -> dict[str, Any] | None:
        """The stored plan; None where there is none."""
        path = self._folder / "plan.json"
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise AnnotateError(f"{path}: is damaged; give another --out, or delete {self._folder}")
        return found

    def read(self, batch: Batch) -> list[dict[str, Any]] | None:
        """The records of a finished batch; None where it is to be done: unknown, of other frames or changed files,
        with broken frames (they may be whole by now), or with files missing from the output."""
        try:
            found = json.loads(self._path(batch).read_text(encoding="utf-8"))
            if found["fingerprint"] != batch.fingerprint():
                return None
            records: list[dict[str, Any]] = found["frames"]
            for record in records:
                if record["row"]["status"] == "broken":
                    return None
                if any((self._out / name).stat().st_size != size for name, size in record["files"].items()):
                    return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return records

    def records(self) -> list[dict[str, Any]]:
        """The records of all finished frames, in order.

        Raises:
            AnnotateError: there are none, or some cannot be read.
        """
        found: list[dict[str, Any]] = []
        for path in sorted((self._folder / "batches").glob("*.json")):
            try:
                found += json.loads(path.read_text(encoding="utf-8"))["frames"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise AnnotateError(f"{path}: is damaged ({error}); delete it and annotate again") from error
        if not found:
            raise AnnotateError(f"{self._out}: holds no annotation; give the --out folder of `hotrain annotate`")
        return found

    def forget_beyond(self, count: int) -> None:
        """Forget batches from number `count` on: they are of a time when the list of frames was longer."""
        for path in (self._folder / "batches").glob("*.json"):
            if path.stem.isdecimal() and int(path.stem) >= count:
                path.unlink()

    def save(self, batch: Batch, records: Sequence[Mapping[str, Any]]) -> None:
        """Note that a batch is finished; its files must be there."""
        data = json.dumps({"fingerprint": batch.fingerprint(), "frames": records})
        write_atomic(self._path(batch), (data + "\n").encode())

    def _path(self, batch: Batch) -> Path:
        return self._folder / "batches" / f"{batch.number:06d}.json"


def put_verdicts_aside(out: Path) -> Path | None:
    """Rename OUT/review.json: its verdicts are of masks that are no more.

    Returns:
        where it is now; None where there was none.
    """
    path = out / VERDICTS
    if not path.is_file():
        return None
    return path.replace(out / f"review-before-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.json")


def read_applied(out: Path) -> dict[str, Any]:
    """The review that holds: `frames` (name -> verdict) and `again` (parts of the state, later ones win).

    Raises:
        AnnotateError: the file is damaged.
    """
    path = out / FOLDER / APPLIED
    if not path.is_file():
        return {"frames": {}, "again": []}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"frames": dict(found["frames"]), "again": list(found["again"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnnotateError(f"{path}: is damaged ({error}); delete it and apply the review once more") from error


def current_records(out: Path) -> list[dict[str, Any]]:
    """The records of a finished annotation as they stand: second looks instead of first ones, rejected ones marked.

    Raises:
        AnnotateError: there is no annotation.
    """
    applied = read_applied(out)
    records: dict[str, dict[str, Any]] = {}
    for part in ["", *applied["again"]]:
        state = State(out, part)
        model = str((state.plan() or {}).get("model", ""))[:12]
        for record in state.records():
            name = record["row"]["frame"]
            if record["row"]["status"] == "broken" and name in records:
                continue  # a second look that could not read the image takes nothing back
            record["row"]["model"] = model
            records[name] = record
    for name, record in records.items():
        verdict = applied["frames"].get(name, "")
        record["row"]["review"] = verdict
        if verdict == "reject":
            record["files"], record["row"]["status"] = {}, "rejected"
    return list(records.values())
