"""The loader against itself: ranks, workers, restarts, signals, shared memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn_shards import Spec, crop_data
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import get_worker_info

from hodata.errors import ShardError
from hodata.shards.reader import ShardIndex
from hotrain.errors import TrainingError
from hotrain.loading.data import CropData, Facts
from hotrain.loading.loader import Loader, Positions, prefetch_factor


def test_ranks_workers_and_restarts_see_the_same_samples(mixed: ShardIndex) -> None:
    data = crop_data(mixed)
    whole = list(Loader(data, start=0, stop=48, batch=12, micro=12, workers=0))
    joined = {name: torch.cat([batch[name] for batch in whole]) for name in whole[0]}
    np.testing.assert_array_equal(joined["position"], np.arange(48))

    parts = [
        batch
        for rank in (0, 1)
        for batch in Loader(data, start=12, stop=48, batch=12, micro=3, rank=rank, world=2, workers=2 * rank)
    ]
    parts.sort(key=lambda batch: int(batch["position"][0]))
    assert len(parts) == 12
    for name, value in joined.items():
        torch.testing.assert_close(torch.cat([batch[name] for batch in parts]), value[12:], rtol=0, atol=0)


class _Reports(CropData):
    """Says how its worker treats signals and threads."""

    def fill(self, positions: np.ndarray, pixels: torch.Tensor) -> Facts:
        assert get_worker_info() is not None
        ignored = [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGTERM, signal.SIGINT)]
        return replace(super().fill(positions, pixels), position=np.array([*ignored, torch.get_num_threads()]))


def test_workers_leave_signals_to_the_run_and_use_one_thread(mixed: ShardIndex) -> None:
    data = crop_data(mixed)
    data.__class__ = _Reports
    first = next(iter(Loader(data, start=0, stop=8, batch=8, micro=8, workers=1)))
    assert first["position"].tolist() == [1, 1, 1]


_DIES = """
import os, signal, sys, time
from contextlib import closing
import numpy as np
from drawn_shards import crop_data
from hodata.shards.reader import ShardIndex
from hotrain.cli import main
from hotrain.loading.data import CropData
from hotrain.loading.loader import Loader

class Dies(CropData):
    def fill(self, positions, pixels):
        if positions[0] == 8:
            {death}
        return super().fill(positions, pixels)

def run():
    data = crop_data(ShardIndex.open(sys.argv[1]))
    data.__class__ = Dies
    with closing(iter(Loader(data, start=0, stop=48, batch=4, micro=4, workers=2))) as batches:
        for _ in batches:
            time.sleep({work})

