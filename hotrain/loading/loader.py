"""The batches of one rank, in order, made by loading processes that live as long as the run.

Pixels do not travel. They are written into slots of shared memory that are made once and used in turn: new shared
memory for every batch costs more than a tenth of all loading, since the system clears each page of it first.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hodata.errors import HodataError
from hotrain.errors import LOADING_DIED, TrainingError
from hotrain.loading.damage import Damaged
from hotrain.loading.data import Batch, CropData, Facts, batch_of

_LATE = 0.01  # seconds; one that is there is handed over in less


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
        keep: how many of the last batches must stay as they are while the next one is asked for; older ones are
            overwritten. None: batches are copies, and stay.
        pin: copy batches into memory that a GPU reads on its own; they stay.
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
        keep: int | None = None,
        pin: bool = False,
    ) -> None:
        if batch % (micro * world) or start % batch or stop % batch:
            raise TrainingError(
                f"positions {start}..{stop} in steps of {batch} cannot be cut into micro-batches of {micro} on "
                f"{world} ranks"
            )
        self._positions = Positions(start, stop, batch, micro, rank, world)
        self._data = data
        self._workers = workers
        self._keep, self._pin = keep, pin

    def __iter__(self) -> Batches:
        """Start the workers, and give their batches."""
        bytes_each = self._data.batch_bytes(self._positions.micro)
        options: dict[str, Any] = {}
        ahead, held = 0, (self._keep or 0) + 1
        if self._workers:
            ranks = max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 2)  # another run may be there too
            factor = prefetch_factor(bytes_each, self._workers, held, ranks)
            ahead = factor * self._workers
            options = {
                # Forked workers share the index's memory.
                "multiprocessing_context": "fork" if sys.platform == "linux" else None,
                "worker_init_fn": _start_worker,
                "prefetch_factor": factor,
            }
        # While one batch is asked for, so many are on their way, and `keep` are in use. As many for each worker: then
        # a slot is always filled by the same one, and is in its memory already.
        count = -(-(ahead + held) // max(self._workers, 1)) * max(self._workers, 1)
        slots = Slots(count, bytes_each)
        loader = DataLoader(
            _Fill(self._data, slots),
            batch_size=None,
            sampler=_InSlots(self._positions, count),
            num_workers=self._workers,
            collate_fn=_as_it_is,
            pin_memory=self._pin,
            **options,
        )
        return Batches(iter(loader), slots, copy=self._keep is None)


class Batches:
    """A loader's batches, in order. Close it when done: workers ignore SIGTERM, and Python's exit waits for them."""

    def __init__(self, items: Iterator[Any], slots: Slots, copy: bool) -> None:
        self._items = items
        self._slots = slots  # the items name it
        self._copy = copy
        self._damaged: list[Damaged] = []
        self._asked = self._late = 0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        asked = time.monotonic()
        item = self._next()
        self._asked += 1
        self._late += self._asked > 1 and time.monotonic() - asked > _LATE
        if isinstance(item, HodataError):
            self.close()
            raise item
        pixels = item.pixels if isinstance(item, _Pinned) else item.shared()
        if self._copy and not isinstance(item, _Pinned):
            pixels = pixels.clone()
        self._damaged += item.facts.damaged
        return batch_of(pixels, item.facts)

    def _next(self) -> Any:
        """The next item; raises TrainingError, with its traceback in words, where a loading process failed or died.

        The error itself would keep torch's iterator alive by its frames, and with it the other workers, which Python's
        exit then waits for without end.
        """
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            failed = "".join(traceback.format_exception(error)).rstrip()
            traceback.clear_frames(error.__traceback__)  # of those some hold the error, which holds them
        self.close()
        raise TrainingError(f"a loading process failed; {LOADING_DIED}\n{failed}")

    def take_damaged(self) -> list[Damaged]:
        """The samples that could not be read, of the batches since the last call."""
        damaged, self._damaged = self._damaged, []
        return damaged

    def late(self) -> float:
        """Share of the batches after the first one that were not there when they were asked for.

        A share of the time would mislead: whoever trains on a GPU asks early, and waits while it computes.
        """
        return self._late / max(self._asked - 1, 1)

    def close(self) -> None:
        """Stop the workers: torch does so when its iterator's last reference goes."""
        self._items = iter(())


