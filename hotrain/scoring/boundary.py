"""Boundary IoU: the IoU of what lies near the two contours, which a large inside cannot hide.

After Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation" (CVPR 2021, arXiv:2103.16562), with their distance of 0.02 of the image's diagonal. Their code takes a
square as the neighbourhood and the image's edge as a contour; so does this.

Undecided pixels (those that may or may not be of the class) are joined to whichever region is eroded, and are never
counted: a contour of the truth is where a pixel that is surely of the class meets one that surely is not, and how a
prediction answers in between changes nothing.

Shapes: H W pixels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DILATION = 0.02  # of the image's diagonal
NEVER, SURELY, OPEN = 0, 1, 2  # what a pixel's set says of one class

Mask = NDArray[np.bool_]


def boundary_radius(height: int, width: int) -> int:
    """How near to a contour counts as near, in pixels: 16 at 640x480."""
    return max(round(DILATION * math.hypot(height, width)), 1)


def boundary_counts(truth: NDArray[np.uint8], predicted: Mask, radius: int) -> tuple[int, int, int]:
    """Count the pixels near the contours of one class in one image.

    With T the pixels that are surely of the class, U the undecided ones and P the predicted ones, the bands are
    T - erode(T + U) and (P - U) - erode(P + U). Without undecided pixels this is the paper's definition.

    Args:
        truth: uint8 [H, W] of `NEVER`, `SURELY` and `OPEN`.
        predicted: bool [H, W].
        radius: pixels, at least 1.

    Returns:
        (hit, union, truth): pixels in both bands, in either, and in that of the truth.
    """
    box = box_around(predicted | (truth == SURELY), radius)
    truth, predicted = truth[box], predicted[box]
    surely, undecided = truth == SURELY, truth == OPEN
    band = surely & ~erode(surely | undecided, radius)
    answered = predicted & ~undecided & ~erode(predicted | undecided, radius)
    hit, of_truth = int(np.count_nonzero(band & answered)), int(np.count_nonzero(band))
    return hit, of_truth + int(np.count_nonzero(answered)) - hit, of_truth


def erode(mask: Mask, radius: int) -> Mask:
    """bool [H, W] -> True where the square of 2 radius + 1 pixels round a pixel is all True; outside is False.

    The square is one window after the other along both axes, and a window is doubled: log2 steps of one AND each.
    """
    for axis in (0, 1):
        rows = np.moveaxis(mask, axis, 0)
        margin = np.zeros((radius, rows.shape[1]), dtype=bool)
        rows = np.concatenate([margin, rows, margin])
        covered, window = 1, 2 * radius + 1
        while covered < window:
            step = min(covered, window - covered)
            rows = rows[:-step] & rows[step:]
            covered += step
        mask = np.moveaxis(rows, 0, axis)
    return mask


def box_around(region: Mask, margin: int) -> tuple[slice, slice]:
    """The slices of the smallest box round a region, wider by a margin: nothing outside of it has a say."""
    down = _span(region, 1, margin)
    return down, _span(region[down], 0, margin)


def _span(region: Mask, over: int, margin: int) -> slice:
    used = np.asarray(region.any(over))
    places = np.flatnonzero(used)
    if not len(places):
        return slice(0, 0)
    return slice(max(int(places[0]) - margin, 0), min(int(places[-1]) + 1 + margin, len(used)))
