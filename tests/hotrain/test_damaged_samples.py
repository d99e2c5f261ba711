"""Damaged samples in training and evaluation: an error by default; left out, counted once and named when asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from drawn_shards import Spec
from test_evaluate import ByBrightness

from hodata.errors import ShardError
from hodata.labels import TASKS
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.cli import cli
from hotrain.errors import TrainingError
from hotrain.evaluate import evaluate
from hotrain.loading.damage import Damaged, Tally

MODEL = "lraspp_mobilenet_v3_large"


def break_samples(index: ShardIndex, *rows: int) -> list[str]:
    """Flip a byte of the images of some rows; returns their keys."""
    for row in rows:
        path = index.shards[int(index.shard_number[row])]
        raw = bytearray(path.read_bytes())
        raw[int(index.column("image_offset")[row]) + 30] ^= 16
        path.write_bytes(raw)
    return [str(index.column("key")[row]) for row in rows]


@pytest.fixture
def broken(opened: Callable[..., ShardIndex]) -> tuple[ShardIndex, list[str]]:
    """Two damaged training samples and a damaged validation sample among sound ones."""
    index = opened(Spec("one", samples=8), Spec("one", "val", samples=4))
    train, val = index.select(split="train"), index.select(split="val")
    return index, break_samples(index, int(train[2]), int(train[5]), int(val[1]))


def fit_command(index: ShardIndex, run: Path, *more: str) -> list[str]:
    return [
        "fit", "--shards", str(index.shards[0].parent), "--out", str(run), "--model", MODEL, "--weights", "none",
        "--crop", "32", "--batch-size", "4", "--epochs", "2", "--workers", "1", "--device", "cpu", *more,
    ]  # fmt: skip


def test_fit_stops_at_damage_and_names_it(broken: tuple[ShardIndex, list[str]], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    index, keys = broken
    result = CliRunner().invoke(cli, fit_command(index, tmp_path / "run"), standalone_mode=False)
    assert isinstance(result.exception, ShardError)
    assert "one-train-000000.tar: " in str(result.exception) and " at offset " in str(result.exception)
    assert any(f" {key} (image)" in str(result.exception) for key in keys[:2])


def test_fit_leaves_out_what_is_damaged_when_asked(broken: tuple[ShardIndex, list[str]], tmp_path: Path) -> None:
    """Each sample is named once, though two epochs meet it twice; exit 3; the checkpoint knows them."""
    torch.set_num_threads(1)
    index, keys = broken
    result = CliRunner().invoke(cli, fit_command(index, tmp_path / "run", "--on-corrupt", "skip"))
    assert result.exit_code == 3, result.output
    for key in keys[:2]:
        assert len([line for line in result.stderr.splitlines() if "left out: " in line and f" {key} " in line]) == 1
    assert "3 damaged samples were left out" in result.stderr
    found = checkpoint.find(tmp_path / "run", which="last")
    assert found.position == 16 and set(keys[:2]) <= set(found.facts["damaged"]) <= set(keys)


def test_what_the_last_validation_finds_is_recorded(opened: Callable[..., ShardIndex], tmp_path: Path) -> None:
    """The last checkpoint is saved before it is scored; what scoring finds damaged belongs to the run all the same."""
    torch.set_num_threads(1)
    index = opened(Spec("one", samples=8), Spec("one", "val", samples=4))
    (key,) = break_samples(index, int(index.select(split="val")[1]))
    command = fit_command(index, tmp_path / "run", "--on-corrupt", "skip", "--epochs", "1")
    assert CliRunner().invoke(cli, command).exit_code == 3
    assert set(checkpoint.find(tmp_path / "run", which="last").facts["damaged"]) == {key}


def test_fit_gives_up_at_the_limit(broken: tuple[ShardIndex, list[str]], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    arguments = fit_command(broken[0], tmp_path / "run", "--on-corrupt", "skip", "--max-corrupt", "1")
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(result.exception, TrainingError)
    assert "2 samples are damaged, more than --max-corrupt 1" in str(result.exception)


def test_evaluation_leaves_out_and_accounts_for_them(opened: Callable[..., ShardIndex]) -> None:
    """The same counts as over the sound rows alone; the key sum holds."""
    index = opened(Spec("one", samples=9, kind="png"), Spec("two", samples=5, size=(40, 40)))
    keys = break_samples(index, 3, 4, 5, 10)
    rows, task = index.select(), TASKS["hand-object"]
    tally = Tally(10)
    found = evaluate(index, rows, task, ByBrightness(), batch_size=3, tally=tally)
    sound = np.setdiff1d(rows, [3, 4, 5, 10])
    assert found == evaluate(index, sound, task, ByBrightness(), batch_size=3)
    assert sorted(tally.found) == sorted(keys)
    assert all(f" {key} (image) at offset " in what for key, what in tally.found.items())
    with pytest.raises(TrainingError, match="more than --max-corrupt 3"):
        evaluate(index, rows, task, ByBrightness(), tally=Tally(3))
    with pytest.raises(ShardError, match="at offset"):
        evaluate(index, rows, task, ByBrightness())


def test_eval_reports_them_and_exits_3(broken: tuple[ShardIndex, list[str]], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    index, keys = broken
    run = tmp_path / "run"
    assert CliRunner().invoke(cli, fit_command(index, run, "--on-corrupt", "skip", "--epochs", "1")).exit_code == 3
    arguments = ["eval", "--checkpoint", str(run), "--shards", str(index.shards[0].parent), "--split", "val"]
    arguments += ["--device", "cpu", "--json", "--on-corrupt", "skip", "--baseline"]
    result = CliRunner().invoke(cli, [*arguments, "--sheet", str(tmp_path / "sheet.png")])
    assert result.exit_code == 3, result.output
    document = json.loads(result.stdout)
    assert document["samples"] == document["baseline"]["samples"] == 3
    assert set(document["damaged"]) == set(keys) and f"left out: {index.shards[1]}" in result.stderr


def test_a_tally_counts_each_sample_once() -> None:
    tally = Tally(2, {"a": "x"})
    assert tally.add([Damaged("a", "x"), Damaged("b", "y"), Damaged("b", "y")]) == [Damaged("b", "y")]
    assert tally.add([Damaged("b", "y")]) == []
    with pytest.raises(TrainingError, match="3 samples are damaged, more than --max-corrupt 2; the last: z"):
        tally.add([Damaged("c", "z")])
    assert tally.found == {"a": "x", "b": "y"}
