"""Triangles to pixels: which face, how deep, at every pixel centre. The rules of coverage stand in `zbuffer.py`.

For masks of whole meshes see `render.py`; this is the layer below it, which also tells faces apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.kernels import njit
from hodata.pose.arguments import NEAR, checked_camera, checked_mesh
from hodata.pose.zbuffer import draw, for_kernel, to_screen


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
    """Draw triangles. Of faces with the same corners the first one wins.

    Coplanar faces of other corners differ by micrometres, because corners are rounded to 1/256 pixel: either may win.

    Args:
        vertices: [V, 3], OpenCV camera frame, metres. Any may lie behind the camera: faces are clipped at `near`.
        faces: integers [F, 3], rows of `vertices`.
        K, size, near: as in `render`.

    Raises:
        ValueError: wrong shapes, faces that are no integers or name no vertex, coordinates that are not finite, a wrong
            K, size or near.
    """
    K, width, height = checked_camera(K, size, near, "rasterize")
    vertices, faces = checked_mesh(vertices, faces, "rasterize")
    screen, inverse = np.empty((len(vertices), 2), dtype=np.int64), np.empty(len(vertices))
    to_screen(vertices, K, near, screen, inverse)
    inverse_depth = np.zeros((height, width))
    face_map = np.full((height, width), -1, dtype=np.int32)
    draw(vertices, screen, inverse, faces, K, near, (0, 0), inverse_depth, face_map, 0, 1)
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
    attributes = np.asarray(attributes, dtype=np.float64)
    drawn = raster.face >= 0
    weights = barycentric(raster, vertices, faces, K)[drawn]
    corners = attributes[np.asarray(faces, dtype=np.int64)[raster.face[drawn]]]  # [N, 3, C]
    out = np.zeros((*drawn.shape, attributes.shape[1]))
    out[drawn] = np.einsum("nk,nkc->nc", weights, corners)
    return out


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
