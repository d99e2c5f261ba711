"""From positions of a run to batches of crops.

Shapes: B batch, H W pixels. A batch is {image uint8 [B, 3, H, W], label uint8 [B, H, W], meaning int16 [B],
row int64 [B], position int64 [B]}: few, large tensors that stay integers until they reach the device.
"""

from __future__ import annotations

import io
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hodata.errors import HodataError, ShardError
from hodata.labels import Label, mirror_table
from hotrain.errors import TrainingError
from hotrain.input_rule import InputRule
from hotrain.order import Order, uniforms

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

Batch = dict[str, Tensor]
GEOMETRY = 0  # purpose of the random numbers drawn here, see `order.uniforms`
_BEYOND = 118  # grey outside of the image: about the mean that normalisation takes away


@dataclass(frozen=True)
class CropRule:
    """Random scale and place of a training crop.

    Args:
        size: pixels, both sides.
        scale: smallest and largest zoom, relative to the size that the input rule gives; log-uniform between them.
        flip: whether half of the crops are mirrored.
    """

    size: int
    scale: tuple[float, float] = (0.6, 1.7)
    flip: bool = True

    @classmethod
    def of_strength(cls, size: int, strength: float) -> CropRule:
        """The default zoom raised to a power: 0 leaves every image at the size that the input rule gives."""
        low, high = cls.scale
        return cls(size, (low**strength, high**strength))


@dataclass(frozen=True)
class Window:
    """What one crop takes from its image: the image is scaled to width x height, and the crop's corner lies at x, y.

    Both may be negative: what lies beyond the image is void.
    """

    width: int
    height: int
    x: int
    y: int
    mirrored: bool


class CropData(Dataset[Batch]):
    """Batches by positions: a list of positions in, a batch out. Holds no state but open files; pickles.

    Args:
        index: the shards.
        rows: source name -> its selected row numbers, in index order.
        order: of the run; its sources are the keys of `rows`.
        rule: how an image enters the network.
        crop: what is cut from it.
    """

    def __init__(
        self, index: ShardIndex, rows: Mapping[str, NDArray[np.int64]], order: Order, rule: InputRule, crop: CropRule
    ) -> None:
        self._reader = index.reader()
        self._rows = [rows[name] for name in order.sources]
        self._order, self._rule, self._crop = order, rule, crop
        self._kinds = index.column("image_kind")
        self._keys = index.column("key")
        self._meaning = meaning_numbers(index)
        self._mirror = mirror_table()

    def __getitem__(self, positions: NDArray[np.int64]) -> Batch:
        source, sample = self._order.locate(positions)
        rows = np.array([self._rows[s][i] for s, i in zip(source, sample, strict=True)], dtype=np.int64)
        size = self._crop.size
        image = np.empty((len(rows), 3, size, size), dtype=np.uint8)
        label = np.empty((len(rows), size, size), dtype=np.uint8)
        for n, (row, position) in enumerate(zip(rows.tolist(), positions.tolist(), strict=True)):
            image[n], label[n] = self._crop_of(row, position)
        return {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label),
            "meaning": torch.from_numpy(self._meaning[rows]),
            "row": torch.from_numpy(rows),
            "position": torch.from_numpy(positions.copy()),
        }

    def batch_bytes(self, samples: int) -> int:
        """Bytes of the large tensors of a batch."""
        return samples * 4 * self._crop.size**2

    def _crop_of(self, row: int, position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        mask = self._reader.mask(row)
        height, width = mask.shape
        window = draw_window(width, height, self._rule, self._crop, uniforms(self._order.seed, position, GEOMETRY, 4))
        least = (window.width, window.height)
        image = decode_image(self._reader.image(row), self._kinds[row], self._keys[row], least)
        pixels, label = cut(image, mask, window, self._crop.size)
        if window.mirrored:
            pixels, label = pixels[:, ::-1], self._mirror[label[:, ::-1]]
        return pixels.transpose(2, 0, 1), label


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
        self._steps = _Positions(start, stop, batch, micro, rank, world)
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
            pin_memory=torch.cuda.is_available(),
            **options,
        )
        return Batches(iter(loader))


class Batches:
    """A loader's batches, in order. Close it when done: workers ignore SIGTERM, and Python's exit waits for them."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        item = next(self._items)
        if isinstance(item, HodataError):
            self.close()
            raise item
        batch: Batch = item
        return batch

    def close(self) -> None:
        """Stop the workers: torch does so when its iterator's last reference goes."""
        self._items = iter(())


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


