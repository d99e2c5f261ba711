"""A z-buffer rasteriser for label maps: which face, how deep, at every pixel centre.

Pixels are sampled at integer coordinates. Screen coordinates are rounded to 1/256 pixel and edge functions are
integers, so the set of covered pixels does not depend on the CPU. Both sides of a face are drawn. A pixel centre on
an edge belongs to the face on one side of it only (top-left rule), so closed surfaces are covered once, without gaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

SUBPIXELS = 256  # screen coordinates are multiples of 1/256 pixel
NEAR = 0.01  # metres: what is nearer to the camera's plane is cut off
# Faces that reach beyond this many pixels from the origin are cut to it, so that edge functions fit into int64.
GUARD_BAND = 32768.0


@dataclass(frozen=True)
class Raster:
    """The nearest face at each pixel.

    Args:
        depth: float32 [H, W], z in metres, inf where nothing is.
        face: int32 [H, W], row in `faces`, -1 where nothing is.
    """

    depth: NDArray[np.float32]
    face: NDArray[np.int32]


def rasterize(vertices: ArrayLike, faces: ArrayLike, K: ArrayLike, size: tuple[int, int], near: float = NEAR) -> Raster:
    """Draw triangles. Of faces at equal depth the first one wins.

    Args:
        vertices: [V, 3], OpenCV camera frame, metres. Any may lie behind the camera: faces are clipped at `near`.
        faces: integers [F, 3], rows of `vertices`.
        K: [3, 3] intrinsics in pixels, last row 0 0 1.
        size: (width, height) in pixels.
        near: metres, positive.

    Raises:
        ValueError: wrong shapes, a face that names no vertex, or coordinates that are not finite.
    """
    vertices = np.ascontiguousarray(vertices, dtype=np.float64)
    faces = np.ascontiguousarray(faces, dtype=np.int32)
    K = np.ascontiguousarray(K, dtype=np.float64)
    width, height = size
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"rasterize: vertices {vertices.shape} and faces {faces.shape} must be [V, 3] and [F, 3]")
    if K.shape != (3, 3) or K[1, 0] or K[2, 0] or K[2, 1] or K[2, 2] != 1:
        raise ValueError("rasterize: K must be 3x3, upper triangular, with K[2, 2] = 1")
    if not near > 0 or width < 1 or height < 1:
        raise ValueError(f"rasterize: near {near} and size {width}x{height} must be positive")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(f"rasterize: faces name vertices {faces.min()}..{faces.max()}, there are {len(vertices)}")
    if not np.isfinite(vertices).all():
        raise ValueError("rasterize: vertices hold nan or infinity")
    inverse_depth = np.zeros((height, width))
    face_map = np.full((height, width), -1, dtype=np.int32)
    _draw(vertices, faces, K, near, inverse_depth, face_map)
    with np.errstate(divide="ignore"):
        depth = (1.0 / inverse_depth).astype(np.float32)
    return Raster(depth, face_map)


def label_map(face: NDArray[np.int32], face_labels: ArrayLike, background: int = 0) -> NDArray[np.uint8]:
    """Labels uint8 [H, W] of a face map int32 [H, W], given one label per face [F]."""
    table = np.append(np.asarray(face_labels, dtype=np.uint8), np.uint8(background))
    return table[face]  # -1 is the last entry


def barycentric(raster: Raster, vertices: ArrayLike, faces: ArrayLike, K: ArrayLike) -> NDArray[np.float64]:
    """Weights [H, W, 3] of the three vertices at each pixel, perspective-correct, in [0, 1]; 0 where nothing is."""
    weights = np.zeros((*raster.face.shape, 3))
    _weights(
        np.ascontiguousarray(vertices, dtype=np.float64),
        np.ascontiguousarray(faces, dtype=np.int32),
        np.linalg.inv(np.asarray(K, dtype=np.float64)),
        raster.face,
        weights,
    )
    return weights


def interpolate(
    raster: Raster, attributes: ArrayLike, vertices: ArrayLike, faces: ArrayLike, K: ArrayLike
) -> NDArray[np.float64]:
    """Vertex attributes [V, C] at each pixel, perspective-correct: [H, W, C], 0 where nothing is."""
    weights = barycentric(raster, vertices, faces, K)
    corners = np.asarray(attributes, dtype=np.float64)[np.asarray(faces)[raster.face]]  # [H, W, 3, C]
    return np.einsum("hwk,hwkc->hwc", weights, corners)


@numba.njit(cache=True)
def _draw(vertices, faces, K, near, inverse_depth, face_map):  # type: ignore[no-untyped-def]
    """Fill `inverse_depth` (0 = empty) and `face_map` in place."""
    count = vertices.shape[0]
    screen = np.empty((count, 2), dtype=np.int64)
    inverse = np.empty(count)
    inside = np.empty(count, dtype=np.bool_)
    for v in range(count):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        inside[v] = False
        if z >= near:
            inverse[v] = 1.0 / z
            u = (K[0, 0] * x + K[0, 1] * y) * inverse[v] + K[0, 2]
            w = K[1, 1] * y * inverse[v] + K[1, 2]
            if abs(u) <= GUARD_BAND and abs(w) <= GUARD_BAND:
                inside[v] = True
                screen[v, 0] = np.int64(np.floor(u * SUBPIXELS + 0.5))
                screen[v, 1] = np.int64(np.floor(w * SUBPIXELS + 0.5))
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if inside[a] and inside[b] and inside[c]:
            _fill(
                screen[a, 0], screen[a, 1], inverse[a], screen[b, 0], screen[b, 1], inverse[b],
                screen[c, 0], screen[c, 1], inverse[c], f, inverse_depth, face_map,
            )  # fmt: skip
        else:
            _clip_and_fill(vertices[a], vertices[b], vertices[c], K, near, f, inverse_depth, face_map)


@numba.njit(cache=True)
def _fill(x0, y0, i0, x1, y1, i1, x2, y2, i2, f, inverse_depth, face_map):  # type: ignore[no-untyped-def]
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
                        face_map[y, x] = f
            elif entered:
                break
            a += step_ax
            b += step_bx
            c += step_cx
        row_a += step_ay
        row_b += step_by
        row_c += step_cy


@numba.njit(cache=True)
def _clip_and_fill(p0, p1, p2, K, near, f, inverse_depth, face_map):  # type: ignore[no-untyped-def]
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
        x[k] = np.int64(np.floor(u * SUBPIXELS + 0.5))
        y[k] = np.int64(np.floor(v * SUBPIXELS + 0.5))
    for k in range(1, count - 1):
        _fill(
            x[0], y[0], inverse[0], x[k], y[k], inverse[k], x[k + 1], y[k + 1], inverse[k + 1],
            f, inverse_depth, face_map,
        )  # fmt: skip


@numba.njit(cache=True)
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


@numba.njit(cache=True)
def _weights(vertices, faces, inverse_K, face_map, weights):  # type: ignore[no-untyped-def]
    height, width = face_map.shape
    for y in range(height):
        for x in range(width):
            f = face_map[y, x]
            if f >= 0:
                w0, w1, w2 = corner_weights(
                    inverse_K[0, 0] * x + inverse_K[0, 1] * y + inverse_K[0, 2],
                    inverse_K[1, 1] * y + inverse_K[1, 2],
                    vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]],
                )  # fmt: skip
                weights[y, x, 0], weights[y, x, 1], weights[y, x, 2] = w0, w1, w2


@numba.njit(cache=True, inline="always")
def corner_weights(dx, dy, a, b, c):  # type: ignore[no-untyped-def]
    """Where the ray (dx, dy, 1) meets the plane of a, b, c: barycentric weights, moved into the triangle.

    Each weight is the volume spanned by the ray and the two other corners. Pixels that the rounding of screen
    coordinates gave to the face lie a hair outside; hence the clamp.
    """
    w0 = dx * (b[1] * c[2] - b[2] * c[1]) + dy * (b[2] * c[0] - b[0] * c[2]) + (b[0] * c[1] - b[1] * c[0])
    w1 = dx * (c[1] * a[2] - c[2] * a[1]) + dy * (c[2] * a[0] - c[0] * a[2]) + (c[0] * a[1] - c[1] * a[0])
    w2 = dx * (a[1] * b[2] - a[2] * b[1]) + dy * (a[2] * b[0] - a[0] * b[2]) + (a[0] * b[1] - a[1] * b[0])
    total = w0 + w1 + w2
    if total < 0:
        w0, w1, w2 = -w0, -w1, -w2
    w0, w1, w2 = max(w0, 0.0), max(w1, 0.0), max(w2, 0.0)
    total = w0 + w1 + w2
    if total <= 0:
        return 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0
    return w0 / total, w1 / total, w2 / total
