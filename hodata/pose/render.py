"""Posed meshes to masks: label map, depth, each mesh's own silhouette, and how much of it is seen, in one pass.

    rendering = render([PosedMesh(hand, hand_faces, 2), PosedMesh(can, can_faces, 4)], K, (640, 480))
    rendering.labels, rendering.depth, rendering.amodal[0], rendering.visible_fraction[0]

Everything is in the OpenCV camera frame (x right, y down, z forward) in metres; pixel centres lie at integer
coordinates. Both sides of a face are drawn, so meshes may be open or turned inside out. See docs/rendering.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.kernels import njit
from hodata.pose.arguments import NEAR, checked_camera, checked_mesh
from hodata.pose.zbuffer import SUBPIXELS, draw, to_screen


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
    """Draw meshes into one picture. Where faces have the same corners the mesh that was given first is seen.

    Coplanar faces of other corners differ by micrometres, because corners are rounded to 1/256 pixel: either may be
    seen. Cut one mesh out of the other, or lift it by 0.1 mm.

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
    K, width, height = checked_camera(K, size, near, "render")
    placed = _place(meshes, K, near, width, height)
    count = len(placed)
    part = np.full((height, width), -1, dtype=np.int16)
    amodal = np.zeros((count, height, width), dtype=np.bool_)
    amodal_areas = np.zeros(count, dtype=np.int64)
    around = _Window.around([mesh.window for mesh in placed])
    nearest = np.zeros(around.shape)  # 1/z
    for number, mesh in enumerate(placed):
        own = np.zeros(mesh.window.shape)
        mesh.draw(K, near, mesh.window, own)
        amodal_areas[number] = _merge(own, mesh.window[:2], number, nearest, around[:2], part, amodal[number])
    labels = np.zeros((height, width), dtype=np.uint8)
    depth = np.full((height, width), np.inf, dtype=np.float32)
    areas = np.zeros(count, dtype=np.int64)
    boxes = np.tile(np.array([width, height, -1, -1], dtype=np.int32), (count, 1))
    table = np.array([mesh.label for mesh in placed], dtype=np.uint8)
    _finish(nearest, around[:2], part, table, labels, depth, areas, boxes)
    boxes[areas == 0] = (0, 0, -1, -1)
    return Rendering(labels, depth, part, amodal, areas / np.maximum(amodal_areas, 1), areas, boxes)


def render_labels(
    meshes: Sequence[PosedMesh], K: ArrayLike, size: tuple[int, int], *, near: float = NEAR
) -> NDArray[np.uint8]:
    """`render(...).labels` alone, uint8 [H, W], in about half the time. Same arguments, same errors."""
    K, width, height = checked_camera(K, size, near, "render")
    placed = _place(meshes, K, near, width, height)
    around = _Window.around([mesh.window for mesh in placed])
    nearest, drawn = np.zeros(around.shape), np.zeros(around.shape, dtype=np.uint8)
    for mesh in placed:
        mesh.draw(K, near, around, nearest, drawn)
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[around.y0 : around.y1, around.x0 : around.x1] = drawn
    return labels


class _Window(NamedTuple):
    """A part of the picture, x0 <= x < x1 and y0 <= y < y1."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    @staticmethod
    def around(windows: list[_Window]) -> _Window:
        """The smallest one that holds all others."""
        windows = [w for w in windows if w.x0 < w.x1]
        if not windows:
            return _Window(0, 0, 0, 0)
        x0, y0, x1, y1 = zip(*windows, strict=True)
        return _Window(min(x0), min(y0), max(x1), max(y1))


@dataclass(frozen=True)
class _Placed:
    """A checked mesh, projected (see `to_screen`), and the pixels that it may cover."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    screen: NDArray[np.int64]
    inverse: NDArray[np.float64]
    window: _Window
    label: int

    def draw(
        self,
        K: NDArray[np.float64],
        near: float,
        window: _Window,
        inverse_depth: NDArray[np.float64],
        labels: NDArray[np.uint8] | None = None,
    ) -> None:
        """Draw into buffers that cover `window`."""
        if self.window.x0 < self.window.x1:
            buffers = inverse_depth, labels, self.label, 0
            draw(self.vertices, self.screen, self.inverse, self.faces, K, near, window[:2], *buffers)


def _place(meshes: Sequence[PosedMesh], K: NDArray[np.float64], near: float, width: int, height: int) -> list[_Placed]:
    if len(meshes) > np.iinfo(np.int16).max:
        raise ValueError(f"render: {len(meshes)} meshes, more than {np.iinfo(np.int16).max}")
    placed = []
    for number, mesh in enumerate(meshes):
        vertices, faces = _checked_mesh(mesh, number)
        screen, inverse = np.empty((len(vertices), 2), dtype=np.int64), np.empty(len(vertices))
        left, top, right, bottom, cut = to_screen(vertices, K, near, screen, inverse)
        window = _Window(0, 0, width, height)
        if not cut:  # no pixel lies beyond its corners
            x0, x1 = max(-(-left // SUBPIXELS), 0), min(right // SUBPIXELS + 1, width)
            y0, y1 = max(-(-top // SUBPIXELS), 0), min(bottom // SUBPIXELS + 1, height)
            window = _Window(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else _Window(0, 0, 0, 0)
        placed.append(_Placed(vertices, faces, screen, inverse, window, int(mesh.label)))
    return placed


def _checked_mesh(mesh: PosedMesh, number: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    what = f"render: mesh {number} (label {mesh.label})"
    if not 0 <= mesh.label <= 255:
        raise ValueError(f"{what}: the label must be in 0..255")
    vertices, faces = checked_mesh(mesh.vertices, mesh.faces, what)
    z = vertices[:, 2]
    if len(faces) and not z.max() > 0:
        raise ValueError(
            f"{what} lies wholly behind the camera: z is {z.min():.3f} to {z.max():.3f} m, and the camera looks along "
            "+z (OpenCV); points in OpenGL axes need hodata.pose.camera.flip_opengl"
        )
    return vertices, faces


@njit(nogil=True)
def _merge(own, own_origin, number, nearest, origin, part, silhouette):  # type: ignore[no-untyped-def]
    """Lay one mesh's inverse depths over the others'; how many pixels it covers.

    `own` and `nearest` are windows of the picture whose first pixels are `own_origin` and `origin` (x, y);
    `part` and `silhouette` are as large as the picture.
    """
    covered = 0
    for row in range(own.shape[0]):
        y = row + own_origin[1]
        for column in range(own.shape[1]):
            i = own[row, column]
            if i > 0:
                x = column + own_origin[0]
                covered += 1
                silhouette[y, x] = True
                if i > nearest[y - origin[1], x - origin[0]]:
                    nearest[y - origin[1], x - origin[0]] = i
                    part[y, x] = number
    return covered


@njit(nogil=True)
def _finish(nearest, origin, part, table, labels, depth, areas, boxes):  # type: ignore[no-untyped-def]
    """Fill in labels, depth, visible pixels [P] and their boxes [P, 4]; `nearest` is a window at `origin` (x, y)."""
    for row in range(nearest.shape[0]):
        y = row + origin[1]
        for column in range(nearest.shape[1]):
            x = column + origin[0]
            p = part[y, x]
            if p >= 0:
                labels[y, x] = table[p]
                depth[y, x] = 1.0 / nearest[row, column]
                areas[p] += 1
                boxes[p, 0], boxes[p, 2] = min(boxes[p, 0], x), max(boxes[p, 2], x)
                boxes[p, 1], boxes[p, 3] = min(boxes[p, 1], y), max(boxes[p, 3], y)
