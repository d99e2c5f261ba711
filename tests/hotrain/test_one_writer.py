"""A run's folder has one writer; what a killed one leaves keeps nobody out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from test_damaged_samples import fit_command

from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.checkpoint import only_writer
from hotrain.cli import cli
from hotrain.errors import CheckpointError

SMALL = ("--samples-per-epoch", "8", "--workers", "0", "--epochs", "1")
_HOLDS = """
import os, sys, time
from pathlib import Path
from hotrain.checkpoint import only_writer
with only_writer(Path(sys.argv[1])):
    child = os.fork() or time.sleep(600)
    print(child, flush=True)
    time.sleep(600)
"""


def test_a_second_run_in_one_folder_is_refused(mixed: ShardIndex, tmp_path: Path) -> None:
    """One that begins, and one that would go on; not one elsewhere. At the end no lock is left."""
    torch.set_num_threads(1)
    run = tmp_path / "run"
    begins, goes_on = fit_command(mixed, run, *SMALL), fit_command(mixed, run, *SMALL, "--resume", "--epochs", "2")
    for command, position in ((begins, None), (goes_on, 8)):
        with only_writer(run):
            result = CliRunner().invoke(cli, command, standalone_mode=False)
            assert isinstance(result.exception, CheckpointError)
            assert "run: another `hotrain fit` is writing here; wait" in str(result.exception)
            assert checkpoint.last_position(run) == position
            if position is None:
                elsewhere = fit_command(mixed, tmp_path / "other", *SMALL)
                assert CliRunner().invoke(cli, elsewhere).exit_code == 0
        assert CliRunner().invoke(cli, command).exit_code == 0
        assert not (run / ".lock").exists()
    assert checkpoint.last_position(run) == 16


def test_srun_that_starts_runs_of_their_own_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.delenv("RANK", raising=False)
    with only_writer(tmp_path):
        with pytest.raises(CheckpointError, match=r"SLURM_NTASKS is 8: .*torchrun"), only_writer(tmp_path):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(CheckpointError) as refused, only_writer(tmp_path):
            pass
        assert "SLURM" not in str(refused.value)


def test_a_killed_writer_keeps_nobody_out(tmp_path: Path) -> None:
    """Its loading processes live on for some seconds: the lock must not be theirs."""
    holder = subprocess.Popen([sys.executable, "-c", _HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(CheckpointError, match="is writing here"), only_writer(tmp_path):
            pass
        holder.kill()
        holder.wait(30)
        assert (tmp_path / ".lock").exists()
        os.kill(child, 0)  # which lives
        with only_writer(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_run_that_fails_before_it_writes_leaves_no_folder(mixed: ShardIndex, tmp_path: Path) -> None:
    command = fit_command(mixed, tmp_path / "a" / "run", *SMALL)
    assert CliRunner().invoke(cli, [*command, "--where", "source = 'nobody'"]).exit_code != 0
    assert not (tmp_path / "a" / "run").exists()


def test_a_folder_that_cannot_be_made_is_told(mixed: ShardIndex, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(cli, fit_command(mixed, tmp_path / "file" / "run", *SMALL), standalone_mode=False)
    assert isinstance(result.exception, CheckpointError) and "cannot be written" in str(result.exception)


def test_a_run_is_read_where_nothing_can_be_written(mixed: ShardIndex, tmp_path: Path) -> None:
    """`eval` takes no lock: a run may lie on a disk that is read-only."""
    torch.set_num_threads(1)
    run = tmp_path / "run"
    assert CliRunner().invoke(cli, fit_command(mixed, run, *SMALL)).exit_code == 0
    before = sorted(path for path in run.rglob("*"))
    given = ["eval", "--checkpoint", str(run), "--shards", str(mixed.shards[0].parent), "--device", "cpu"]
    with only_writer(run):
        assert CliRunner().invoke(cli, given).exit_code == 0
    assert sorted(path for path in run.rglob("*")) == before
