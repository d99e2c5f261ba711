"""From positions of a run to batches of crops.

Shapes: B batch, S side of a crop. A batch is {image uint8 [B, 3, S, S], label uint8 [B, S, S], counts int64 [B, 256],
meaning int16 [B], row int64 [B], position int64 [B]}: few, large tensors that stay integers until they reach the
device. `counts` says how many pixels of a crop have each label: it must be known before the loss of a batch, and took
the process that feeds a GPU a third of its time. Images lie in memory as they were decoded, channels last, which is how
the networks compute.
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
from hotrain.input_rule import InputRule
from hotrain.loading.composite import BLOCK, CompositeRule, Compositor, Layer, block_of, look_up
from hotrain.loading.crop import BEYOND, CropRule, cut, draw_window
from hotrain.loading.damage import Damaged
from hotrain.loading.degrade import DegradeRule, degrade
from hotrain.loading.hand_boxes import HandBoxes
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
        counts: int64 [B, 256], pixels of each label.
        meaning, row, position: int16, int64, int64 [B].
        damaged: those that are empty because they could not be read.
    """

    size: int
    counts: NDArray[np.int64]
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
        composite: how often a crop is made of two.
        degrade: how often a crop is blurred, noisy or compressed.
        hands: where hands are, for a `crop` that is aimed at them or evens their sizes.
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
        composite: CompositeRule | None = None,
        degrade: DegradeRule | None = None,
        hands: HandBoxes | None = None,
        skip_damaged: bool = False,
    ) -> None:
        self._reader = index.reader()
        self._rows = [rows[name] for name in order.sources]
        self.order, self.rule, self.crop = order, rule, crop
        self._degrade = degrade or DegradeRule()
        self._compositor: Compositor | None = None
        if composite and composite != CompositeRule():
            meanings = [index.meanings[name] for name in index.meaning_names]
            self._compositor = Compositor(meanings, composite, order.seed)
        self._skip_damaged = skip_damaged
        self._hands = hands
        self._kinds, self._kind = coded(index, "image_kind")
        self._keys = index.arrow("key")
        self._meaning = meaning_numbers(index)
        self._mirror = mirror_table()

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
        rows = self._rows_at(positions)
        images, labels = (part.numpy() for part in _parts(pixels, len(rows), self.crop.size))
        damaged = [
            self._crop_or_empty(row, position, image, label)
            for row, position, image, label in zip(rows.tolist(), positions.tolist(), images, labels, strict=True)
        ]
        if self._compositor:
            self._compose(self._compositor, positions, images, labels)
        for image, position in zip(images, positions.tolist(), strict=True):
            degrade(image, self.order.seed, position, self._degrade)
        return Facts(
            self.crop.size,
            np.stack([count_labels(label) for label in labels]),
            self._meaning[rows],
            rows,
            positions.copy(),
            [one for one in damaged if one],
        )

    def batch_bytes(self, samples: int) -> int:
        """Bytes of the pixels of a batch."""
        return samples * 4 * self.crop.size**2

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
        data = self._reader.image(row)  # it lies before the mask: read forward, as disks and networks read ahead
        mask = read_mask(self._reader, row, key)
        height, width = mask.shape
        numbers = uniforms(self.order.seed, position, GEOMETRY, 6)
        hands = self._hands.of(row) if self._hands else None
        window = draw_window(width, height, self.rule, self.crop, numbers, hands)
        image = decode_image(data, kind, key, (width, height), window.shrink)
        cut(image, mask, window, pixels, label)
        if window.mirrored:
            label[:] = look_up(self._mirror, label)

    def _compose(
        self,
        compositor: Compositor,
        positions: NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.uint8],
    ) -> None:
        """Make composites of a batch's crops, in place; donors that are not in it are read."""
        here = positions.tolist()
        around = (np.unique(positions // BLOCK)[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        row_at = dict(zip(around.tolist(), self._rows_at(around).tolist(), strict=True))
        crops = {
            position: Layer(image, label, int(self._meaning[row_at[position]]))
            for position, image, label in zip(here, images, labels, strict=True)
        }
        plans = [compositor.plan(p, self._meaning[[row_at[other] for other in block_of(p)]]) for p in here]
        for donor in {plan.donor for plan in plans if plan} - crops.keys():
            layer = Layer(np.empty_like(images[0]), np.empty_like(labels[0]), int(self._meaning[row_at[donor]]))
            self._crop_or_empty(row_at[donor], donor, layer.image, layer.label)
            crops[donor] = layer
        # All are made before any is written: a donor lends its crop as it was cut.
        made = [
            compositor.make(plan, crops[position], crops[plan.donor]) if plan else None
            for position, plan in zip(here, plans, strict=True)
        ]
        for n, composite in enumerate(made):
            if composite:
                images[n], labels[n] = composite.image, composite.label

    def _crop_or_empty(
        self, row: int, position: int, pixels: NDArray[np.uint8], label: NDArray[np.uint8]
    ) -> Damaged | None:
        """`write_crop`; where damage is skipped, an empty crop and what is wrong."""
        try:
            self.write_crop(row, position, pixels, label)
        except ShardError as error:
            if not self._skip_damaged:
                raise
            pixels[:], label[:] = BEYOND, Label.VOID
            return Damaged(self._key(row), str(error))
        return None

    def _rows_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N]: the rows that stand at some positions of the run."""
        source, sample = self.order.locate(positions)
        return np.array([self._rows[s][i] for s, i in zip(source, sample, strict=True)], dtype=np.int64)

    def _key(self, row: int) -> str:
        return str(self._keys[row].as_py())


def batch_of(pixels: Tensor, facts: Facts) -> Batch:
    """The batch whose pixels `CropData.fill` has written; image and label are views of them."""
    images, labels = _parts(pixels, len(facts.row), facts.size)
    numbers = {"counts": facts.counts, "meaning": facts.meaning, "row": facts.row, "position": facts.position}
    tensors = {name: torch.from_numpy(values) for name, values in numbers.items()}
    return {"image": images.permute(0, 3, 1, 2), "label": labels, **tensors}


def count_labels(label: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 [256]: how many pixels of uint8 [H, W] have each value. Pillow takes half of NumPy's time."""
    from PIL import Image

    return np.array(Image.fromarray(label).histogram(), dtype=np.int64)


def meaning_numbers(index: ShardIndex) -> NDArray[np.int16]:
    """int16 [rows]: each row's meaning, as its place in `index.meaning_names`."""
    place = {name: number for number, name in enumerate(index.meaning_names)}
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
