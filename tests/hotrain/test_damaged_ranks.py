"""Damaged samples that fall to different ranks: counted together, named once, and the limit ends every rank."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_shards import Spec
from test_damaged_samples import break_samples, fit_command

from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.cli import cli, main
from hotrain.evaluate import equal_size_batches
from hotrain.order import Order

BATCH = 12  # a whole epoch: every training sample is met in each step
VAL = 9


@dataclass(frozen=True)
class Ended:
    """How one rank ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def _work(rank: int, world: int, commands: Sequence[tuple[int, list[str]]], folder: str) -> None:
    """One rank: every command, each in a group of its own at its own port."""
    faulthandler.dump_traceback_later(100, exit=True)  # the watchdog: a rank that hangs says where, and ends
    torch.set_num_threads(1)
    for number, (port, arguments) in enumerate(commands):
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": world}
        os.environ |= {name: str(value) for name, value in place.items()}
        code = 0
        base = Path(folder) / f"{number}-{rank}"
        with (
            base.with_suffix(".out").open("w") as out,
            base.with_suffix(".err").open("w") as err,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                own = [word.replace("{rank}", str(rank)) for word in arguments]
                main(lambda given=own: cli(given, standalone_mode=False))
            except SystemExit as ended:
                code = int(ended.code or 0)
            except Exception:
                traceback.print_exc()
                code = -1
        base.with_suffix(".code").write_text(str(code))


def on_ranks(world: int, folder: Path, *commands: list[str]) -> list[list[Ended]]:
    """Run `hotrain` commands one after the other on some gloo processes: for each command, how each rank ended.

    `{rank}` in a command is each one's number.
    """
    folder.mkdir()
    sockets = [socket.socket() for _ in commands]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hotrain.fit"])
    numbered = list(zip(ports, commands, strict=True))
    group = [context.Process(target=_work, args=(rank, world, numbered, str(folder))) for rank in range(world)]
    for process in group:
        process.start()
    for process in group:
        process.join(120)
    assert [process.exitcode for process in group] == [0] * world
    return [
        [
            Ended(
                int((folder / f"{number}-{rank}.code").read_text()),
                (folder / f"{number}-{rank}.out").read_text(),
                (folder / f"{number}-{rank}.err").read_text(),
            )
            for rank in range(world)
        ]
        for number in range(len(commands))
    ]


def ranks_of(rows: np.ndarray, world: int, epoch: int) -> dict[int, int]:
    """Training row -> the rank that meets it in an epoch."""
    order = Order({"one": len(rows)}, 0)
    _, sample = order.locate(np.arange(BATCH) + epoch * BATCH)
    return {int(rows[s]): place // (BATCH // world) for place, s in enumerate(sample)}


@pytest.fixture
def index(opened: Callable[..., ShardIndex]) -> ShardIndex:
    return opened(Spec("one", samples=BATCH), Spec("one", "val", samples=VAL))


def named(ended: Ended, keys: Sequence[str]) -> list[int]:
    """How often each key is said to be left out."""
    lines = [line for line in ended.err.splitlines() if line.startswith("left out: ")]
    return [sum(f" {key} " in line for line in lines) for key in keys]


@pytest.mark.parametrize("world", [2, 3])
def test_fit_counts_over_all_ranks(index: ShardIndex, tmp_path: Path, world: int) -> None:
    """One damaged sample a rank: as many as the limit are left out, one more ends every rank in its first step."""
    train = index.select(split="train")
    first, second = (ranks_of(train, world, epoch) for epoch in (0, 1))
    rows = [next(row for row in first if first[row] == rank and second[row] != rank) for rank in range(world)]
    keys = break_samples(index, *rows)
    common = ("--batch-size", str(BATCH), "--on-corrupt", "skip")
    enough, too_many = on_ranks(
        world,
        tmp_path / "ended",
        fit_command(index, tmp_path / "enough", *common, "--max-corrupt", str(world)),
        fit_command(index, tmp_path / "too-many", *common, "--max-corrupt", str(world - 1)),
    )
    assert [ended.code for ended in enough] == [0] * world, enough[0].err  # not 3: a launcher takes it for a failure
    assert named(enough[0], keys) == [1] * world  # though the second epoch meets them on other ranks
    assert f"{world} damaged samples were left out: {', '.join(sorted(keys))}" in enough[0].err
    assert all(ended.err == "" for ended in enough[1:])
    facts = json.loads((checkpoint.find(tmp_path / "enough", which="last").path / "run.json").read_text())
    assert set(facts["damaged"]) == set(keys)
    assert all(f" {key} (image) at offset " in what for key, what in facts["damaged"].items())

    assert [ended.code for ended in too_many] == [1] * world, too_many[0].err
    for ended in too_many:
        assert f"error: {world} samples are damaged, more than --max-corrupt {world - 1}; the last: " in ended.err
    assert not (tmp_path / "too-many" / "checkpoints").exists()


@pytest.fixture(scope="module")
def run(mixed: ShardIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, whose weights do not matter."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run") / "run"
    cli(fit_command(mixed, folder, "--epochs", "0.2"), standalone_mode=False)
    return folder


@pytest.mark.parametrize("world", [2, 3])
def test_evaluation_counts_over_all_ranks(index: ShardIndex, run: Path, tmp_path: Path, world: int) -> None:
    """Also where one rank alone finds too many: the others do not wait for it."""
    batches = equal_size_batches(index, index.select(split="val"), 1)
    rows = [batches[place][0] for place in (0, world, 1)]  # two of rank 0, one of rank 1
    keys = break_samples(index, *rows)
    shared = ["--shards", str(index.shards[0].parent), "--split", "val", "--device", "cpu", "--batch-size", "1"]
    shared = ["eval", "--checkpoint", str(run), *shared, "--json", "--on-corrupt", "skip", "--max-corrupt"]
    enough, together, alone = on_ranks(world, tmp_path / "ended", [*shared, "3"], [*shared, "2"], [*shared, "1"])
    assert [ended.code for ended in enough] == [0] * world, enough[0].err
    document = json.loads(enough[0].out)
    assert document["samples"] == VAL - 3 and set(document["damaged"]) == set(keys)
    assert named(enough[0], keys) == [1, 1, 1] and all(ended.out == "" for ended in enough[1:])
    for limit, ended_ranks in ((2, together), (1, alone)):
        assert [ended.code for ended in ended_ranks] == [1] * world, [ended.err for ended in ended_ranks]
        for ended in ended_ranks:
            assert f"error: 3 samples are damaged, more than --max-corrupt {limit}; the last: " in ended.err


def test_validation_of_a_run_counts_over_all_ranks(index: ShardIndex, tmp_path: Path) -> None:
    """Two samples damaged for one rank, none for the other: both end, and the checkpoint of the epoch is whole."""
    run = tmp_path / "run"
    batches = equal_size_batches(index, index.select(split="val"), BATCH // 2)
    break_samples(index, *batches[0][:2])
    command = fit_command(index, run, "--batch-size", str(BATCH), "--on-corrupt", "skip", "--max-corrupt", "1")
    (ended,) = on_ranks(2, tmp_path / "ended", command)
    assert [each.code for each in ended] == [1, 1], [each.err for each in ended]
    assert all("error: 2 samples are damaged, more than --max-corrupt 1" in each.err for each in ended)
    assert checkpoint.find(run, which="last").position == BATCH


def test_without_skip_damage_ends_every_rank(index: ShardIndex, tmp_path: Path) -> None:
    """The rank that meets it names it; no other waits for it."""
    train = index.select(split="train")
    meets = ranks_of(train, 2, 0)
    (key,) = break_samples(index, next(row for row in meets if meets[row] == 1))
    (ended,) = on_ranks(2, tmp_path / "ended", fit_command(index, tmp_path / "run", "--batch-size", str(BATCH)))
    assert ended[1].code == 1 and f" {key} (image) at offset " in ended[1].err
    assert ended[0].code != 0
