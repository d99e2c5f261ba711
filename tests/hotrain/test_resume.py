"""Runs that are killed: whatever the moment, a complete checkpoint is left, and going on gives the same weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from drawn_shards import Spec

from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.cli import cli
from hotrain.config import FitConfig
from hotrain.errors import CheckpointError
from hotrain.fit import fit

_MODEL = "lraspp_mobilenet_v3_large"


def command(shards: Path, run: Path, *more: str) -> list[str]:
    options = {
        "--shards": str(shards), "--out": str(run), "--model": _MODEL, "--weights": "none", "--crop": "32",
        "--batch-size": "4", "--samples-per-epoch": "32", "--epochs": "2", "--workers": "1", "--device": "cpu",
        "--checkpoint-every": "0", "--lr": "0.002",
    }  # fmt: skip
    listed = [word for option in options.items() for word in option]
    return [sys.executable, "-m", "hotrain.cli", "fit", *listed, *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def finish(arguments: list[str]) -> None:
    """Let a run come to its end."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def run_until_killed(arguments: list[str], run: Path, checkpoints: int, pause: float) -> int:
    """Start a run; SIGKILL its whole group a moment after it has saved `checkpoints` more; its exit code."""
    before = {path.name for path in run.glob("checkpoints/0*")}
    seen: set[str] = set()
    process = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, env=environment()
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and len(seen) < checkpoints and time.monotonic() < deadline:
        seen |= {path.name for path in run.glob("checkpoints/0*")} - before
        time.sleep(0.002)
    time.sleep(pause)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    _, messages = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGKILL), messages.decode()[-2000:]
    return process.returncode


