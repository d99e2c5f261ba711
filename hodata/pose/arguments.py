"""What the kernels are given: cameras and meshes, checked. They index memory unchecked, so nothing else may pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.pose.zbuffer import for_kernel

NEAR = 0.01  # metres: what is nearer to the camera's plane is cut off
LONGEST_SIDE = 16384  # pixels; the guard band of the z-buffer lies beyond


def checked_camera(K: ArrayLike, size: tuple[int, int], near: float, what: str) -> tuple[NDArray[np.float64], int, int]:
    """K float64 [3, 3], width and height of a camera that can be drawn with.

    Args:
        K, size, near: as in `render`.
        what: how errors begin.

    Raises:
        ValueError: K is not finite, not upper triangular with K[2, 2] = 1, or has focal lengths that are not positive;
            a size or near that is not positive, or too large.
    """
    K = for_kernel(K, np.float64)
    width, height = int(size[0]), int(size[1])
    if K.shape != (3, 3) or not np.isfinite(K).all():
        raise ValueError(f"{what}: K must be 3x3 finite numbers, not {K.tolist()}")
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise ValueError(f"{what}: focal lengths K[0, 0] = {K[0, 0]} and K[1, 1] = {K[1, 1]} must be positive")
    if K[1, 0] or K[2, 0] or K[2, 1] or K[2, 2] != 1:
        raise ValueError(f"{what}: K must be upper triangular with K[2, 2] = 1, not {K.tolist()}")
    if not (1 <= width <= LONGEST_SIDE and 1 <= height <= LONGEST_SIDE):
        raise ValueError(f"{what}: size (width, height) = ({width}, {height}) must be in 1..{LONGEST_SIDE} pixels")
    if not 0 < near < np.inf:
        raise ValueError(f"{what}: near = {near} must be a positive number of metres")
    return K, width, height


def checked_mesh(vertices: ArrayLike, faces: ArrayLike, what: str) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Vertices float64 [V, 3] and faces int32 [F, 3] that name them.

    Args:
        what: how errors begin.

    Raises:
        ValueError: wrong shapes, faces that are no integers or name no vertex, or coordinates that are not finite.
    """
    vertices = for_kernel(vertices, np.float64)
    faces = np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"{what}: vertices {vertices.shape} and faces {faces.shape} must be [V, 3] and [F, 3]")
    if not np.isfinite(vertices).all():
        bad = int(np.argmin(np.isfinite(vertices).all(axis=1)))
        raise ValueError(f"{what}: vertices hold nan or infinity, first in row {bad}: {vertices[bad].tolist()}")
    if len(faces):
        if not np.issubdtype(faces.dtype, np.integer):
            raise ValueError(f"{what}: faces are {faces.dtype}, they must be integers")
        low, high = int(faces.min()), int(faces.max())
        if low < 0 or high >= len(vertices):
            raise ValueError(
                f"{what}: faces name vertices {low}..{high}, there are {len(vertices)} (0..{len(vertices) - 1})"
            )
    return vertices, for_kernel(faces, np.int32)
