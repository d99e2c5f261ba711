"""From positions of a run to batches of crops.

Shapes: B batch, S side of a crop. A batch is {image uint8 [B, 3, S, S], label uint8 [B, S, S], meaning int16 [B],
row int64 [B], position int64 [B]}: few, large tensors that stay integers until they reach the device. Images lie in
memory as they were decoded, channels last, which is how the networks compute.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hodata.errors import ShardError
from hodata.labels import Label, mirror_table
from hotrain.columns import coded
from hotrain.crop import BEYOND, CropRule, cut, draw_window
from hotrain.damage import Damaged
from hotrain.hand_boxes import HandBoxes
from hotrain.input_rule import InputRule
from hotrain.order import Order, uniforms

if TYPE_CHECKING:
    from hodata.shards.reader import SampleReader, ShardIndex

Batch = dict[str, Tensor]
GEOMETRY = 0  # purpose of the random numbers drawn here, see `order.uniforms`


@dataclass(frozen=True)
class Facts:
    """What is known of the samples of a batch besides their pixels.

    Args:
        size: S.
        meaning, row, position: int16, int64, int64 [B].
        damaged: those that are empty because they could not be read.
    """

    size: int
    meaning: NDArray[np.int16]
    row: NDArray[np.int64]
    position: NDArray[np.int64]
    damaged: list[Damaged] = field(default_factory=list)


class CropData(Dataset[Batch]):
    """Batches by positions: a list of positions in, a batch out. Holds no state but open files; pickles.

    Args:
        index: the shards.
        rows: source name -> its selected row numbers, in index order.
        order: of the run; its sources are the keys of `rows`.
        rule: how an image enters the network.
        crop: what is cut from it.
        skip_damaged: a sample that cannot be read becomes an empty one, and is named in the batch; else it raises.
    """

    def __init__(
        self,
        index: ShardIndex,
        rows: Mapping[str, NDArray[np.int64]],
        order: Order,
        rule: InputRule,
        crop: CropRule,
        *,
        skip_damaged: bool = False,
    ) -> None:
        self._reader = index.reader()
        self._rows = [rows[name] for name in order.sources]
        self._order, self._rule, self._crop = order, rule, crop
        self._skip_damaged = skip_damaged
        self._hands = HandBoxes(index) if crop.aim or crop.even else None
        self._kinds, self._kind = coded(index, "image_kind")
        self._keys = index.table.column("key")
        self._meaning = meaning_numbers(index)
        self._mirror = mirror_table().tobytes()  # bytes.translate takes half the time of NumPy's indexing

    def __getitem__(self, positions: NDArray[np.int64]) -> Batch:
        pixels = torch.empty(self.batch_bytes(len(positions)), dtype=torch.uint8)
        return batch_of(pixels, self.fill(positions, pixels))

    def fill(self, positions: NDArray[np.int64], pixels: Tensor) -> Facts:
        """Write a batch.

        Args:
            positions: int64 [B] of the run.
            pixels: uint8 [B * S * S * 4], written: all images [B, S, S, 3], then all labels [B, S, S].

        Raises:
            ShardError: a sample is damaged and `skip_damaged` is not set.
        """
        source, sample = self._order.locate(positions)
        rows = np.array([self._rows[s][i] for s, i in zip(source, sample, strict=True)], dtype=np.int64)
        facts = Facts(self._crop.size, self._meaning[rows], rows, positions.copy())
        images, labels = (part.numpy() for part in _parts(pixels, len(rows), self._crop.size))
        for n, (row, position) in enumerate(zip(rows.tolist(), positions.tolist(), strict=True)):
            try:
                self.write_crop(row, position, images[n], labels[n])
            except ShardError as error:
                if not self._skip_damaged:
                    raise
                images[n], labels[n] = BEYOND, Label.VOID
                facts.damaged.append(Damaged(self._key(row), str(error)))
        return facts

    def batch_bytes(self, samples: int) -> int:
        """Bytes of the pixels of a batch."""
        return samples * 4 * self._crop.size**2

    def write_crop(self, row: int, position: int, pixels: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        """Read one row and write its crop for one position into a batch.

        Args:
            row, position: which sample, and whose random numbers.
            pixels: uint8 [S, S, 3], written.
            label: uint8 [S, S], written.

        Raises:
            ShardError: its bytes are damaged; the message names shard, key and offset.
        """
        key, kind = self._key(row), self._kinds[self._kind[row]]
        mask = read_mask(self._reader, row, key)
        height, width = mask.shape
        numbers = uniforms(self._order.seed, position, GEOMETRY, 6)
        hands = self._hands.of(row) if self._hands else None
        window = draw_window(width, height, self._rule, self._crop, numbers, hands)
        image = decode_image(self._reader.image(row), kind, key, (width, height), window.shrink)
        cut(image, mask, window, pixels, label)
        if window.mirrored:
            label[:] = np.frombuffer(label.tobytes().translate(self._mirror), np.uint8).reshape(label.shape)

    def _key(self, row: int) -> str:
        return str(self._keys[row].as_py())


def batch_of(pixels: Tensor, facts: Facts) -> Batch:
    """The batch whose pixels `CropData.fill` has written; image and label are views of them."""
    images, labels = _parts(pixels, len(facts.row), facts.size)
    numbers = {"meaning": facts.meaning, "row": facts.row, "position": facts.position}
    tensors = {name: torch.from_numpy(values) for name, values in numbers.items()}
    return {"image": images.permute(0, 3, 1, 2), "label": labels, **tensors}


def meaning_numbers(index: ShardIndex) -> NDArray[np.int16]:
    """int16 [rows]: each row's meaning, as its place in the sorted names of `index.meanings`."""
    place = {name: number for number, name in enumerate(sorted(index.meanings))}
    names, codes = coded(index, "meaning")
    return np.array([place[name] for name in names], dtype=np.int16)[codes]