class Slots:
    """Shared memory for some batches.

    Args:
        count: how many.
        bytes_each: of one.
    """

    _made: ClassVar[WeakValueDictionary[int, Slots]] = WeakValueDictionary()
    _numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, count: int, bytes_each: int) -> None:
        # As torch's own default_collate makes shared memory; pages are taken when they are first written.
        memory = torch.UntypedStorage._new_shared(count * bytes_each)
        self.pixels = torch.empty(0, dtype=torch.uint8).set_(memory).view(count, bytes_each)
        self.number = next(self._numbers)
        self._made[self.number] = self

    @classmethod
    def find(cls, number: int) -> Slots:
        """The slots that this process made under a number."""
        return cls._made[number]


@dataclass(frozen=True)
class _Filled:
    """What a worker sends: which slot it has filled, and with what."""

    slots: int
    slot: int
    facts: Facts

    def shared(self) -> Tensor:
        return Slots.find(self.slots).pixels[self.slot]

    def pin_memory(self) -> _Pinned:
        """Called by a thread of torch's DataLoader where there is a GPU."""
        return _Pinned(self.shared().pin_memory(), self.facts)


@dataclass(frozen=True)
class _Pinned:
    """A batch copied into memory that a GPU reads on its own."""

    pixels: Tensor
    facts: Facts


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


def prefetch_factor(batch_bytes: int, workers: int, held: int, ranks: int, memory: Path = Path("/dev/shm")) -> int:
    """How many batches each worker may have ready, at most 4: they wait in shared memory, whose overflow kills.

    Args:
        batch_bytes: of one.
        workers: processes of this rank.
        held: batches that are in use meanwhile.
        ranks: so many want as much each.

    Raises:
        TrainingError: there is no room for one each, as in a container with Docker's default of 64 MB.
    """
    if not memory.is_dir():
        return 4
    room = os.statvfs(memory)
    free = room.f_bavail * room.f_frsize
    in_use = -(-held // workers)  # of each worker: slots are dealt out evenly
    factor = min(free // (ranks * batch_bytes) // workers - in_use, 4)
    if factor < 1:
        raise TrainingError(
            f"{memory} has {free / 1e6:.0f} MB free; {workers} loading processes for each of {ranks} GPUs, or "
            f"runs, with batches of {batch_bytes / 1e6:.0f} MB, need "
            f"{ranks * batch_bytes * workers * (1 + in_use) / 1e6:.0f} MB. Start the container with a larger "
            "--shm-size, or use fewer --workers or a smaller --batch-size or --crop"
        )
    return int(factor)


class _InSlots:
    """Sampler: slots in turn, and the positions that belong into them."""

    def __init__(self, positions: Positions, count: int) -> None:
        self._positions, self._count = positions, count

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        return ((number % self._count, positions) for number, positions in enumerate(self._positions))


class _Fill(Dataset[Any]):
    """Writes batches into slots. Hands errors that a user can cure over as values: raised in a worker they would arrive
    as a traceback."""

    def __init__(self, data: CropData, slots: Slots) -> None:
        self._data, self._pixels, self._slots = data, slots.pixels, slots.number

    def __getitem__(self, item: tuple[int, NDArray[np.int64]]) -> _Filled | HodataError:
        slot, positions = item
        try:
            return _Filled(self._slots, slot, self._data.fill(positions, self._pixels[slot]))
        except HodataError as error:
            return error


def _as_it_is(item: Any) -> Any:
    return item


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
