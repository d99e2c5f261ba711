"""What a training crop takes from its image: drawn from four numbers, cut out of uint8 arrays.

Shapes: H W of an image, S side of a crop. Only the pixels that are kept are resized, and nothing here is a float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hodata.labels import Label
from hotrain.input_rule import InputRule

BEYOND = 118  # grey outside of the image: about the mean that normalisation takes away


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


class Box(NamedTuple):
    """A region in whole pixels: corner and size."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Window:
    """The region of an image that a crop shows, and where.

    Args:
        taken: of the image, inside of it; corner and size are multiples of `shrink`.
        shown: where in the crop; what lies around it is beyond the image: grey and void.
        shrink: 1, 2, 4 or 8: so much smaller the image may be decoded and is still not enlarged.
        mirrored: left and right change places.
    """

    taken: Box
    shown: Box
    shrink: int
    mirrored: bool


def draw_window(width: int, height: int, rule: InputRule, crop: CropRule, numbers: NDArray[np.float64]) -> Window:
    """The window of one crop from four numbers in [0, 1): zoom, x, y, mirror.

    Args:
        width, height: of the image.
        rule: gives the size of the image at zoom 1.
        crop: limits of the zoom, and the crop's size.
        numbers: float64 [4].
    """
    low, high = (math.log(limit) for limit in crop.scale)
    zoom = math.exp(low + (high - low) * numbers[0])
    scaled = [max(round(side * zoom), 1) for side in rule.network_size(width, height)]
    shrink = next((k for k in (8, 4, 2) if scaled[0] * k <= width and scaled[1] * k <= height), 1)
    columns = _along(width, scaled[0], crop.size, float(numbers[1]), shrink)
    rows = _along(height, scaled[1], crop.size, float(numbers[2]), shrink)
    taken, shown = (Box(x, y, across, down) for (x, across), (y, down) in zip(columns, rows, strict=True))
    return Window(taken, shown, shrink, bool(crop.flip and numbers[3] < 0.5))


def cut(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    window: Window,
    pixels: NDArray[np.uint8],
    label: NDArray[np.uint8],
) -> None:
    """Write one crop into a batch, mirrored where the window says so; the sides of labels are left to the caller.

    Args:
        image: uint8 [H, W, 3], or smaller by `window.shrink`, parts of a pixel rounded up.
        mask: uint8 [H, W].
        window: what to take.
        pixels: uint8 [S, S, 3], written: antialiased, grey beyond the image.
        label: uint8 [S, S], written: the nearest pixel of the mask, void beyond the image.
    """
    taken, shown = window.taken, window.shown
    shrink = 1 if image.shape[:2] == mask.shape else window.shrink
    left, top, across, down = (side // shrink for side in taken)
    if shown.width < label.shape[1] or shown.height < label.shape[0]:
        pixels[:] = BEYOND
        label[:] = Label.VOID
    region = torch.from_numpy(image[top : top + down, left : left + across]).permute(2, 0, 1)[None]
    if region.shape[2:] != (shown.height, shown.width):
        # torch's kernel for bytes in this layout takes a fifth of Pillow's time; it wants them without gaps.
        region = region.contiguous(memory_format=torch.channels_last)
        region = functional.interpolate(region, (shown.height, shown.width), mode="bilinear", antialias=True)

    # The centre of a shown pixel, in whole numbers: floats would round at the borders of source pixels.
    columns = taken.x + (2 * np.arange(shown.width) + 1) * taken.width // (2 * shown.width)
    rows = taken.y + (2 * np.arange(shown.height) + 1) * taken.height // (2 * shown.height)
    x = shown.x
    if window.mirrored:
        region, columns, x = region.flip(3), columns[::-1], label.shape[1] - shown.x - shown.width
    inside = np.s_[shown.y : shown.y + shown.height, x : x + shown.width]
    pixels[inside] = region[0].permute(1, 2, 0).numpy()
    label[inside] = mask.take(rows, 0).take(columns, 1)


def _along(side: int, scaled: int, size: int, number: float, shrink: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Along one side of an image: (start, length) of what is taken of it, and of where the crop shows it.

    Args:
        side: of the image, pixels.
        scaled: the same after zooming.
        size: of the crop.
        number: in [0, 1): the place, inside the image, or around all of it where the crop is the larger one.
        shrink: grid on which the taken region lies.
    """
    corner = math.floor(number * (scaled - size + 1)) if scaled >= size else -math.floor(number * (size - scaled + 1))
    start, stop = max(corner, 0), min(corner + size, scaled)
    cells = side // shrink
    # To the nearest line of the grid, in whole numbers.
    first = min((2 * start * side + scaled * shrink) // (2 * scaled * shrink), cells - 1)
    last = max(min((2 * stop * side + scaled * shrink) // (2 * scaled * shrink), cells), first + 1)
    return (first * shrink, (last - first) * shrink), (start - corner, stop - start)