def read_mask(reader: SampleReader, row: int, key: str) -> NDArray[np.uint8]:
    """The label map uint8 [H, W] of a row; raises ShardError, naming the sample, where it is none."""
    try:
        return reader.mask(row)
    except (ValueError, OSError, SyntaxError) as error:  # Pillow's kinds
        raise ShardError(f"{key}: its mask cannot be decoded ({error}); build the shard again") from error


def decode_image(
    data: bytes, kind: str, key: str, size: tuple[int, int] | None = None, shrink: int = 1
) -> NDArray[np.uint8]:
    """Decode an image file; EXIF is ignored.

    Args:
        data: the file.
        kind: `jpg` or `png`.
        key: names the sample in errors.
        size: (width, height) that it must have; None: any.
        shrink: 2, 4 or 8: a JPEG comes back at that part of its size, parts of a pixel rounded up. Given a size, a
            JPEG is decoded the fast way, which is off by a grey level or two.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        ShardError: it cannot be decoded, or has another size.
    """
    if kind == "jpg":
        import simplejpeg

        try:
            if size is not None:
                height, width = simplejpeg.decode_jpeg_header(data)[:2]  # before memory is taken for its pixels
                _require_size((width, height), size, key)
            least = (0, 0) if size is None or shrink == 1 else (-(-size[0] // shrink), -(-size[1] // shrink))
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                data,
                colorspace="RGB",
                fastdct=size is not None,
                fastupsample=size is not None,
                min_width=least[0],
                min_height=least[1],
                min_factor=2,  # other fractions have no fast transform
            )
            return pixels
        except ValueError:
            pass  # CMYK and other rarities: Pillow knows them
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if size is not None:
                _require_size(image.size, size, key)
            return np.array(image.convert("RGB"))
    except ShardError:
        raise
    except Exception as error:  # Pillow raises many kinds on hostile bytes
        raise ShardError(
            f"{key}: its image cannot be decoded ({error}), although its crc32 is right; the raw file was bad: "
            "build the shard again with --on-error skip"
        ) from error


def _require_size(found: tuple[int, int], expected: tuple[int, int], key: str) -> None:
    if found != expected:
        raise ShardError(
            f"{key}: its image is {found[0]} x {found[1]}, its mask {expected[0]} x {expected[1]} (width x height); "
            "build the shard again"
        )


def _parts(pixels: Tensor, samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Images uint8 [B, S, S, 3] and labels uint8 [B, S, S]: views."""
    border = samples * size * size * 3
    return pixels[:border].view(samples, size, size, 3), pixels[border:].view(samples, size, size)
