"""Connected parts of a mask, and those of them that a bounding box can trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EIGHT = np.ones((3, 3), dtype=bool)
_REACH = 3  # pixels between a hand and an object that still count as touching: outlines are no more exact
_LEAST = 1e-4  # share of the image below which a part is not worth counting


@dataclass(frozen=True)
class Components:
    """The 8-connected parts of a mask.

    Args:
        parts: int32 [h, w] within the mask's bounding box, 0 outside, else 1 .. N.
        origin: (top, left) of that box.
        areas: int64 [N], pixels.
    """

    parts: NDArray[np.int32]
    origin: tuple[int, int]
    areas: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def largest(self) -> int:
        """The number (from 1) of the largest part, the first of equals."""
        return int(self.areas.argmax()) + 1

    def mask(self, numbers: NDArray[np.integer[Any]] | list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
        """bool [H, W] of some parts (from 1) in an image of this (height, width)."""
        chosen = np.zeros(len(self.areas) + 1, dtype=bool)
        chosen[numbers] = True
        whole = np.zeros(size, dtype=bool)
        top, left = self.origin
        height, width = self.parts.shape
        whole[top : top + height, left : left + width] = chosen[self.parts]
        return whole


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right), the last two exclusive; None where nothing is set."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def components(mask: NDArray[np.bool_]) -> Components:
    """The parts of bool [H, W]."""
    box = bounding_box(mask)
    if box is None:
        return Components(np.zeros((0, 0), np.int32), (0, 0), np.zeros(0, np.int64))
    from scipy.ndimage import label

    top, left, bottom, right = box
    parts, count = label(mask[top:bottom, left:right], structure=_EIGHT)
    areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return Components(parts, (top, left), areas)


def worth_counting(found: Components, pixels: int) -> int:
    """Parts of at least a ten-thousandth of an image of `pixels` pixels."""
    return int((found.areas >= _LEAST * pixels).sum())


def trusted(hand: NDArray[np.bool_], thing: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The largest hand, and the object's parts that touch it: what a next step may put a box round.

    Args:
        hand, thing: bool [H, W].

    Returns:
        the same, with every other part removed; no hand: no object.
    """
    hands = components(hand)
    if not len(hands):
        return np.zeros_like(hand), np.zeros_like(thing)
    kept = hands.mask([hands.largest], (hand.shape[0], hand.shape[1]))
    things = components(thing)
    if not len(things):
        return kept, np.zeros_like(thing)
    top, left = things.origin
    height, width = things.parts.shape
    near = _grown(kept, _REACH + 1)[top : top + height, left : left + width]
    touching = np.unique(things.parts[near])
    return kept, things.mask(touching[touching > 0], (thing.shape[0], thing.shape[1]))


def _grown(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Every pixel within `reach` (square) of the mask."""
    from scipy.ndimage import maximum_filter

    box = bounding_box(mask)
    if box is None:
        return mask
    top, left = max(box[0] - reach, 0), max(box[1] - reach, 0)
    grown = mask.copy()
    area = (slice(top, box[2] + reach), slice(left, box[3] + reach))
    grown[area] = maximum_filter(mask[area].view(np.uint8), 2 * reach + 1, mode="constant").view(bool)
    return grown