def killed_and_resumed(shards: Path, folder: Path, seed: int, kills: int) -> dict[str, torch.Tensor]:
    """The weights of a run that was killed `kills` times and always went on."""
    rng = random.Random(seed)
    run, code = folder / f"killed-{seed}", -1
    for number in range(kills):
        more = ["--resume"] if number else []
        code = run_until_killed(command(shards, run, *more), run, rng.randint(1, 4), rng.uniform(0, 0.15))
        found = checkpoint.find(run, which="last")  # whole, whatever the moment
        assert found.weights() and found.optimizer()["state"] and found.position % 4 == 0
        if code == 0:
            break
    if code:
        done = subprocess.run(
            command(shards, run, "--resume"),
            capture_output=True,
            text=True,
            timeout=300,
            env=environment(),
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    return checkpoint.find(run, which="last").weights()


@pytest.fixture(scope="module")
def uninterrupted(mixed: ShardIndex, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = subprocess.run(
        command(mixed.shards[0].parent, run),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return checkpoint.find(run, which="last").weights()


def test_going_on_needs_no_option_but_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not given again is what the run had, however unusual; what is given is changed."""
    shards, run, taken = (str(tmp_path / "shards"),), tmp_path / "run", []
    began = FitConfig(shards, str(run), model=_MODEL, lr=0.0123, prior=0.77, jitter=0.31, epochs=2.5, flip=False)
    facts = {"task": "hand", "classes": [], "model": _MODEL, "mean": [0.5] * 3, "std": [0.2] * 3}
    facts |= {"input_rule": {"kind": "short-side", "size": 32}, "config": began.to_json()}
    checkpoint.save(run, position=8, weights={"x": torch.zeros(1)}, optimizer={}, facts=facts)
    monkeypatch.setattr("hotrain.distributed.launch", lambda work, arguments, processes: taken.append(arguments))
    for more, expected in (([], began), (["--epochs", "9", "--flip"], replace(began, epochs=9.0, flip=True))):
        done = CliRunner().invoke(cli, ["fit", "--resume", "--out", str(run), *more])
        assert done.exit_code == 0, done.output
        assert taken.pop() == (expected, True)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


def test_killed_once_and_resumed_equals_uninterrupted(
    mixed: ShardIndex, tmp_path: Path, uninterrupted: dict[str, torch.Tensor]
) -> None:
    assert_same(killed_and_resumed(mixed.shards[0].parent, tmp_path, 0, kills=1), uninterrupted)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 11))
def test_killed_often_and_resumed_equals_uninterrupted(
    mixed: ShardIndex, tmp_path: Path, uninterrupted: dict[str, torch.Tensor], seed: int
) -> None:
    """30 kills at random moments, while reading, computing, saving, validating or removing old checkpoints."""
    assert_same(killed_and_resumed(mixed.shards[0].parent, tmp_path, seed, kills=3), uninterrupted)


def tiny(shards: Path, out: Path, **changes: object) -> FitConfig:
    options = {
        "model": _MODEL, "weights": "none", "epochs": 1, "samples_per_epoch": 16, "crop": 32, "batch_size": 4,
        "workers": 0, "device": "cpu", "lr": 2e-3, **changes,
    }  # fmt: skip
    return FitConfig((str(shards),), str(out), **options)  # type: ignore[arg-type]


def test_checkpoints_within_an_epoch(mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so many minutes, and at the end; none of it changes what is learnt."""
    torch.set_num_threads(1)
    shards, saved = mixed.shards[0].parent, []
    original = checkpoint.save

    def save(run: Path, **arguments: object) -> Path:
        saved.append(arguments["position"])
        return original(run, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", save)
    fit(tiny(shards, tmp_path / "often", checkpoint_every=0.0))
    fit(tiny(shards, tmp_path / "seldom", checkpoint_every=60.0))
    assert saved == [4, 8, 12, 16, 16]
    often, seldom = (checkpoint.find(tmp_path / name, which="last").weights() for name in ("often", "seldom"))
    assert_same(often, seldom)


def test_another_dataset_or_order_is_refused(
    mixed: ShardIndex, shards: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Field, found and expected, each time."""
    torch.set_num_threads(1)
    run = tmp_path / "run"
    fit(tiny(mixed.shards[0].parent, run, epochs=0.25))
    other = shards(Spec("ego", samples=9, meaning="egohos"))
    with pytest.raises(CheckpointError, match=r"data_hash is '[0-9a-f]{64}' in the checkpoint, this run has '[0-9a-f]"):
        fit(tiny(other, run), resume=True)
    with pytest.raises(CheckpointError, match="order is 'shuffle' in the checkpoint, this run has 'blocks'"):
        fit(tiny(mixed.shards[0].parent, run, order="blocks"), resume=True)
    monkeypatch.setattr("hotrain.fit.ORDER_VERSION", 2)
    with pytest.raises(CheckpointError, match="order_version is 1 in the checkpoint, this run has 2"):
        fit(tiny(mixed.shards[0].parent, run), resume=True)


def test_block_order_trains_and_resumes(mixed: ShardIndex, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    fit(tiny(mixed.shards[0].parent, tmp_path / "run", order="blocks", epochs=0.5))
    fit(tiny(mixed.shards[0].parent, tmp_path / "run", order="blocks"), resume=True)
    fit(tiny(mixed.shards[0].parent, tmp_path / "whole", order="blocks"))
    positions = [checkpoint.find(tmp_path / name, which="last").position for name in ("run", "whole")]
    assert positions == [16, 16]


def resumed_with(processes: int, shards: Path, run: Path, epochs: str) -> None:
    """Go on with a run under torchrun, in so many processes."""
    options = ("--epochs", epochs, "--samples-per-epoch", "48", "--batch-size", "12", "--workers", "0")
    arguments = command(shards, run, "--resume", *options)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "hotrain.cli"]
    arguments[1:3] = launcher
    finish(arguments)


@pytest.mark.soak
@pytest.mark.parametrize("worlds", [(1, 3, 2), (3, 1, 2), (2, 6, 1)])
def test_a_run_goes_on_at_any_number_of_processes(mixed: ShardIndex, tmp_path: Path, worlds: tuple[int, ...]) -> None:
    """In the middle of an epoch; the positions go on where they were."""
    torch.set_num_threads(1)
    shards, run = mixed.shards[0].parent, tmp_path / "run"
    fit(tiny(shards, run, batch_size=12, samples_per_epoch=48, epochs=0.25))
    for number, world in enumerate(worlds):
        resumed_with(world, shards, run, str(0.25 * (number + 2)))
        assert checkpoint.find(run, which="last").position == 12 * (number + 2)


@pytest.mark.soak
def test_torchrun_starts_a_run_again_that_lost_a_process(mixed: ShardIndex, tmp_path: Path) -> None:
    """The first process is killed amid the run: torchrun restarts all, which go on by the same command.

    Its processes find each other by what it stores; unless told, it gives those of a restart what the dead ones stored.
    """
    run = tmp_path / "run"
    options = ("--samples-per-epoch", "400", "--epochs", "1", "--workers", "2")
    arguments = command(mixed.shards[0].parent, run, "--resume-if-any", *options)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    arguments[1:3] = [*launcher, "-m", "hotrain.cli"]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/0*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    first = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if f"--out\0{run}\0".encode() in (path.parent / "cmdline").read_bytes()
        and b"\0RANK=0\0" in path.read_bytes()
        and int((path.parent / "stat").read_text().rpartition(")")[2].split()[1]) == process.pid
    ]
    assert len(first) == 1
    os.kill(first[0], signal.SIGKILL)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    assert "going on from" in messages and "is writing here" not in messages
    assert checkpoint.find(run, which="last").position == 400
