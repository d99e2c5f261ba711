"""The numba kernels of the rasteriser: corners to the screen, faces into a z-buffer.

Pixels are sampled at integer coordinates. Screen coordinates are rounded to 1/256 pixel and edge functions are
integers, so the set of covered pixels does not depend on the CPU. Both sides of a face are drawn. A pixel centre on
an edge belongs to the face on one side of it only (top-left rule), so closed surfaces are covered once, without gaps.

A buffer may be a window of the picture: its origin is taken off the rounded coordinates, which changes no pixel.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.kernels import njit

Scalar = TypeVar("Scalar", bound=np.generic)

SUBPIXELS = 256  # screen coordinates are multiples of 1/256 pixel
# Faces that reach beyond this many pixels from the origin are cut to it, so that edge functions fit into int64.
GUARD_BAND = 32768.0


def for_kernel(array: ArrayLike, dtype: type[Scalar]) -> NDArray[Scalar]:
    """Contiguous and writable, copied if need be: for other arrays numba would compile again, for seconds."""
    return np.require(array, dtype, ["C", "W"])


@njit(nogil=True)
def to_screen(vertices, K, near, screen, inverse):  # type: ignore[no-untyped-def]
    """Project vertices [V, 3]: `screen` int64 [V, 2] in 1/256 pixel, `inverse` [V] 1/z.

    `inverse` is 0 where the vertex lies before the near plane or beyond the guard band: its faces must be cut.

    Returns:
        Smallest x and y, largest x and y of the other vertices in 1/256 pixel, and whether there is any to cut.
    """
    left = top = np.int64(1) << 40
    right = bottom = -left
    cut = False
    for v in range(vertices.shape[0]):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        inverse[v] = 0.0
        if z >= near:
            i = 1.0 / z
            u = (K[0, 0] * x + K[0, 1] * y) * i + K[0, 2]
            w = K[1, 1] * y * i + K[1, 2]
            if abs(u) <= GUARD_BAND and abs(w) <= GUARD_BAND:
                inverse[v] = i
                a = np.int64(np.floor(u * SUBPIXELS + 0.5))
                b = np.int64(np.floor(w * SUBPIXELS + 0.5))
                screen[v, 0], screen[v, 1] = a, b
                left, right = min(left, a), max(right, a)
                top, bottom = min(top, b), max(bottom, b)
        if inverse[v] == 0.0:
            cut = True
    return left, top, right, bottom, cut


@njit(nogil=True)
def draw(vertices, screen, inverse, faces, K, near, origin, inverse_depth, marks, first, step):  # type: ignore[no-untyped-def]
    """Draw faces [F, 3] into `inverse_depth` float64 [h, w] (0 = empty) and `marks` integers [h, w], in place.

    Args:
        screen, inverse: of `to_screen`.
        origin: (x, y) picture coordinates of the buffers' first pixel.
        marks: where face f is nearest it gets `first + step * f`; None where nobody asks.
    """
    left, top = np.int64(origin[0]) * SUBPIXELS, np.int64(origin[1]) * SUBPIXELS
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        mark = first + step * f
        if inverse[a] > 0 and inverse[b] > 0 and inverse[c] > 0:
            _fill(
                screen[a, 0] - left, screen[a, 1] - top, inverse[a],
                screen[b, 0] - left, screen[b, 1] - top, inverse[b],
                screen[c, 0] - left, screen[c, 1] - top, inverse[c], mark, inverse_depth, marks,
            )  # fmt: skip
        else:
            _clip_and_fill(vertices[a], vertices[b], vertices[c], K, near, left, top, mark, inverse_depth, marks)


@njit(nogil=True)
def _fill(x0, y0, i0, x1, y1, i1, x2, y2, i2, mark, inverse_depth, marks):  # type: ignore[no-untyped-def]
    """Draw one triangle given in 1/256 pixel with the inverse depth of its corners."""
    height, width = inverse_depth.shape
    left = max((min(x0, x1, x2) + SUBPIXELS - 1) >> 8, 0)
    right = min(max(x0, x1, x2) >> 8, width - 1)
    top = max((min(y0, y1, y2) + SUBPIXELS - 1) >> 8, 0)
    bottom = min(max(y0, y1, y2) >> 8, height - 1)
    if left > right or top > bottom:
        return
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    if area == 0:
        return
    if area < 0:  # one orientation for both sides: a shared edge is then walked in opposite directions
        x1, y1, i1, x2, y2, i2 = x2, y2, i2, x1, y1, i1
        area = -area
    # Edge k lies opposite corner k; its function is positive inside and grows by `step` a pixel.
    ax, ay = x2 - x1, y2 - y1
    bx, by = x0 - x2, y0 - y2
    cx, cy = x1 - x0, y1 - y0
    px, py = left * SUBPIXELS, top * SUBPIXELS
    # An edge owns the pixel centres on it where it is a left or a top one: the others are moved out by one unit.
    row_a = ax * (py - y1) - ay * (px - x1) - (0 if ay < 0 or (ay == 0 and ax > 0) else 1)
    row_b = bx * (py - y2) - by * (px - x2) - (0 if by < 0 or (by == 0 and bx > 0) else 1)
    row_c = cx * (py - y0) - cy * (px - x0) - (0 if cy < 0 or (cy == 0 and cx > 0) else 1)
    step_ax, step_bx, step_cx = -ay * SUBPIXELS, -by * SUBPIXELS, -cy * SUBPIXELS
    step_ay, step_by, step_cy = ax * SUBPIXELS, bx * SUBPIXELS, cx * SUBPIXELS
    # Inverse depth is linear on the screen.
    di1, di2 = i1 - i0, i2 - i0
    slope_x = (di1 * by + di2 * cy) * (-1.0 / area)
    slope_y = (di1 * bx + di2 * cx) * (1.0 / area)
    lowest, highest = min(i0, i1, i2), max(i0, i1, i2)
    for y in range(top, bottom + 1):
        a, b, c = row_a, row_b, row_c
        row_i = i0 + slope_y * (y * SUBPIXELS - y0)
        entered = False
        for x in range(left, right + 1):
            if (a | b | c) >= 0:
                entered = True
                if highest > inverse_depth[y, x]:
                    i = row_i + slope_x * (x * SUBPIXELS - x0)
                    i = min(max(i, lowest), highest)
                    if i > inverse_depth[y, x]:
                        inverse_depth[y, x] = i
                        if marks is not None:
                            marks[y, x] = mark
            elif entered:
                break
            a += step_ax
            b += step_bx
            c += step_cx
        row_a += step_ay
        row_b += step_by
        row_c += step_cy


@njit(nogil=True)
def _clip_and_fill(p0, p1, p2, K, near, left, top, mark, inverse_depth, marks):  # type: ignore[no-untyped-def]
    """Cut a face at the near plane and at the guard band (Sutherland-Hodgman) and draw what is left as a fan."""
    polygon = np.empty((9, 3))
    clipped = np.empty((9, 3))
    polygon[0], polygon[1], polygon[2] = p0, p1, p2
    count = 3
    for plane in range(5):
        kept = 0
        for k in range(count):
            p, q = polygon[k], polygon[(k + 1) % count]
            dp, dq = _side(p, K, near, plane), _side(q, K, near, plane)
            if dp >= 0:
                clipped[kept] = p
                kept += 1
            if (dp >= 0) != (dq >= 0):
                # From the kept end to the cut one, whatever the walk: neighbours get the same point.
                if dp >= 0:
                    t = dp / (dp - dq)
                    clipped[kept] = p + t * (q - p)
                else:
                    t = dq / (dq - dp)
                    clipped[kept] = q + t * (p - q)
                kept += 1
        count = kept
        if count < 3:
            return
        polygon[:count] = clipped[:count]
    x = np.empty(9, dtype=np.int64)
    y = np.empty(9, dtype=np.int64)
    inverse = np.empty(9)
    for k in range(count):
        inverse[k] = 1.0 / polygon[k, 2]
        u = (K[0, 0] * polygon[k, 0] + K[0, 1] * polygon[k, 1]) * inverse[k] + K[0, 2]
        v = K[1, 1] * polygon[k, 1] * inverse[k] + K[1, 2]
        x[k] = np.int64(np.floor(u * SUBPIXELS + 0.5)) - left
        y[k] = np.int64(np.floor(v * SUBPIXELS + 0.5)) - top
    for k in range(1, count - 1):
        _fill(
            x[0], y[0], inverse[0], x[k], y[k], inverse[k], x[k + 1], y[k + 1], inverse[k + 1],
            mark, inverse_depth, marks,
        )  # fmt: skip


@njit(nogil=True)
def _side(p, K, near, plane):  # type: ignore[no-untyped-def]
    """Signed distance (in no particular unit) of a point to a clipping plane; kept where it is not negative."""
    if plane == 0:
        return p[2] - near
    u = K[0, 0] * p[0] + K[0, 1] * p[1] + K[0, 2] * p[2]
    v = K[1, 1] * p[1] + K[1, 2] * p[2]
    if plane == 1:
        return GUARD_BAND * p[2] - u
    if plane == 2:
        return GUARD_BAND * p[2] + u
    if plane == 3:
        return GUARD_BAND * p[2] - v
    return GUARD_BAND * p[2] + v
