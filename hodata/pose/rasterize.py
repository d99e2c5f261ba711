"""Triangles to pixels: which face, how deep, at every pixel centre. The rules of coverage stand in `zbuffer.py`.

For masks of whole meshes see `render.py`; this is the layer below it, which also tells faces apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.kernels import njit
from hodata.pose.zbuffer import draw, for_kernel, to_screen

NEAR = 0.01  # metres: what is nearer to the camera's plane is cut off


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
    vertices, faces, K = _checked(vertices, faces, K, size, near)
    width, height = size
    screen, inverse = np.empty((len(vertices), 2), dtype=np.int64), np.empty(len(vertices))
    to_screen(vertices, K, near, screen, inverse)
    inverse_depth = np.zeros((height, width))
    face_map = np.full((height, width), -1, dtype=np.int32)
    draw(vertices, screen, inverse, faces, K, near, (0, 0), inverse_depth, face_map, 0, 1)
    with np.errstate(divide="ignore"):
        depth = (1.0 / inverse_depth).astype(np.float32)
    return Raster(depth, face_map)


def _checked(
    vertices: ArrayLike, faces: ArrayLike, K: ArrayLike, size: tuple[int, int], near: float
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """What the kernels take: float64 vertices, int32 faces, float64 K. They index memory unchecked, so check here."""
    vertices = for_kernel(vertices, np.float64)
    faces = np.asarray(faces)
    K = for_kernel(K, np.float64)
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
    return vertices, for_kernel(faces, np.int32), K


def label_map(face: NDArray[np.int32], face_labels: ArrayLike, background: int = 0) -> NDArray[np.uint8]:
    """Labels uint8 [H, W] of a face map int32 [H, W], given one label per face [F]."""
    table = np.append(np.asarray(face_labels, dtype=np.uint8), np.uint8(background))
    return table[face]  # -1 is the last entry


def barycentric(raster: Raster, vertices: ArrayLike, faces: ArrayLike, K: ArrayLike) -> NDArray[np.float64]:
    """Weights [H, W, 3] of the three vertices at each pixel, perspective-correct, in [0, 1]; 0 where nothing is."""
    weights = np.zeros((*raster.face.shape, 3))
    _weights(
        for_kernel(vertices, np.float64),
        for_kernel(faces, np.int32),
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


@njit()
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


@njit(inline="always")
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
