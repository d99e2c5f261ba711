"""Closed surfaces from cross-sections, their sharp edges, and the distance to any closed mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hodata.kernels import njit
from hodata.synth.streams import stream

Array = NDArray[np.float64]
Faces = NDArray[np.int32]

CREASE = np.cos(np.radians(40))  # faces that meet at a sharper angle keep an edge
STEP = 0.006  # metres: rings along a loft are not farther apart
SAMPLES = 16000  # points that stand for a surface when its nearest face is looked for
CANDIDATES = 10  # nearest samples whose faces are tried


@dataclass(frozen=True)
class Surface:
    """Vertices [V, 3], each once, and faces [F, 3] counter-clockwise seen from outside; material slot [F]."""

    vertices: Array
    faces: Faces
    slots: Faces

    def joined(self, *others: Surface) -> Surface:
        """All of them as one; they may run into each other."""
        parts = (self, *others)
        starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
        faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
        return Surface(
            np.concatenate([part.vertices for part in parts]),
            faces.astype(np.int32),
            np.concatenate([part.slots for part in parts]),
        )

    def corner_normals(self) -> Array:
        """Unit normals [F, 3, 3] at each face's corners: the mean over faces that meet there without an edge."""
        corners = self.vertices[self.faces]
        area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        unit = area / np.linalg.norm(area, axis=1, keepdims=True)
        order = np.argsort(self.faces.ravel(), kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(self.faces.ravel(), minlength=len(self.vertices)))])
        normals = np.empty((len(self.faces) * 3, 3))
        for start, end in pairwise(bounds):
            here = order[start:end]
            around = here // 3
            smooth = unit[around] @ unit[around].T > CREASE
            normals[here] = smooth @ area[around]
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return normals.reshape(-1, 3, 3)


def loft(rings: Sequence[Array], slots: Sequence[int] | None = None, closed: bool = False) -> Surface:
    """A skin over rings [S, 3], closed by a lid at both ends, or (`closed`) from the last ring back to the first.

    Args:
        rings: same number of points in each; a sudden change of size is an edge.
        slots: material of each gap between rings (the lids take their neighbour's); 0 by default.
    """
    slots = list(slots or [0] * (len(rings) if closed else len(rings) - 1))
    rows, row_slots = [rings[0]], []
    pairs = list(zip(rings, [*rings[1:], *([rings[0]] if closed else [])], strict=False))
    for (a, b), slot in zip(pairs, slots, strict=True):
        count = max(1, int(np.ceil(np.linalg.norm(b - a, axis=1).max() / STEP)))
        rows += [a + (b - a) * (k / count) for k in range(1, count + 1)]
        row_slots += [slot] * count
    if closed:
        rows.pop()
    else:
        ends = [(row.mean(axis=0), row) for row in (rows[0], rows[-1])]
        lids = [[middle + (row - middle) * share for share in (0.35, 0.7)] for middle, row in ends]
        rows = [*lids[0], *rows, *lids[1][::-1]]
        row_slots = [slots[0]] * 2 + row_slots + [slots[-1]] * 2
    n = len(rings[0])
    vertices = np.concatenate(rows)
    i, j = np.arange(n), np.roll(np.arange(n), -1)
    faces, face_slots = [], []
    for k, slot in enumerate(row_slots):
        this, next_ = k * n, (k + 1) % len(rows) * n
        faces.append(np.column_stack([this + i, this + j, next_ + i]))
        faces.append(np.column_stack([this + j, next_ + j, next_ + i]))
        face_slots += [np.full(2 * n, slot)]
    if not closed:
        first, last = len(vertices), len(vertices) + 1
        end = (len(rows) - 1) * n
        faces += [np.column_stack([0 * i + first, j, i]), np.column_stack([0 * i + last, end + i, end + j])]
        face_slots += [np.full(n, slots[0]), np.full(n, slots[-1])]
        vertices = np.concatenate([vertices, rows[0].mean(axis=0)[None], rows[-1].mean(axis=0)[None]])
    surface = Surface(vertices, np.concatenate(faces).astype(np.int32), np.concatenate(face_slots).astype(np.int32))
    corners = surface.vertices[surface.faces]
    if np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0:  # inside out
        return Surface(surface.vertices, np.ascontiguousarray(surface.faces[:, ::-1]), surface.slots)
    return surface


