"""Posed meshes to masks: label map, depth, each mesh's own silhouette, and how much of it is seen, in one pass.

    rendering = render([PosedMesh(hand, hand_faces, 2), PosedMesh(can, can_faces, 4)], K, (640, 480))
    rendering.labels, rendering.depth, rendering.amodal[0], rendering.visible_fraction[0]

Everything is in the OpenCV camera frame (x right, y down, z forward) in metres; pixel centres lie at integer
coordinates. Both sides of a face are drawn, so meshes may be open or turned inside out. See docs/rendering.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.pose.rasterize import NEAR
from hodata.pose.zbuffer import SUBPIXELS, draw, for_kernel, to_screen

LONGEST_SIDE = 16384  # pixels; the guard band of the z-buffer lies beyond


@dataclass(frozen=True)
class PosedMesh:
    """A triangle mesh where the camera sees it.

    Args:
        vertices: float64 [V, 3], OpenCV camera frame, metres. Some may lie behind the camera.
        faces: integers [F, 3], rows of `vertices`; either orientation.
        label: 0..255, what its pixels get. Two meshes may share one; 0 hides what is behind and stays background.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.integer]
    label: int


@dataclass(frozen=True)
class Rendering:
    """What a camera sees of P meshes, numbered in the order in which they were given.

    Args:
        labels: uint8 [H, W], label of the nearest mesh; 0 where nothing is.
        depth: float32 [H, W], z of the nearest surface in metres (not the length of the ray); inf where nothing is.
        part: int16 [H, W], number of the nearest mesh; -1 where nothing is.
        amodal: bool [P, H, W], the silhouette that each mesh would have alone.
        visible_fraction: float64 [P] in 0..1, visible pixels / amodal pixels; 0 for a mesh that covers no pixel.
        areas: int64 [P], visible pixels.
        boxes: int32 [P, 4], x0, y0, x1, y1 round the visible pixels, last pixel included; 0, 0, -1, -1 if none is.
    """

    labels: NDArray[np.uint8]
    depth: NDArray[np.float32]
    part: NDArray[np.int16]
    amodal: NDArray[np.bool_]
    visible_fraction: NDArray[np.float64]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int32]


def render(meshes: Sequence[PosedMesh], K: ArrayLike, size: tuple[int, int], *, near: float = NEAR) -> Rendering:
    """Draw meshes into one picture. Where surfaces are equally deep the mesh that was given first is seen.

    Each mesh is drawn once, into a z-buffer as large as its own bounding box; the buffers are then merged by depth.
    The result is that of `rasterize` on all faces together, to the last bit.

    Args:
        K: [3, 3] intrinsics in pixels, upper triangular, K[2, 2] = 1, focal lengths positive.
        size: (width, height) in pixels.
        near: metres, positive: what is nearer to the camera's plane is cut off.

    Raises:
        ValueError: coordinates that are not finite, a face that names no vertex, a mesh wholly behind the camera
            (every z <= 0), a label outside 0..255, a wrong K, size or near. A mesh beside the picture, or without
            faces, is no error: it has no pixels.
    """
    K, width, height = _checked_camera(K, size, near)
    prepared = [_checked_mesh(mesh, number) for number, mesh in enumerate(meshes)]
    if len(prepared) > np.iinfo(np.int16).max:
        raise ValueError(f"render: {len(prepared)} meshes, more than {np.iinfo(np.int16).max}")
    table = np.array([mesh.label for mesh in meshes], dtype=np.uint8)
    count = len(prepared)
    nearest = np.zeros((height, width))  # 1/z
    part = np.full((height, width), -1, dtype=np.int16)
    amodal = np.zeros((count, height, width), dtype=np.bool_)
    amodal_areas = np.zeros(count, dtype=np.int64)
    for number, (vertices, faces) in enumerate(prepared):
        screen, inverse = np.empty((len(vertices), 2), dtype=np.int64), np.empty(len(vertices))
        x0, y0, x1, y1 = _window(to_screen(vertices, K, near, screen, inverse), width, height)
        if x0 > x1 or y0 > y1:
            continue
        buffer = np.zeros((y1 - y0 + 1, x1 - x0 + 1))
        draw(vertices, screen, inverse, faces, K, near, (x0, y0), buffer, None)
        amodal_areas[number] = _merge(buffer, x0, y0, number, nearest, part, amodal[number])
    labels = np.zeros((height, width), dtype=np.uint8)
    depth = np.full((height, width), np.inf, dtype=np.float32)
    areas = np.zeros(count, dtype=np.int64)
    boxes = np.tile(np.array([width, height, -1, -1], dtype=np.int32), (count, 1))
    _finish(nearest, part, table, labels, depth, areas, boxes)
    boxes[areas == 0] = (0, 0, -1, -1)
    return Rendering(labels, depth, part, amodal, areas / np.maximum(amodal_areas, 1), areas, boxes)