main(run)
"""


@pytest.mark.parametrize(
    ("death", "words", "work"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "Killed", 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", "Killed", 1),  # then torch's signal handler says so amid the work
        ("raise MemoryError", "MemoryError", 0),
    ],
)
def test_a_loading_process_that_dies_ends_the_run(mixed: ShardIndex, death: str, words: str, work: int) -> None:
    """The others ignore SIGTERM, which is all that Python's exit sends them before it waits for them."""
    paths = os.pathsep.join(path for path in sys.path if path)
    program = _DIES.replace("{death}", death).replace("{work}", str(work))
    done = subprocess.run(
        [sys.executable, "-c", program, str(mixed.shards[0].parent)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and words in done.stderr, done.stderr
    assert "memory is short" in done.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_arrives_as_the_shard_s_own_error(opened: Callable[..., ShardIndex], workers: int) -> None:
    index = opened(Spec("one", samples=4))
    path = index.shards[0]
    raw = bytearray(path.read_bytes())
    offset = int(index.column("image_offset")[2])
    raw[offset + 40] ^= 255
    path.write_bytes(raw)
    with pytest.raises(ShardError, match=r"one-train-000000\.tar: one_train_2 .*offset") as caught:
        list(Loader(crop_data(index), start=0, stop=8, batch=8, micro=8, workers=workers))
    assert "Traceback" not in str(caught.value)


def test_workers_start_before_the_first_batch_is_asked_for(mixed: ShardIndex) -> None:
    """Forking later, when the run has threads, may copy a held lock."""
    before = {process.pid for process in multiprocessing.active_children()}
    batches = iter(Loader(crop_data(mixed), start=0, stop=8, batch=8, micro=8, workers=2))
    assert len({process.pid for process in multiprocessing.active_children()} - before) == 2
    next(batches)


def test_batches_waiting_fit_into_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def room(_: Path) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=64, f_frsize=10**6)

    monkeypatch.setattr("os.statvfs", room)
    # 64 MB, half of it left to another rank, and two batches in use.
    assert [prefetch_factor(megabytes * 10**6, 2, 2, 2, tmp_path) for megabytes in (1, 4, 5, 8)] == [4, 3, 2, 1]
    with pytest.raises(TrainingError, match=r"64 MB free.*9 MB, need 72 MB.*--shm-size"):
        prefetch_factor(9 * 10**6, 2, 2, 2, tmp_path)
    assert [prefetch_factor(megabytes * 10**6, 2, 2, 8, tmp_path) for megabytes in (1, 2)] == [3, 1]
    with pytest.raises(TrainingError, match=r"for each of 8 GPUs.*3 MB, need 96 MB"):
        prefetch_factor(3 * 10**6, 2, 2, 8, tmp_path)
    with pytest.raises(TrainingError, match=r"need 128 MB"):  # slots are dealt out: 8 workers have 16
        prefetch_factor(10**6 * 4, 8, 2, 2, tmp_path)
    assert prefetch_factor(10**9, 9, 1, 2, tmp_path / "no such folder") == 4


@pytest.mark.parametrize(("of_node", "counted"), [(None, 2), ("1", 2), ("8", 8)])
def test_all_ranks_of_a_node_share_its_memory(
    mixed: ShardIndex, monkeypatch: pytest.MonkeyPatch, of_node: str | None, counted: int
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if of_node:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", of_node)
    asked = []

    def factor(batch_bytes: int, workers: int, held: int, ranks: int) -> int:
        asked.append(ranks)
        return 1

    monkeypatch.setattr("hotrain.loading.loader.prefetch_factor", factor)
    iter(Loader(crop_data(mixed), start=0, stop=8, batch=8, micro=8, workers=1)).close()
    assert asked == [counted]


def test_uneven_parts_are_refused(mixed: ShardIndex) -> None:
    with pytest.raises(TrainingError, match="micro-batches of 5 on 2 ranks"):
        Loader(crop_data(mixed), start=0, stop=12, batch=12, micro=5, world=2)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """A batch, two world sizes and accumulations that divide it, and a step to cut at."""
    first, second = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    parts = draw(st.integers(1, 3))
    batch = np.lcm(first, second) * parts * draw(st.integers(1, 3))
    return int(batch), first, second, parts, draw(st.integers(0, 7))


def stream(start: int, stop: int, batch: int, world: int, parts: int) -> list[int]:
    """The positions that all ranks take, step by step and rank by rank."""
    ranks = [list(Positions(start, stop, batch, batch // world // parts, rank, world)) for rank in range(world)]
    assert len({len(own) for own in ranks}) == 1
    steps = zip(*[np.array(own).reshape(-1, batch // world).tolist() for own in ranks], strict=True)
    return [position for step in steps for share in step for position in share]


@given(cuts())
def test_a_stream_cut_anywhere_goes_on_at_any_number_of_ranks(cut: tuple[int, int, int, int, int]) -> None:
    batch, first, second, parts, step = cut
    before = stream(0, step * batch, batch, first, parts)
    after = stream(step * batch, 8 * batch, batch, second, parts)
    assert before + after == list(range(8 * batch))


@pytest.mark.soak
@settings(max_examples=40, deadline=None)
@given(cut=cuts(), workers=st.integers(0, 2))
def test_batches_cut_anywhere_are_the_rest_of_the_same_stream(
    mixed: ShardIndex, cut: tuple[int, int, int, int, int], workers: int
) -> None:
    """The same with real loaders: every byte of every crop."""
    batch, first, second, parts, step = cut
    data = crop_data(mixed)
    whole = list(Loader(data, start=0, stop=8 * batch, batch=batch, micro=batch, workers=0))
    joined = {name: torch.cat([part[name] for part in whole]) for name in whole[0]}
    found = [
        part
        for world, start, stop in ((first, 0, step), (second, step, 8))
        for rank in range(world)
        for part in Loader(
            data,
            start=start * batch,
            stop=stop * batch,
            batch=batch,
            micro=batch // world // parts,
            rank=rank,
            world=world,
            workers=workers,
        )
    ]
    found.sort(key=lambda part: int(part["position"][0]))
    for name, value in joined.items():
        assert torch.equal(torch.cat([part[name] for part in found]), value)


class _Remembers(CropData):
    asked: list[int]

    def fill(self, positions: np.ndarray, pixels: torch.Tensor) -> Facts:
        self.asked += positions.tolist()
        return super().fill(positions, pixels)


def test_nothing_before_the_place_of_resuming_is_read_again(mixed: ShardIndex) -> None:
    data = crop_data(mixed)
    data.__class__ = _Remembers
    data.asked = []  # type: ignore[attr-defined]
    first = next(iter(Loader(data, start=4800, stop=9600, batch=8, micro=8, workers=0)))
    assert first["position"].tolist() == data.asked[:8] == list(range(4800, 4808))  # type: ignore[attr-defined]
    assert min(data.asked) == 4800  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_samples_come_with_their_batches(opened: Callable[..., ShardIndex], workers: int) -> None:
    index = opened(Spec("one", samples=8))
    raw = bytearray(index.shards[0].read_bytes())
    for row in (1, 5):
        raw[int(index.column("image_offset")[row]) + 40] ^= 255
    index.shards[0].write_bytes(raw)
    batches = iter(Loader(crop_data(index, skip_damaged=True), start=0, stop=8, batch=4, micro=4, workers=workers))
    found = []
    for batch in batches:
        damaged = batches.take_damaged()
        assert {item.key for item in damaged} == {f"one_train_{row}" for row in batch["row"].tolist() if row in (1, 5)}
        found += damaged
    assert sorted(item.key for item in found) == ["one_train_1", "one_train_5"]
    batches.close()


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("keep", [1, 3])
def test_a_batch_stays_as_it_is_while_it_is_kept(mixed: ShardIndex, workers: int, keep: int) -> None:
    """Slots are used again, but never one of the last `keep` batches, and they are few, however long the run."""
    data = crop_data(mixed)
    kept: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
    places = set()
    batches = iter(Loader(data, start=0, stop=4 * 60, batch=4, micro=4, workers=workers, keep=keep))
    for batch in batches:
        time.sleep(0.002)  # workers run ahead as far as they may
        for older, pixels in kept:
            assert torch.equal(older["image"], pixels)
        kept = [*kept, (batch, batch["image"].clone())][-keep:]
        places.add(batch["image"].data_ptr())
    assert keep < len(places) <= 4 * workers + keep + 1 + workers
    batches.close()


class _Slow(CropData):
    """Takes a twentieth of a second more for each batch."""

    def fill(self, positions: np.ndarray, pixels: torch.Tensor) -> Facts:
        time.sleep(0.05)
        return super().fill(positions, pixels)


@pytest.mark.parametrize(("pause", "most_late"), [(0.0, True), (0.3, False)])
def test_late_batches_are_those_that_loading_is_too_slow_for(mixed: ShardIndex, pause: float, most_late: bool) -> None:
    data = crop_data(mixed)
    data.__class__ = _Slow
    batches = iter(Loader(data, start=0, stop=48, batch=4, micro=4, workers=1))
    assert batches.late() == 0
    for _ in range(9):
        next(batches)
        time.sleep(pause)
    assert batches.late() > 0.7 if most_late else batches.late() < 0.5
    batches.close()
