"""Parts of a picture that some figures are about: discs round fingertips, and bands round wrists.

Both come from the hands in a sample's JSON member. Shapes: H W pixels. Pixel centres lie at integer coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TIPS = (4, 8, 12, 16, 20)  # OpenPose order: thumb to little finger
TIP_RADIUS = 0.08  # of the diagonal of the box round the hand's key points
LEAST_TIP_RADIUS = 4.0  # pixels
SEEN_WITHIN = 2.0  # pixels: a tip lies on the outline of its finger, and rounding puts half of them beside it
BAND = 0.25  # of the wrist's width
_MOST_CORNERS = 256  # MANO's loop has 16; a hostile file must not cost minutes

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]


def fingertip_discs(hands: Iterable[Mapping[str, Any]], hand_pixels: Mask) -> Mask | None:
    """The discs round the visible fingertips of all hands.

    A tip is visible if its key point is valid, in front, inside the picture, and at most 2 pixels from a pixel that
    is surely hand: an object without a mesh hides tips too, and only the mask knows it.

    Args:
        hands: as in the JSON member.
        hand_pixels: bool [H, W], surely hand.

    Returns:
        bool [H, W]; None where no hand has key points.
    """
    discs: Mask | None = None
    for hand in hands:
        points = as_points(hand.get("keypoints_px", []))
        if len(points) != 21:
            continue
        if discs is None:
            discs = np.zeros(hand_pixels.shape, dtype=bool)
        valid = _flags(hand, "valid") & np.isfinite(points).all(1)
        visible = valid & _flags(hand, "in_front")
        if not valid.any():
            continue
        radius = max(TIP_RADIUS * float(np.linalg.norm(np.ptp(points[valid], axis=0))), LEAST_TIP_RADIUS)
        for tip in TIPS:
            if visible[tip] and _inside(points[tip], discs.shape) and _touches(hand_pixels, points[tip]):
                _add_disc(discs, points[tip], radius)
    return discs


def wrist_bands(hands: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> Mask | None:
    """What lies within a quarter of a wrist's width of it: there, nobody knows to the pixel where a hand ends.

    A wrist is the polygon of the projected loop, its width the largest distance of two of its corners.

    Args:
        hands: as in the JSON member.
        shape: (H, W).

    Returns:
        bool [H, W]; None where there is no hand or the loop of one is not known.
    """
    loops = [as_points(hand.get("wrist_loop", [])) for hand in hands]
    if not loops or any(not 3 <= len(loop) <= _MOST_CORNERS or not np.isfinite(loop).all() for loop in loops):
        return None
    bands = np.zeros(shape, dtype=bool)
    for loop in loops:
        width = float(np.linalg.norm(loop[:, None] - loop[None], axis=2).max())
        window, pixels = _window(loop.min(0), loop.max(0), BAND * width, shape)
        bands[window] |= polygon_distance(pixels, loop) <= BAND * width
    return bands


def polygon_distance(points: Points, polygon: Points) -> Points:
    """Distance of points float64 [..., 2] to a filled polygon float64 [N, 2], 0 inside (even-odd rule)."""
    x, y = np.ascontiguousarray(points[..., 0]), np.ascontiguousarray(points[..., 1])
    nearest = np.full(x.shape, np.inf)  # squared
    inside = np.zeros(x.shape, dtype=bool)
    for (from_x, from_y), (to_x, to_y) in zip(polygon.tolist(), np.roll(polygon, -1, 0).tolist(), strict=True):
        across, down = to_x - from_x, to_y - from_y
        right, below = x - from_x, y - from_y
        place = (right * across + below * down) / ((across**2 + down**2) or 1.0)
        place = np.minimum(np.maximum(place, 0.0), 1.0)
        right, below = right - place * across, below - place * down
        np.minimum(nearest, right * right + below * below, out=nearest)
        crossed = (from_y > y) != (to_y > y)
        inside ^= crossed & (x < from_x + (y - from_y) * across / (down or 1.0))
    return np.where(inside, 0.0, np.sqrt(nearest))


def as_points(values: Any) -> Points:
    """float64 [N, 2] of a JSON list; empty where it is something else."""
    try:
        points = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.zeros((0, 2))
    return points if points.ndim == 2 and points.shape[1] == 2 else np.zeros((0, 2))


def _flags(hand: Mapping[str, Any], name: str) -> NDArray[np.bool_]:
    """bool [21]; a list that is not there says nothing against any point."""
    flags = hand.get(name) or [True] * 21
    return np.asarray(flags, dtype=bool) if len(flags) == 21 else np.zeros(21, dtype=bool)


def _inside(point: Points, shape: tuple[int, ...]) -> bool:
    """The picture ends half a pixel beyond its outer pixels' centres."""
    return bool((point >= -0.5).all() and point[0] < shape[1] - 0.5 and point[1] < shape[0] - 0.5)


def _touches(mask: Mask, point: Points) -> bool:
    window, pixels = _window(point, point, SEEN_WITHIN, mask.shape)
    return bool((mask[window] & (np.linalg.norm(pixels - point, axis=-1) <= SEEN_WITHIN)).any())


def _add_disc(mask: Mask, centre: Points, radius: float) -> None:
    window, pixels = _window(centre, centre, radius, mask.shape)
    mask[window] |= ((pixels - centre) ** 2).sum(-1) <= radius**2


def _window(low: Points, high: Points, margin: float, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], Points]:
    """The pixels of a box wider by a margin, clipped to the picture: slices, and coordinates [h, w, 2] as (x, y)."""
    limit = np.array([shape[1], shape[0]])
    begin = np.clip(np.ceil(low - margin), 0, limit).astype(int)
    end = np.clip(np.floor(high + margin) + 1, begin, limit).astype(int)
    x, y = np.meshgrid(np.arange(begin[0], end[0]), np.arange(begin[1], end[1]))
    return (slice(begin[1], end[1]), slice(begin[0], end[0])), np.stack([x, y], -1).astype(np.float64)