def oval(
    z: float, rx: float, ry: float, power: float = 2.0, at: tuple[float, float] = (0.0, 0.0), n: int = 40
) -> Array:
    """A ring [n, 3] about the z axis: an ellipse for power 2, nearer to a rectangle for more (superellipse)."""
    angle = 2 * np.pi * (np.arange(n) + 0.5) / n
    c, s = np.cos(angle), np.sin(angle)
    r = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)
    return np.column_stack([at[0] + rx * r * c, at[1] + ry * r * s, np.full(n, z)])


def sweep(path: Array, width: Array, height: Array, up: tuple[float, float, float], power: float = 2.0, n: int = 20):  # type: ignore[no-untyped-def]
    """Rings along a path [N, 3]: half sizes `height` [N] along `up` and `width` [N] across it and the path."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    rings = []
    for point, t, w, h in zip(path, tangent, width, height, strict=True):
        side = np.cross(t, up)
        side /= np.linalg.norm(side)
        rings.append(point + oval(0.0, w, h, power, n=n)[:, :2] @ np.stack([side, np.cross(side, t)]))
    return rings


def rounded_box(half: tuple[float, float, float], radius: float, cell: float = 0.008) -> Surface:
    """A box about the origin whose edges have a radius: a grid on a box, moved onto the rounded surface."""
    size = np.array(half)
    ticks = []
    for h in half:
        inner = np.linspace(-(h - radius), h - radius, max(2, int(np.ceil(2 * (h - radius) / cell)) + 1))
        ticks.append(np.concatenate([[-h, -h + 0.42 * radius], inner, [h - 0.42 * radius, h]]))
    number: dict[tuple[int, int, int], int] = {}
    faces: list[list[int]] = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for end in (0, len(ticks[axis]) - 1):
            for a in range(len(ticks[u]) - 1):
                for b in range(len(ticks[v]) - 1):
                    quad = []
                    for p, q in ((a, b), (a + 1, b), (a + 1, b + 1), (a, b + 1)):
                        key = [0, 0, 0]
                        key[axis], key[u], key[v] = end, p, q
                        quad.append(number.setdefault((key[0], key[1], key[2]), len(number)))
                    quad = quad if end else quad[::-1]
                    faces += [[quad[0], quad[1], quad[2]], [quad[0], quad[2], quad[3]]]
    grid = np.array([[ticks[k][key[k]] for k in range(3)] for key in number])
    core = np.clip(grid, radius - size, size - radius)
    out = grid - core
    vertices = core + radius * out / np.linalg.norm(out, axis=1, keepdims=True)
    return Surface(vertices, np.array(faces, dtype=np.int32), np.zeros(len(faces), dtype=np.int32))


@dataclass(frozen=True)
class Skin:
    """A closed surface as something that fingers meet: the nearest point on it, and the signed distance to it."""

    surface: Surface

    @cached_property
    def _samples(self):  # type: ignore[no-untyped-def]
        """A tree of points spread evenly over the surface, and the face of each."""
        from scipy.spatial import cKDTree

        rng = stream(0, "skin")
        corners = self.surface.vertices[self.surface.faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        face = np.searchsorted(np.cumsum(area) / area.sum(), (np.arange(SAMPLES) + 0.5) / SAMPLES)
        face = np.minimum(face, len(area) - 1)
        a, b = np.sqrt(rng.uniform(size=SAMPLES)), rng.uniform(size=SAMPLES)
        weights = np.stack([1 - a, a * (1 - b), a * b], axis=1)
        return cKDTree(np.einsum("nk,nkc->nc", weights, corners[face])), face

    def nearest(self, points: Array) -> tuple[Array, Array]:
        """The nearest point [N, 3] of the surface to each point [N, 3], and the signed distance [N] to it."""
        tree, face_of = self._samples
        candidates = face_of[tree.query(points, k=CANDIDATES)[1]]
        spots, distance = np.empty((len(points), 3)), np.empty(len(points))
        corners = self.surface.vertices[self.surface.faces]
        _nearest(np.ascontiguousarray(points, dtype=np.float64), candidates, corners, spots, distance)
        return spots, distance

    def distance(self, p: Array) -> Array:
        """Signed distance [...] of points [..., 3]: negative inside."""
        return self.nearest(p.reshape(-1, 3))[1].reshape(p.shape[:-1])

    def gap(self, points: Array) -> float:
        """Distance between the surface and the nearest of some points [N, 3]; exact to a fraction of a millimetre."""
        near = np.argsort(self._samples[0].query(points)[0], kind="stable")[:48]
        return float(np.abs(self.distance(points[near])).min())


@njit(inline="always")
def _dot(x, y):  # type: ignore[no-untyped-def]
    return x[0] * y[0] + x[1] * y[1] + x[2] * y[2]


@njit()
def closest_on_triangle(p, a, b, c):  # type: ignore[no-untyped-def]
    """Weights of a, b, c at the triangle's point nearest to p: Ericson, Real-Time Collision Detection, section 5.1.5.

    All are [3].
    """
    ab, ac = b - a, c - a
    ap, bp, cp = p - a, p - b, p - c
    d1, d2, d3, d4, d5, d6 = _dot(ab, ap), _dot(ac, ap), _dot(ab, bp), _dot(ac, bp), _dot(ab, cp), _dot(ac, cp)
    if d1 <= 0 and d2 <= 0:
        return 1.0, 0.0, 0.0
    if d3 >= 0 and d4 <= d3:
        return 0.0, 1.0, 0.0
    if d6 >= 0 and d5 <= d6:
        return 0.0, 0.0, 1.0
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0:
        t = d1 / (d1 - d3)
        return 1 - t, t, 0.0
    if vb <= 0 and d2 >= 0 and d6 <= 0:
        t = d2 / (d2 - d6)
        return 1 - t, 0.0, t
    if va <= 0 and d4 >= d3 and d5 >= d6:
        t = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        return 0.0, 1 - t, t
    total = va + vb + vc
    return va / total, vb / total, vc / total


@njit()
def _nearest(points, candidates, corners, spots, distance):  # type: ignore[no-untyped-def]
    """Fill `spots` [N, 3] and signed `distance` [N] from the candidate faces [N, K] of each point."""
    away, normal = np.empty(3), np.empty(3)
    for n in range(len(points)):
        best, facing = np.inf, -1.0
        for f in candidates[n]:
            a, b, c = corners[f, 0], corners[f, 1], corners[f, 2]
            wa, wb, wc = closest_on_triangle(points[n], a, b, c)
            for k in range(3):
                away[k] = points[n, k] - wa * a[k] - wb * b[k] - wc * c[k]
                i, j = (k + 1) % 3, (k + 2) % 3
                normal[k] = (b[i] - a[i]) * (c[j] - a[j]) - (b[j] - a[j]) * (c[i] - a[i])
            length = np.sqrt(_dot(away, away))
            if length > best + 1e-7:
                continue
            # Where faces tie (at an edge, at a corner) the one that faces the point most knows the side.
            height = _dot(away, normal) / np.sqrt(_dot(normal, normal))
            if length < best - 1e-7 or abs(height) > facing:
                best, facing = length, abs(height)
                distance[n] = -length if height < 0 else length
                for k in range(3):
                    spots[n, k] = points[n, k] - away[k]