def meaning_numbers(index: ShardIndex) -> NDArray[np.int16]:
    """int16 [rows]: each row's meaning, as its place in the sorted names of `index.meanings`."""
    place = {name: number for number, name in enumerate(sorted(index.meanings))}
    return np.array([place[name] for name in index.column("meaning")], dtype=np.int16)


def decode_image(data: bytes, kind: str, key: str, least: tuple[int, int] = (0, 0)) -> NDArray[np.uint8]:
    """Decode an image file; EXIF is ignored.

    Args:
        data: the file.
        kind: `jpg` or `png`.
        key: names the sample in errors.
        least: (width, height) that is enough: a JPEG may come back at 1/2, 1/4 or 1/8 of its size if that is still
            no smaller, and is then decoded the fast way. (0, 0): full size, exact.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        ShardError: it cannot be decoded.
    """
    if kind == "jpg":
        import simplejpeg

        quick = least != (0, 0)
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                data,
                colorspace="RGB",
                fastdct=quick,
                fastupsample=quick,
                min_width=least[0],
                min_height=least[1],
                min_factor=2,
            )
            return pixels
        except ValueError:
            pass  # CMYK and other rarities: Pillow knows them
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises many kinds on hostile bytes
        raise ShardError(
            f"{key}: its image cannot be decoded ({error}), although its crc32 is right; the raw file was bad: "
            "build the shard again with --on-error skip"
        ) from error


def draw_window(width: int, height: int, rule: InputRule, crop: CropRule, numbers: NDArray[np.float64]) -> Window:
    """The window of one crop from four numbers in [0, 1): zoom, x, y, mirror."""
    low, high = (math.log(limit) for limit in crop.scale)
    zoom = math.exp(low + (high - low) * numbers[0])
    base_width, base_height = rule.network_size(width, height)
    scaled = max(round(base_width * zoom), 1), max(round(base_height * zoom), 1)
    x, y = (_corner(side, crop.size, number) for side, number in zip(scaled, numbers[1:3], strict=True))
    return Window(*scaled, x, y, bool(crop.flip and numbers[3] < 0.5))


def cut(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], window: Window, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scale and crop in one go: only the pixels that are kept are made.

    Args:
        image: uint8 [h, w, 3], of the mask's aspect; may be smaller than the mask.
        mask: uint8 [H, W].
        window: what to take; mirroring is left to the caller.
        size: of the crop.

    Returns:
        uint8 [size, size, 3], antialiased, and uint8 [size, size], nearest; beyond the image grey and void.
    """
    from PIL import Image

    left, top = max(window.x, 0), max(window.y, 0)
    right, bottom = min(window.x + size, window.width), min(window.y + size, window.height)
    inside = np.s_[top - window.y : bottom - window.y, left - window.x : right - window.x]
    pixels = np.full((size, size, 3), _BEYOND, dtype=np.uint8)
    label = np.full((size, size), Label.VOID, dtype=np.uint8)

    across, down = image.shape[1] / window.width, image.shape[0] / window.height
    box = (left * across, top * down, min(right * across, image.shape[1]), min(bottom * down, image.shape[0]))
    patch = Image.fromarray(image).resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=box)
    pixels[inside] = np.asarray(patch)

    # The centre of an output pixel, in whole numbers: floats would round at the borders of source pixels.
    columns = (2 * np.arange(left, right) + 1) * mask.shape[1] // (2 * window.width)
    rows = (2 * np.arange(top, bottom) + 1) * mask.shape[0] // (2 * window.height)
    label[inside] = mask[rows[:, None], columns[None, :]]
    return pixels, label


def _corner(side: int, size: int, number: float) -> int:
    """Where a crop begins along one side: inside the image, or around all of it where it is the smaller one."""
    return math.floor(number * (side - size + 1)) if side >= size else -math.floor(number * (size - side + 1))


@dataclass(frozen=True)
class _Positions:
    """Which positions each micro-batch of a rank holds."""

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


class _Guarded(Dataset[Any]):
    """Hands errors that a user can cure over as values: raised in a worker they would arrive as a traceback."""

    def __init__(self, data: CropData) -> None:
        self._data = data

    def __getitem__(self, positions: NDArray[np.int64]) -> Batch | HodataError:
        try:
            return self._data[positions]
        except HodataError as error:
            return error


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
