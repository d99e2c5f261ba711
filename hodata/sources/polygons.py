"""Outlines and run lengths -> pixels, with bounds on what a hostile file may ask for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_REACH = 16  # an outline may leave the picture by this many picture sizes; the library's cost grows with its length


def fill_polygon(points: NDArray[np.float64], size: tuple[int, int], *, origin: float) -> NDArray[np.bool_]:
    """The pixels inside a closed polygon (even-odd rule), as MATLAB's `poly2mask` and COCO's tools draw it.

    Both follow the outline on a grid five times finer than the pixels, so a pixel counts as inside when its centre
    is, but for centres within a quarter of a pixel of the outline.

    Args:
        points: float [N, 2], x and y; N >= 3. The first point may or may not be repeated at the end.
        size: (width, height) of the picture.
        origin: where the centre of the top left pixel lies: 0.0 where integers are pixel centres, 1.0 in MATLAB,
            0.5 where integers are pixel corners (COCO).

    Returns:
        bool [H, W].

    Raises:
        ValueError: wrong shape, not finite, or far outside the picture.
    """
    from pycocotools import mask as coco_mask

    width, height = size
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f"an outline is a list of at least 3 (x, y) points, found shape {list(points.shape)}")
    if not np.isfinite(points).all():
        raise ValueError("the outline holds a coordinate that is not a finite number")
    if np.abs(points).max() > _REACH * max(width, height):
        raise ValueError(f"the outline reaches to {np.abs(points).max():.0f}, the picture is {width}x{height}")
    corners = np.asarray(points, dtype=np.float64) + (0.5 - origin)
    runs = coco_mask.frPyObjects([corners.ravel().tolist()], height, width)
    inside: NDArray[np.bool_] = coco_mask.decode(runs)[..., 0].astype(bool)
    return inside


def fill_runs(counts: Sequence[int] | NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of COCO run lengths: column by column, outside and inside by turns, outside first.

    Args:
        counts: run lengths in pixels.
        size: (width, height).

    Returns:
        bool [H, W].

    Raises:
        ValueError: negative runs, or they do not add up to the picture.
    """
    width, height = size
    runs = np.asarray(counts, dtype=np.int64).ravel()
    if len(runs) and (runs.min() < 0 or runs.max() > width * height):
        raise ValueError(f"a run is {runs.min()} to {runs.max()} pixels long in a picture of {width * height:,}")
    if runs.sum() != width * height:
        raise ValueError(f"the runs cover {runs.sum():,} pixels, the picture has {width * height:,}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def decode_counts(text: str) -> NDArray[np.int64]:
    """Run lengths from COCO's compressed string.

    Characters carry five bits each from 48 on, low bits first, bit 5 says that more follow; from the fourth run on
    each is stored as the difference to the one two before it (`rleFrString` in cocodataset/cocoapi). Decoded here
    because the library's C code trusts the lengths it finds.

    Raises:
        ValueError: not such a string.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            raise ValueError(f"{character!r} at run {len(runs)} is not part of compressed COCO run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths end in the middle of a number")
    return np.array(runs, dtype=np.int64)
