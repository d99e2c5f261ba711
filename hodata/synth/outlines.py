"""Outlines of label masks as polygons, the way a person would click them but closer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SMALLEST = 6  # pixels: smaller islands are not outlined
TOLERANCE = 0.45  # pixels: how far the polygon may leave the outline


def outline(mask: NDArray[np.bool_]) -> Array:
    """One polygon [N, 2] (x, y) round everything set in mask bool [H, W]; pixel centres at integer coordinates.

    Islands and holes hang on the first outline by bridges of no width, so that even-odd and winding fills of the one
    polygon give the mask back. Empty [0, 2] where nothing, or next to nothing, is set.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 2))
    corner = np.array([columns[0], rows[0]], dtype=np.float64)
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    loops = [loop + corner for loop in _loops(box) if abs(_area(loop)) >= SMALLEST]
    loops.sort(key=lambda loop: -abs(_area(loop)))
    if not loops or _area(loops[0]) <= 0:
        return np.zeros((0, 2))
    polygon = _simplify(loops[0])
    for loop in loops[1:]:
        other = _simplify(loop)
        if len(other) < 3:
            continue
        distance = np.linalg.norm(polygon[:, None] - other[None], axis=-1)
        i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
        around = np.concatenate([other[j:], other[: j + 1]])
        polygon = np.concatenate([polygon[: i + 1], around, polygon[i:]])
    return polygon


def _area(loop: Array) -> float:
    """Positive for outer outlines, negative for holes (as `_loops` walks them)."""
    x, y = loop[:, 0], loop[:, 1]
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _loops(mask: NDArray[np.bool_]) -> list[Array]:
    """Closed walks along pixel borders, the inside on the right hand; points are the middles of the borders."""
    m = np.pad(mask, 1)
    inside = m[1:-1, 1:-1]
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for beyond, start, end in (
        (m[:-2, 1:-1], (0, 0), (1, 0)),
        (m[1:-1, 2:], (1, 0), (1, 1)),
        (m[2:, 1:-1], (1, 1), (0, 1)),
        (m[1:-1, :-2], (0, 1), (0, 0)),
    ):
        ys, xs = np.nonzero(inside & ~beyond)
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
            following.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    loops = []
    while following:
        first = next(iter(following))
        walk = [first]
        came = (0, 0)
        while True:
            here = walk[-1]
            choices = following[here]
            pick = 0
            if len(choices) == 2:  # pixels that touch at a corner stay apart: turn right
                right = (-came[1], came[0])
                pick = next((k for k, c in enumerate(choices) if (c[0] - here[0], c[1] - here[1]) == right), 0)
            there = choices.pop(pick)
            if not choices:
                del following[here]
            came = (there[0] - here[0], there[1] - here[1])
            if there == first and (first not in following or len(walk) > 1):
                break
            walk.append(there)
        corners = np.array(walk, dtype=np.float64) - 0.5
        loops.append(0.5 * (corners + np.roll(corners, -1, axis=0)))
    return loops


def _simplify(loop: Array) -> Array:
    """Fewer points, none of the dropped ones farther than `TOLERANCE` from the polygon (Douglas and Peucker 1973)."""
    far = int(np.argmax(np.linalg.norm(loop - loop[0], axis=1)))
    keep = {0, far}
    stack = [(0, far), (far, len(loop))]
    closed = np.concatenate([loop, loop[:1]])
    while stack:
        a, b = stack.pop()
        if b - a < 2:
            continue
        chord = closed[b] - closed[a]
        length = float(np.hypot(*chord))
        offset = closed[a + 1 : b] - closed[a]
        if length > 0:
            distance = np.abs(offset[:, 0] * chord[1] - offset[:, 1] * chord[0]) / length
        else:
            distance = np.hypot(offset[:, 0], offset[:, 1])
        worst = int(np.argmax(distance))
        if distance[worst] > TOLERANCE:
            middle = a + 1 + worst
            keep.add(middle)
            stack += [(a, middle), (middle, b)]
    return loop[sorted(keep)]
