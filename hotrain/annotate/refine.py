"""A closer look at small hands: a crop round each, seen by the network at the scale it was trained on, pasted back.

A network that sees a 1920x1080 frame at 480 pixels sees a hand of 150 pixels at 67, and answers at a sixteenth of that.

Shapes: K classes, h w the network's pixels, H W the image's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Task
from hotrain.annotate.components import components
from hotrain.annotate.loading import Loaded
from hotrain.decide import decide
from hotrain.network import Network

SMALL = 96  # pixels of a hand's longer side, as the network sees it, below which `auto` looks again
_CONTEXT = 3.0  # side of a crop, in sides of the hand's box: a hand filled about a third of a training crop
_RIM = 0.1  # share of a crop's side along its edge that is not pasted: there the network saw too little around
_GAIN = 1.3  # a crop that enlarges less shows nothing new
_STEP = 4  # the coarse answer is smooth; every fourth pixel finds its parts
_LEAST = 3  # coarse cells below which a part is noise
_MOST = 4  # crops of one frame


@dataclass(frozen=True)
class Patch:
    """A crop's answer: its box (left, top, right, bottom) in the image, the part of it to paste, logits [K, s, s]."""

    box: tuple[int, int, int, int]
    inner: tuple[int, int, int, int]
    logits: NDArray[np.float32]


def patches_of(
    network: Network,
    loaded: Sequence[Loaded],
    logits: NDArray[np.float32],
    fold: NDArray[np.uint8],
    refine: str,
) -> list[list[Patch]]:
    """The crops of some frames, seen by the network together.

    Args:
        network: the model.
        loaded: frames of one size.
        logits: float32 [B, K, h, w], the coarse answer.
        fold: uint8 [K], class -> public class.
        refine: `auto`: hands under `SMALL` pixels; `crop`: every hand; `none`.

    Returns:
        for each frame its patches.
    """
    if refine == "none":
        return [[] for _ in loaded]
    limit = SMALL if refine == "auto" else float("inf")
    hand = hand_classes(network.task)
    # By the likeliest of all classes, although `decide` adds them up first: that finds more hands to look at.
    boxes = [
        crop_boxes(hand[fold[coarse[:, ::_STEP, ::_STEP].argmax(0)]], part.size, network.rule.size, limit)
        for part, coarse in zip(loaded, logits, strict=True)
    ]
    side = network.rule.size
    crops = []
    for part, own in zip(loaded, boxes, strict=True):
        image = part.image() if own else None
        crops += [_crop(image, box, side) for box in own if image is not None]
    found: list[NDArray[np.float32]] = []
    for start in range(0, len(crops), max(len(loaded), 1)):  # no more at a time than frames
        found += list(network.logits(crops[start : start + len(loaded)]))
    answers = iter(found)
    return [
        [Patch(box, _inner(box, part.size), next(answers)) for box in own]
        for part, own in zip(loaded, boxes, strict=True)
    ]


def hand_classes(task: Task) -> NDArray[np.bool_]:
    """bool [P]: which public classes are hands."""
    return np.array([task.kind_of(c) == "hand" for c in range(task.public)])


def crop_boxes(
    coarse: NDArray[np.bool_], size: tuple[int, int], side: int, limit: float
) -> list[tuple[int, int, int, int]]:
    """Squares round hands that a closer look may help.

    Args:
        coarse: bool [h, w], hand, at any resolution.
        size: (width, height) of the image.
        side: pixels at which the network sees a crop, and the shorter side of the image.
        limit: hands whose longer side is smaller than this, as the network sees them.

    Returns:
        (left, top, right, bottom) within the image, the largest hand first; a hand inside an earlier square has none.
    """
    parts = components(coarse)
    width, height = size
    scale_x, scale_y = width / coarse.shape[1], height / coarse.shape[0]
    seen = side / min(width, height)  # network pixels for a pixel of the image
    boxes: list[tuple[int, int, int, int]] = []
    for number in np.argsort(-parts.areas, kind="stable") + 1:
        if parts.areas[number - 1] < _LEAST or len(boxes) == _MOST:
            break
        rows, columns = np.nonzero(parts.parts == number)
        top, bottom = (rows.min() + parts.origin[0]) * scale_y, (rows.max() + 1 + parts.origin[0]) * scale_y
        left, right = (columns.min() + parts.origin[1]) * scale_x, (columns.max() + 1 + parts.origin[1]) * scale_x
        longer = max(bottom - top, right - left)
        square = min(max(round(longer * _CONTEXT), 32), width, height)
        if longer * seen >= limit or side / square < seen * _GAIN:
            continue
        x = round(min(max((left + right - square) / 2, 0), width - square))
        y = round(min(max((top + bottom - square) / 2, 0), height - square))
        middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
        if not any(a <= middle_x < c and b <= middle_y < d for a, b, c, d in boxes):
            boxes.append((x, y, x + square, y + square))
    return boxes


def paste(
    classes: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
    patches: Sequence[Patch],
    fold: NDArray[np.uint8],
    hand: NDArray[np.bool_],
    temperature: float,
) -> None:
    """Replace what the patches saw better, in place. The largest hand wins.

    Only pixels that either look calls hand are replaced: of an object that is larger than the crop, the crop knows
    less than the coarse pass, and its edge would show.

    Args:
        classes, confidence: uint8 [H, W].
        patches: of this image.
        fold: uint8 [K], class -> public class.
        hand: bool [P], which public classes are hands.
        temperature: see `decide`.
    """
    for patch in reversed(patches):
        left, top, right, bottom = patch.box
        own, sure = decide(patch.logits, (right - left, bottom - top), fold, temperature)
        x, y, x_end, y_end = patch.inner
        area = (slice(y - top, y_end - top), slice(x - left, x_end - left))
        better = hand[own[area]] | hand[classes[y:y_end, x:x_end]]
        classes[y:y_end, x:x_end][better] = own[area][better]
        confidence[y:y_end, x:x_end][better] = sure[area][better]


def _inner(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box without its rim; where it ends with the image it has none."""
    left, top, right, bottom = box
    rim = round((right - left) * _RIM)
    return (
        left + rim if left > 0 else left,
        top + rim if top > 0 else top,
        right - rim if right < size[0] else right,
        bottom - rim if bottom < size[1] else bottom,
    )


def _crop(image: NDArray[np.uint8], box: tuple[int, int, int, int], side: int) -> NDArray[np.uint8]:
    """uint8 [side, side, 3]: a square of the image at the network's size."""
    from PIL import Image

    left, top, right, bottom = box
    cut = np.ascontiguousarray(image[top:bottom, left:right])
    return np.asarray(Image.fromarray(cut).resize((side, side), Image.Resampling.BILINEAR))
