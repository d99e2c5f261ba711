"""The batches of one rank, in order, made by loading processes that live as long as the run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from hodata.errors import HodataError
from hotrain.damage import Damaged
from hotrain.data import Batch, CropData, Packed
from hotrain.errors import TrainingError


class Loader:
    """The micro-batches of one rank, from one position of the run to another, in order.

    Worker processes start once and live as long as the run; they leave SIGTERM and SIGINT to the run, which stops
    them after its last step.

    Args:
        data: makes a batch of positions.
        start, stop: positions of the run; both divide by `batch`.
        batch: positions of one optimizer step, over all ranks and accumulation steps.
        micro: positions of one batch of this rank.
        rank, world: this process and their number; world * accumulation * micro = batch.
        workers: processes; 0 loads in this one.
    """

    def __init__(
        self,
        data: CropData,
        *,
        start: int,
        stop: int,
        batch: int,
        micro: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
    ) -> None:
        if batch % (micro * world) or start % batch or stop % batch:
            raise TrainingError(
                f"positions {start}..{stop} in steps of {batch} cannot be cut into micro-batches of {micro} on "
                f"{world} ranks"
            )
        self._steps = Positions(start, stop, batch, micro, rank, world)
        self._data = data
        self._workers = workers

    def __iter__(self) -> Batches:
        """Start the workers, and give their batches."""
        options: dict[str, Any] = {}
        if self._workers:
            options = {
                # Forked workers share the index's memory.
                "multiprocessing_context": "fork" if sys.platform == "linux" else None,
                "worker_init_fn": _start_worker,
                "prefetch_factor": prefetch_factor(self._data.batch_bytes(self._steps.micro), self._workers),
            }
        loader = DataLoader(
            _Guarded(self._data),
            batch_size=None,
            sampler=self._steps,
            num_workers=self._workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
        return Batches(iter(loader))


class Batches:
    """A loader's batches, in order. Close it when done: workers ignore SIGTERM, and Python's exit waits for them."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._damaged: list[Damaged] = []

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        item = next(self._items)
        if isinstance(item, HodataError):
            self.close()
            raise item
        assert isinstance(item, Packed)
        self._damaged += item.damaged
        return item.batch()

    def take_damaged(self) -> list[Damaged]:
        """The samples that could not be read, of the batches since the last call."""
        damaged, self._damaged = self._damaged, []
        return damaged

    def close(self) -> None:
        """Stop the workers: torch does so when its iterator's last reference goes."""
        self._items = iter(())


@dataclass(frozen=True)
class Positions:
    """Which positions each micro-batch of a rank holds; arguments as of `Loader`."""

    start: int
    stop: int
    batch: int
    micro: int
    rank: int
    world: int

    def __len__(self) -> int:
        return (self.stop - self.start) // (self.micro * self.world)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        share = self.batch // self.world
        for step in range(self.start, self.stop, self.batch):
            first = step + self.rank * share
            for begin in range(first, first + share, self.micro):
                yield np.arange(begin, begin + self.micro, dtype=np.int64)


def prefetch_factor(batch_bytes: int, workers: int, memory: Path = Path("/dev/shm")) -> int:
    """How many batches each worker may have ready, at most 4: they wait in shared memory, whose overflow kills.

    Raises:
        TrainingError: there is no room for one each, as in a container with Docker's default of 64 MB.
    """
    if not memory.is_dir():
        return 4
    room = os.statvfs(memory)
    free = room.f_bavail * room.f_frsize
    factor = min(free // (2 * batch_bytes * workers), 4)
    if factor < 1:
        raise TrainingError(
            f"{memory} has {free / 1e6:.0f} MB free; {workers} loading processes with batches of "
            f"{batch_bytes / 1e6:.0f} MB need {2e-6 * batch_bytes * workers:.0f} MB. Start the container with a larger "
            "--shm-size, or use fewer --workers or a smaller --batch-size or --crop"
        )
    return int(factor)


class _Guarded(Dataset[Any]):
    """Hands errors that a user can cure over as values: raised in a worker they would arrive as a traceback."""

    def __init__(self, data: CropData) -> None:
        self._data = data

    def __getitem__(self, positions: NDArray[np.int64]) -> Packed | HodataError:
        try:
            return self._data[positions]
        except HodataError as error:
            return error


def _as_it_is(item: Any) -> Any:
    return item


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
