"""A run's folder and its checkpoints.

    RUN/checkpoints/<position>/   weights.safetensors, optimizer.pt, run.json: renamed into place when complete;
                                  raw.safetensors where weights.safetensors holds an average of weights
    RUN/best.json                 which of them scored best on the validation samples, and how
    RUN/.lock                     held by the process that writes here, while it does

Weights have torchvision's own names. Nothing in a checkpoint is ever run: optimizer state is read with
`weights_only=True`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hodata.files import replacing
from hodata.labels import TASKS, Task
from hodata.lock import only_one
from hotrain.config import UNRECORDED
from hotrain.errors import CheckpointError

CHECKPOINT_VERSION = 1
_NEEDED = ("checkpoint_version", "position", "task", "classes", "model", "input_rule", "mean", "std")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: its folder and the facts in run.json."""

    path: Path
    facts: Mapping[str, Any]

    @property
    def position(self) -> int:
        return int(self.facts["position"])

    @property
    def task(self) -> Task:
        """The task as this program knows it; raises CheckpointError where that has other classes."""
        task = TASKS.get(self.facts["task"])
        if task is None or list(task.classes) != self.facts["classes"]:
            raise CheckpointError(
                f"{self.path}: task is {self.facts['task']!r} with classes {self.facts['classes']}, "
                f"this program has {list(task.classes) if task else 'no such task'}; use the program that trained it"
            )
        return task

    def weights(self) -> dict[str, Tensor]:
        """The state dict that is scored and used, on the CPU: of a run with `ema` the averaged one."""
        return _tensors(self.path / "weights.safetensors")

    def trained_weights(self) -> dict[str, Tensor]:
        """The state dict that training goes on from, on the CPU: the one that the optimizer's state belongs to."""
        return _tensors(self.path / "raw.safetensors") if self.facts.get("ema") else self.weights()

    def optimizer(self) -> dict[str, Any]:
        """The optimizer's state, on the CPU."""
        try:
            state: dict[str, Any] = torch.load(self.path / "optimizer.pt", map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises many kinds on bytes that are something else
            raise CheckpointError(f"{self.path}/optimizer.pt: cannot be read ({error})") from error
        return state

    def require(self, **expected: Any) -> None:
        """Raise CheckpointError unless these facts are as expected; the message names field, found and expected."""
        for field, value in expected.items():
            found = self.facts.get(field)
            if found != value:
                raise CheckpointError(
                    f"{self.path}: cannot go on from here: {field} is {found!r} in the checkpoint, this run has "
                    f"{value!r}; resume with the same shards and options, or start anew from it with --init"
                )


@contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """For as long as a run is written to its folder, which is made if missing, and removed if it stays empty.

    Raises:
        CheckpointError: another process writes there, or it cannot be written.
    """
    busy = (
        f"{run}: another `hotrain fit` is writing here; wait until it has ended, or give another --out (if its node "
        f"has crashed, a network disk may still hold its lock: delete {run / '.lock'})"
    )
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "RANK" not in os.environ:
        busy += (
            f". SLURM_NTASKS is {os.environ['SLURM_NTASKS']}: if srun has started as many, each is a run of its own; "
            "start one task a node, srun --ntasks-per-node 1 torchrun ... -m hotrain.cli fit ..., which starts the rest"
        )
    with ExitStack() as stack:
        try:
            if not run.exists():
                stack.callback(_remove_if_empty, run)
                run.mkdir(parents=True, exist_ok=True)
            stack.enter_context(only_one(run / ".lock", CheckpointError(busy)))
        except OSError as error:
            raise CheckpointError(f"{run}: cannot be written ({error.strerror or error})") from error
        yield


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def save(
    run: Path,
    *,
    position: int,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    facts: Mapping[str, Any],
    raw: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint; an interrupted write leaves nothing that looks like one.

    Args:
        run: the run's folder.
        position: positions of the run that the weights have seen; names the folder.
        weights: state dict, as it is to be used.
        optimizer: its state dict.
        facts: what run.json holds besides the version and the position.
        raw: the state dict that training goes on from, where `weights` is an average.

    Returns:
        the checkpoint's folder.

    Raises:
        CheckpointError: it cannot be written; nothing of it is left.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final = folder(run, position)
    partial = final.with_name(f".{final.name}.partial")
    for left in final.parent.glob(".*.partial"):  # of killed runs, gigabytes each
        shutil.rmtree(left, ignore_errors=True)
    states = {"weights": weights} if raw is None else {"weights": weights, "raw": raw}
    on_cpu = {
        name: {key: value.detach().cpu().contiguous() for key, value in state.items()} for name, state in states.items()
    }
    try:
        partial.mkdir(parents=True)
        for name, tensors in on_cpu.items():
            save_file(tensors, partial / f"{name}.safetensors")
        torch.save(optimizer, partial / "optimizer.pt")
        _write_json(partial / "run.json", {"checkpoint_version": CHECKPOINT_VERSION, "position": position, **facts})
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        if final.exists():  # one position has one state: what is there is the same, and whole
            shutil.rmtree(partial)
            return final
        partial.rename(final)
        _sync(final.parent)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have kinds of their own
        shutil.rmtree(partial, ignore_errors=True)
        if "CUDA" in str(error):  # the optimizer's state comes from there
            raise
        raise _not_written(final, error) from error
    return final


def add_facts(path: Path, **facts: Any) -> None:
    """Put more facts into the run.json of a complete checkpoint; a kill leaves the old ones or the new ones."""
    found = json.loads((path / "run.json").read_text(encoding="utf-8"))
    _replace_json(path / "run.json", {**found, **facts})


def mark_best(run: Path, checkpoint: Path, score: Mapping[str, Any]) -> None:
    """Note that `checkpoint` is the best one of the run so far."""
    _replace_json(run / "best.json", {"checkpoint": checkpoint.name, "score": dict(score)})


def best_score(run: Path) -> dict[str, Any] | None:
    """The score that `mark_best` noted, None before the first; raises CheckpointError where it cannot be read."""
    found = _read_best(run).get("score")
    return found if isinstance(found, dict) else None


def folder(run: Path, position: int) -> Path:
    """Where the checkpoint of a position is."""
    return run / "checkpoints" / f"{position:010d}"


def remove_old(run: Path) -> None:
    """Keep the last checkpoint and the best one; all of them where best.json cannot be read.

    Raises:
        OSError: one cannot be removed, as on NFS while somebody reads it; the next `save` tries again.
    """
    found = _checkpoints(run)
    try:
        keep = {found[-1].name if found else "", _best_name(run)}
    except CheckpointError:
        return
    for path in found:
        if path.name not in keep:
            # Renamed first: half of a checkpoint must not look like one.
            shutil.rmtree(path.rename(path.with_name(f".{path.name}.old.partial")))


def find(path: Path, *, which: str = "best") -> Checkpoint:
    """Open a checkpoint.

    Args:
        path: a run's folder, or one checkpoint's.
        which: of a run: `best` (the last one where none was marked) or `last`.

    Raises:
        CheckpointError: there is none, or it is damaged or of another version.
    """
    if (path / "run.json").is_file():
        return _open(path)
    found = _checkpoints(path)
    if not found:
        raise CheckpointError(
            f"{path}: holds no checkpoint; give the folder that `hotrain fit --out` wrote, or one of its checkpoints"
        )
    if which == "last":
        return _open(found[-1])
    best = path / "checkpoints" / (_best_name(path) or "-")
    return _open(best if best.is_dir() else found[-1])


def last_position(run: Path) -> int | None:
    """The position of a run's last complete checkpoint; None: it has none."""
    found = _checkpoints(run)
    return int(found[-1].name) if found else None


def _open(path: Path) -> Checkpoint:
    try:
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
        missing = [name for name in _NEEDED if name not in facts]
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}/run.json: cannot be read ({error})") from error
    if missing:
        raise CheckpointError(f"{path}/run.json: lacks {', '.join(missing)}; it is no checkpoint of hotrain")
    if facts["checkpoint_version"] != CHECKPOINT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint_version is {facts['checkpoint_version']}, this program reads {CHECKPOINT_VERSION}"
        )
    return Checkpoint(path, {**UNRECORDED, **facts})


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error


def _checkpoints(run: Path) -> list[Path]:
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.isdigit() and path.is_dir())


def _best_name(run: Path) -> str:
    return str(_read_best(run).get("checkpoint", ""))


def _read_best(run: Path) -> dict[str, Any]:
    """What `mark_best` wrote; empty before the first. Unreadable is not the same: the best one would be deleted."""
    path = run / "best.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); give one of the checkpoints in {run / 'checkpoints'}, or delete the "
            "file: the last one then stands for the best"
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path}: holds no score of hotrain; delete it: the last checkpoint then stands for the best"
        )
    return found


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _replace_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file so that a kill or a power failure leaves the old one or the new one."""
    try:
        with replacing(path, durable=True) as temporary:
            _write_json(temporary, data)
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: Exception) -> CheckpointError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
    return CheckpointError(f"{path}: cannot be written ({reason}); is the disk full?")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