def _window(bounds: tuple[int, int, int, int, bool], width: int, height: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the pixels that a mesh may cover: those inside its bounds, or all if it must be cut."""
    left, top, right, bottom, cut = bounds
    if cut:
        return 0, 0, width - 1, height - 1
    x0, y0 = -(-left // SUBPIXELS), -(-top // SUBPIXELS)
    return max(x0, 0), max(y0, 0), min(right // SUBPIXELS, width - 1), min(bottom // SUBPIXELS, height - 1)


def _checked_camera(K: ArrayLike, size: tuple[int, int], near: float) -> tuple[NDArray[np.float64], int, int]:
    K = for_kernel(K, np.float64)
    width, height = int(size[0]), int(size[1])
    if K.shape != (3, 3) or not np.isfinite(K).all():
        raise ValueError(f"render: K must be 3x3 finite numbers, not {K.tolist()}")
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise ValueError(f"render: focal lengths K[0, 0] = {K[0, 0]} and K[1, 1] = {K[1, 1]} must be positive")
    if K[1, 0] or K[2, 0] or K[2, 1] or K[2, 2] != 1:
        raise ValueError(f"render: K must be upper triangular with K[2, 2] = 1, not {K.tolist()}")
    if not (1 <= width <= LONGEST_SIDE and 1 <= height <= LONGEST_SIDE):
        raise ValueError(f"render: size (width, height) = ({width}, {height}) must be in 1..{LONGEST_SIDE} pixels")
    if not 0 < near < np.inf:
        raise ValueError(f"render: near = {near} must be a positive number of metres")
    return K, width, height


def _checked_mesh(mesh: PosedMesh, number: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Vertices and faces as the kernels take them; they index memory unchecked, so everything is checked here."""
    what = f"render: mesh {number} (label {mesh.label})"
    vertices = for_kernel(mesh.vertices, np.float64)
    faces = np.asarray(mesh.faces)
    if not 0 <= mesh.label <= 255:
        raise ValueError(f"{what}: the label must be in 0..255")
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
        z = vertices[:, 2]
        if not z.max() > 0:
            raise ValueError(
                f"{what} lies wholly behind the camera: z is {z.min():.3f} to {z.max():.3f} m, and the camera looks "
                "along +z (OpenCV); points in OpenGL axes need hodata.pose.camera.flip_opengl"
            )
    return vertices, for_kernel(faces, np.int32)


@numba.njit(cache=True, nogil=True)
def _merge(buffer, x0, y0, number, nearest, part, silhouette):  # type: ignore[no-untyped-def]
    """Lay one mesh's inverse depths [h, w], whose first pixel is (x0, y0), over the picture; the pixels it covers."""
    covered = 0
    for y in range(buffer.shape[0]):
        for x in range(buffer.shape[1]):
            i = buffer[y, x]
            if i > 0:
                covered += 1
                silhouette[y0 + y, x0 + x] = True
                if i > nearest[y0 + y, x0 + x]:
                    nearest[y0 + y, x0 + x] = i
                    part[y0 + y, x0 + x] = number
    return covered


@numba.njit(cache=True, nogil=True)
def _finish(nearest, part, table, labels, depth, areas, boxes):  # type: ignore[no-untyped-def]
    """Fill in labels, depth, visible pixels [P] and their boxes [P, 4]."""
    for y in range(part.shape[0]):
        for x in range(part.shape[1]):
            p = part[y, x]
            if p >= 0:
                labels[y, x] = table[p]
                depth[y, x] = 1.0 / nearest[y, x]
                areas[p] += 1
                boxes[p, 0], boxes[p, 2] = min(boxes[p, 0], x), max(boxes[p, 2], x)
                boxes[p, 1], boxes[p, 3] = min(boxes[p, 1], y), max(boxes[p, 3], y)
