"""What is done beside training may fail, and is said once; what training needs may not."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from test_damaged_samples import fit_command

from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.cli import cli

COMMON = ("--samples-per-epoch", "8", "--workers", "0", "--epochs", "3", "--checkpoint-every", "0")


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def busy(path: Path, ignore_errors: bool = False) -> None:
    if not ignore_errors:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))


def test_a_disk_that_refuses_what_is_beside_training_does_not_end_it(
    mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Previews, curves, card, logs, and the removal of old checkpoints: each said once in three epochs."""
    torch.set_num_threads(1)
    free = CliRunner().invoke(cli, fit_command(mixed, tmp_path / "free", *COMMON))
    assert free.exit_code == 0 and "warning" not in free.stderr
    run = tmp_path / "run"
    run.mkdir()
    (run / "previews").write_text("a file where a folder should be")
    (run / "curves.png").mkdir()
    monkeypatch.setattr("hotrain.fit.write_card", full)
    monkeypatch.setattr("hotrain.progress.FileLog.scalars", full)
    monkeypatch.setattr("hotrain.checkpoint.shutil.rmtree", busy)
    result = CliRunner().invoke(cli, fit_command(mixed, run, *COMMON))
    assert result.exit_code == 0, result.output
    for what in ("removing old checkpoints", "the model card", "the log", "the preview", "the curves"):
        assert result.stderr.count(f"warning: {what}: ") == 1, result.stderr
    assert result.stderr.count("warning: ") == 5 and str(run / "curves.png") in result.stderr
    one, other = (checkpoint.find(path, which="last") for path in (tmp_path / "free", run))
    assert one.position == other.position == 24
    assert all(torch.equal(value, other.weights()[name]) for name, value in one.weights().items())
    # What could not be removed is no checkpoint, and the next save tries again.
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    assert any(name.endswith(".old.partial") for name in kept)
    assert len([name for name in kept if name.isdigit()]) <= 2
    monkeypatch.undo()
    assert CliRunner().invoke(cli, fit_command(mixed, run, *COMMON, "--epochs", "4", "--resume")).exit_code == 0
    assert all(path.name.isdigit() for path in (run / "checkpoints").iterdir())


def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("hotrain.checkpoint._write_json", full)
    result = CliRunner().invoke(cli, fit_command(mixed, tmp_path / "run", *COMMON), standalone_mode=False)
    assert isinstance(result.exception, checkpoint.CheckpointError)
    assert "cannot be written" in str(result.exception)
