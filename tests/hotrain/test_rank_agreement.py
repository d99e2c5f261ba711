"""Ranks that see different things: told in words on all of them, before the first step; and one that fails alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from drawn_shards import Spec
from test_damaged_ranks import on_ranks
from test_damaged_samples import fit_command

from hodata.shards.reader import ShardIndex
from hotrain.cli import cli
from hotrain.distributed import require_same


@pytest.fixture
def index(opened: Callable[..., ShardIndex]) -> ShardIndex:
    return opened(
        Spec("one", samples=8), Spec("two", samples=8), Spec("one", "val", samples=4), Spec("two", "val", samples=4)
    )


def copies(index: ShardIndex, folder: Path, *missing: str) -> Path:
    """Two nodes with copies of their own, the second one's without some tars; their path, with `{rank}` in it."""
    for rank, left_out in enumerate(((), missing)):
        ignored = shutil.ignore_patterns(*(f"{name}*" for name in left_out)) if left_out else None
        shutil.copytree(index.shards[0].parent, folder / f"copy-{rank}", ignore=ignored)
    return folder / "copy-{rank}"


def with_shards(command: list[str], shards: Path) -> list[str]:
    place = command.index("--shards") + 1
    return [*command[:place], str(shards), *command[place + 1 :]]


def test_copies_that_differ_are_told_on_every_rank(index: ShardIndex, tmp_path: Path) -> None:
    """One tar fewer; which one decides what is named. The same copies train."""
    common = ("--batch-size", "4", "--samples-per-epoch", "8", "--workers", "0", "--epochs", "1")
    run = tmp_path / "run"
    for number, (missing, name) in enumerate((("two-train", "data_hash"), ("two-val", "data_hash of validation"))):
        shards = copies(index, tmp_path / str(number), missing)
        command = with_shards(fit_command(index, run, *common), shards)
        (ended,) = on_ranks(2, tmp_path / f"ended-{number}", command)
        assert [each.code for each in ended] == [1, 1], [each.err for each in ended]
        for each in ended:
            assert f"do not agree: {name} is '" in each.err and "Traceback" not in each.err
            assert "' on rank 0 (" in each.err and "' on rank 1 (" in each.err
        assert not (run / "checkpoints").exists()
    (ended,) = on_ranks(
        2, tmp_path / "ended", with_shards(fit_command(index, run, *common), copies(index, tmp_path / "2"))
    )
    assert [each.code for each in ended] == [0, 0], [each.err for each in ended]


def test_a_checkpoint_that_one_rank_does_not_see_is_told(index: ShardIndex, tmp_path: Path) -> None:
    """As a listing of a shared disk that lags behind: each would go on from another position."""
    torch.set_num_threads(1)
    more = ("--batch-size", "4", "--samples-per-epoch", "8", "--workers", "0")
    cli(fit_command(index, tmp_path / "run-0", *more, "--epochs", "1"), standalone_mode=False)
    shutil.copytree(tmp_path / "run-0", tmp_path / "run-1")
    longer = fit_command(index, tmp_path / "run-0", *more, "--epochs", "2", "--resume")
    cli(longer, standalone_mode=False)
    command = fit_command(index, tmp_path / "run-{rank}", *more, "--epochs", "3", "--resume")
    (ended,) = on_ranks(2, tmp_path / "ended", command)
    for each in ended:
        assert each.code == 1 and "do not agree: position is 16 on rank 0 (" in each.err, each.err
        assert ", 8 on rank 1 (" in each.err


def test_a_rank_that_cannot_begin_does_not_keep_the_others_waiting(index: ShardIndex, tmp_path: Path) -> None:
    """Weights that lie on one node alone: that one names the file, the other says that somebody has ended."""
    torch.set_num_threads(1)
    first = tmp_path / "first"
    more = ("--batch-size", "4", "--samples-per-epoch", "8", "--workers", "0", "--epochs", "0.5")
    cli(fit_command(index, first, *more), standalone_mode=False)
    shutil.copy(next(first.glob("checkpoints/0*/weights.safetensors")), tmp_path / "weights-0.safetensors")
    command = fit_command(index, tmp_path / "run", *more, "--weights", str(tmp_path / "weights-{rank}.safetensors"))
    (ended,) = on_ranks(2, tmp_path / "ended", command)
    assert [each.code for each in ended] == [1, 1]
    assert "weights-1.safetensors" in ended[1].err and "Traceback" not in ended[1].err
    assert "another process of this run ended" in ended[0].err and "Traceback" not in ended[0].err


def test_one_process_agrees_with_itself() -> None:
    require_same({"steps": 3})


_ALONE = """
import os, sys, time
import torch, torch.distributed as dist
from hotrain import distributed
from hotrain.cli import main
from hotrain.errors import Interrupted, TrainingError

def hang():
    print("leaving", file=sys.stderr, flush=True)
    if sys.argv[1] != "interrupted":
        time.sleep(600)
    original_destroy()

def fail():
    with distributed.process_group("cuda"):
        raise {
            "words": TrainingError("nothing works"),
            "bug": RuntimeError("an illegal memory access"),
            "twice": KeyboardInterrupt(),
            "interrupted": Interrupted("somewhere"),
        }[sys.argv[1]]

original_join, original_destroy = dist.init_process_group, dist.destroy_process_group
dist.init_process_group = lambda backends: original_join("gloo")  # a machine without GPUs
dist.destroy_process_group = hang
distributed.chosen_device = lambda name: torch.device("cuda", 0)
torch.cuda.set_device = lambda device: None
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[2], "RANK": "0", "WORLD_SIZE": "1"}
main(fail)
"""


@pytest.mark.parametrize(
    ("ending", "said", "waits"),
    [
        ("words", "error (rank 0): nothing works\n", False),
        ("bug", "RuntimeError: an illegal memory access\n", False),
        ("twice", "KeyboardInterrupt", False),
        ("interrupted", "Interrupted", True),
    ],
)
def test_a_rank_that_fails_alone_on_gpus_says_so_and_ends(ending: str, said: str, waits: bool) -> None:
    """What NCCL does there waits for ranks that never come; after an interruption all of them do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, ending, str(port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert ("leaving" in done.stderr) == waits
    if ending == "words":
        assert "Traceback" not in done.stderr
