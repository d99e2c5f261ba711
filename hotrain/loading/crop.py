"""What a training crop takes from its image: drawn from four numbers, cut out of uint8 arrays.

Shapes: H W of an image, S side of a crop. Only the pixels that are kept are resized, and nothing here is a float.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hodata.labels import Label
from hotrain.input_rule import InputRule

_MOST_EVEN = 4.0  # no hand is enlarged or shrunk more than so much to match the others
BEYOND = 118  # grey outside of the image: about the mean that normalisation takes away


@dataclass(frozen=True)
class CropRule:
    """Random scale and place of a training crop.

    Args:
        size: pixels, both sides.
        scale: smallest and largest zoom, relative to the size that the input rule gives; log-uniform between them.
        flip: whether half of the crops are mirrored.
        aim: share of the crops that are laid over a hand, which then may lie anywhere in them; the others are laid
            anywhere.
        even: how far hands of all images are brought to one size, 0 to 1: the zoom is multiplied by
            (`hand_size` / size of this hand) ** even.
        hand_size: pixels at zoom 1, root of the area of the box: that of a typical hand.
    """

    size: int
    scale: tuple[float, float] = (0.6, 1.7)
    flip: bool = True
    aim: float = 0.0
    even: float = 0.0
    hand_size: float = 0.0

    @classmethod
    def of_strength(cls, size: int, strength: float, **others: Any) -> CropRule:
        """The default zoom raised to a power: 0 leaves every image at the size that the input rule gives."""
        low, high = cls.scale
        return cls(size, (low**strength, high**strength), **others)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "scale": list(self.scale)}


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


def draw_window(
    width: int,
    height: int,
    rule: InputRule,
    crop: CropRule,
    numbers: NDArray[np.float64],
    hands: NDArray[np.float32] | None = None,
) -> Window:
    """The window of one crop from six numbers in [0, 1): zoom, x, y, mirror, whether to aim at a hand, which hand.

    Args:
        width, height: of the image.
        rule: gives the size of the image at zoom 1.
        crop: limits of the zoom, the crop's size, and what hands have to do with both.
        numbers: float64 [6].
        hands: float32 [N, 4], left, top, right and bottom of each hand's box, pixels of the image.
    """
    low, high = (math.log(limit) for limit in crop.scale)
    zoom = math.exp(low + (high - low) * numbers[0])
    seen = rule.network_size(width, height)
    centre: tuple[float | None, float | None] = (None, None)
    if hands is not None and len(hands):
        left, top, right, bottom = (float(side) for side in hands[int(numbers[5] * len(hands))])
        across, down = (right - left + 1) / width, (bottom - top + 1) / height
        if crop.even:
            size = math.sqrt(across * seen[0] * down * seen[1])
            zoom *= min(max((crop.hand_size / size) ** crop.even, 1 / _MOST_EVEN), _MOST_EVEN)
        if numbers[4] < crop.aim:
            centre = (left / width + across / 2, top / height + down / 2)
    scaled = [max(round(side * zoom), 1) for side in seen]
    shrink = next((k for k in (8, 4, 2) if scaled[0] * k <= width and scaled[1] * k <= height), 1)
    columns, rows = (
        _along(side, zoomed, crop.size, _place(float(number), middle, zoomed, crop.size), shrink)
        for side, zoomed, number, middle in zip((width, height), scaled, numbers[1:3], centre, strict=True)
    )
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
    # The batch dimension first: added to channels that are last, its stride would hide from torch that they are.
    region = torch.from_numpy(image[top : top + down, left : left + across])[None].permute(0, 3, 1, 2)
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


def _place(number: float, middle: float | None, scaled: int, size: int) -> float:
    """The number in [0, 1) that makes `_along` put a point at a random place of the crop, as far as the image reaches.

    Args:
        number: in [0, 1): where in the crop.
        middle: the point, relative to the image's side; None: anywhere, the number itself.
        scaled: pixels of the image's side, zoomed.
        size: of the crop.
    """
    if middle is None or scaled <= size:  # all of the image is in the crop already
        return number
    corner = math.floor(middle * scaled - number * size)
    return (min(max(corner, 0), scaled - size) + 0.5) / (scaled - size + 1)


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
