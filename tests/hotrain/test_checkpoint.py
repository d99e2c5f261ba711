"""Checkpoints: whole or not there, refused when they are for something else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hotrain import checkpoint
from hotrain.errors import CheckpointError

FACTS: dict[str, Any] = {
    "task": "hand",
    "classes": ["background", "hand", "arm"],
    "model": "lraspp_mobilenet_v3_large",
    "input_rule": {"kind": "short-side", "size": 32},
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
    "seed": 4,
}


def write(run: Path, position: int, value: float = 1.0, **facts: Any) -> Path:
    weights = {"layer.weight": torch.full((2, 3), value), "layer.steps": torch.tensor(7)}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return checkpoint.save(run, position=position, weights=weights, optimizer=optimizer, facts={**FACTS, **facts})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    write(tmp_path, 320, 0.25)
    found = checkpoint.find(tmp_path)
    assert (found.position, found.task.name) == (320, "hand")
    torch.testing.assert_close(found.weights()["layer.weight"], torch.full((2, 3), 0.25))
    assert found.weights()["layer.steps"].dtype == torch.int64
    assert found.optimizer()["state"][0]["step"] == 3
    assert sorted(path.name for path in found.path.iterdir()) == ["optimizer.pt", "run.json", "weights.safetensors"]


def test_best_and_last_are_kept_and_found(tmp_path: Path) -> None:
    for position in (10, 20, 30, 40):
        path = write(tmp_path, position)
        if position == 20:
            checkpoint.mark_best(tmp_path, path, {"jaccard": 0.5})
        checkpoint.remove_old(tmp_path)
    assert checkpoint.find(tmp_path).position == 20
    assert checkpoint.find(tmp_path, which="last").position == 40
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0000000020", "0000000040"]
    assert checkpoint.find(tmp_path / "checkpoints" / "0000000040").position == 40


def test_a_best_that_cannot_be_read_is_not_deleted(tmp_path: Path) -> None:
    checkpoint.mark_best(tmp_path, write(tmp_path, 10), {"jaccard": 0.5})
    write(tmp_path, 20)
    (tmp_path / "best.json").write_text("")
    checkpoint.remove_old(tmp_path)
    assert checkpoint.find(tmp_path / "checkpoints" / "0000000010").position == 10
    with pytest.raises(CheckpointError, match=r"best\.json: cannot be read"):
        checkpoint.find(tmp_path)
    with pytest.raises(CheckpointError, match=r"best\.json: cannot be read"):
        checkpoint.best_score(tmp_path)
    assert checkpoint.find(tmp_path, which="last").position == 20


def test_a_disk_that_is_full_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    """By the system's own limit: what safetensors and torch raise then is no OSError."""
    program = (
        "import resource, signal, sys, torch; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom hotrain import checkpoint\nfrom test_checkpoint import FACTS\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "large, small = torch.zeros(100, 1000), torch.zeros(2)\n"
        "weights, state = (large, small) if sys.argv[3] == 'weights' else (small, large)\n"
        "try:\n"
        "    run = Path(sys.argv[1])\n"
        "    checkpoint.save(run, position=5, weights={'a': weights}, optimizer={'b': state}, facts=FACTS)\n"
        "except checkpoint.CheckpointError as error:\n    print(error)\n"
    )
    for part in ("weights", "optimizer"):
        given = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent), part]
        done = subprocess.run(given, capture_output=True, text=True, timeout=60, check=False)
        assert "cannot be written" in done.stdout and "is the disk full?" in done.stdout, done.stderr
        assert not list((tmp_path / "checkpoints").iterdir())
    assert checkpoint.last_position(tmp_path) is None


def test_an_error_of_the_gpu_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr("torch.save", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        write(tmp_path, 10)
    assert checkpoint.last_position(tmp_path) is None


@pytest.mark.parametrize("content", ["", "null", "[]"])
def test_a_best_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    write(tmp_path, 10)
    (tmp_path / "best.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"best\.json: .*delete"):
        checkpoint.best_score(tmp_path)


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".0000000007.partial").mkdir(parents=True)
    write(tmp_path, 20)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0000000020"]
    assert checkpoint.last_position(tmp_path) == 20


@pytest.mark.parametrize("moment", ["save_file", "optimizer", "run.json", "rename"])
def test_a_write_that_breaks_off_leaves_the_one_before(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 10)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    target = {
        "save_file": "safetensors.torch.save_file",
        "optimizer": "torch.save",
        "run.json": "hotrain.checkpoint._write_json",
        "rename": "pathlib.Path.rename",
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(target, broken)
        with pytest.raises(CheckpointError, match="No space left"):
            write(tmp_path, 20)
    assert checkpoint.find(tmp_path, which="last").position == 10
    write(tmp_path, 20, 0.5)  # and the next try is not in its way
    assert float(checkpoint.find(tmp_path, which="last").weights()["layer.weight"][0, 0]) == 0.5


def test_a_mismatch_names_field_found_and_expected(tmp_path: Path) -> None:
    write(tmp_path, 10)
    found = checkpoint.find(tmp_path)
    found.require(seed=4, model=FACTS["model"])
    with pytest.raises(CheckpointError, match="seed is 4 in the checkpoint, this run has 5"):
        found.require(seed=5)


def test_a_task_with_other_classes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 10, classes=["background", "hand"])
    with pytest.raises(CheckpointError, match="classes"):
        _ = checkpoint.find(tmp_path).task


def test_missing_and_damaged_checkpoints_are_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.find(tmp_path)
    path = write(tmp_path, 10)
    (path / "weights.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: cannot be read"):
        checkpoint.find(tmp_path).weights()
    facts = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**facts, "checkpoint_version": 99}))
    with pytest.raises(CheckpointError, match="is 99, this program reads 1"):
        checkpoint.find(tmp_path)
    del facts["mean"]
    (path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="lacks mean"):
        checkpoint.find(tmp_path)
    (path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.find(tmp_path)


class _Payload:
    """Runs a function when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("/tmp/hotrain-test-payload"),)


def test_optimizer_state_never_runs_code(tmp_path: Path) -> None:
    path = write(tmp_path, 10)
    torch.save({"state": _Payload()}, path / "optimizer.pt")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt: cannot be read"):
        checkpoint.find(tmp_path).optimizer()
    assert not Path("/tmp/hotrain-test-payload").exists()
