"""Everyday things as meshes with a signed distance: cans, bottles, mugs, boxes, tools, cards, game pieces.

Every solid stands along its own z axis with the origin in the middle of where a hand would take it; metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hodata.kernels import njit

Array = NDArray[np.float64]
Faces = NDArray[np.int32]
SEGMENTS = 28  # of a lathed outline
CREASE = np.cos(np.radians(38))  # sharper corners of an outline get an edge


@dataclass(frozen=True)
class Mesh:
    """Vertices [V, 3], unit normals [V, 3], faces [F, 3] and the material slot [F] of each face."""

    vertices: Array
    normals: Array
    faces: Faces
    slots: Faces

    def moved(self, R: Array, t: Array) -> Mesh:
        """Turned by R [3, 3], then moved by t [3]."""
        return replace(self, vertices=self.vertices @ R.T + t, normals=self.normals @ R.T)


class Body(Protocol):
    """Something that fingers meet."""

    def distance(self, p: Array) -> Array:
        """Signed distance [...] of points [..., 3]: negative inside."""


@dataclass(frozen=True)
class Box:
    """A box about `center` with half sizes `half`, both [3]."""

    center: Array
    half: Array

    def distance(self, p: Array) -> Array:
        q = np.abs(p - self.center) - self.half
        return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(axis=-1), 0)


@dataclass(frozen=True)
class Lathe:
    """A body of revolution about z: radius at each height, heights ascending."""

    radius: Array
    height: Array

    def distance(self, p: Array) -> Array:
        flat = np.ascontiguousarray(p.reshape(-1, 3), dtype=np.float64)
        return _lathe_distance(flat, self.radius, self.height).reshape(p.shape[:-1])


@dataclass(frozen=True)
class Solid:
    """A thing that can be held.

    Args:
        kind: its everyday name.
        mesh: what is drawn; material slots 0 (body) and 1 (accent).
        bodies: what fingers meet.
        grip: half width of what the fingers close round, metres.
        reach: how far from the origin, along z, a hand may take it, metres.
        tip: [3] the far end with which it touches other things, for tools.
    """

    kind: str
    mesh: Mesh
    bodies: tuple[Body, ...]
    grip: float
    reach: float
    tip: Array | None = None

    def distance(self, points: Array) -> Array:
        """Signed distance [...] of points [..., 3]: negative inside."""
        best = self.bodies[0].distance(points)
        for body in self.bodies[1:]:
            best = np.minimum(best, body.distance(points))
        return best

    def half_extent(self) -> Array:
        """[3] largest absolute coordinates."""
        return np.abs(self.mesh.vertices).max(axis=0)


KINDS = (
    "can", "bottle", "mug", "cup", "ball", "carton", "box", "book", "phone", "apple", "jar",
    "screwdriver", "hammer", "knife", "marker", "brush",
)  # fmt: skip
TOOLS = ("screwdriver", "knife", "marker", "brush")


def make_solid(kind: str, rng: np.random.Generator) -> Solid:
    """A solid of a kind named in `KINDS`, or `card`, `block`, `pawn`, `crate`, `bowl`; sizes are drawn from `rng`."""
    u = rng.uniform
    if kind == "can":
        r, h = u(0.029, 0.041), u(0.048, 0.075)
        return _lathe(kind, [(0.88 * r, -h), (r, -h + 0.004), (r, h - 0.005), (0.85 * r, h)], r, 0.4 * h)
    if kind in ("jar", "cup"):
        r, h = u(0.032, 0.044), u(0.045, 0.068)
        low = r * (u(0.72, 0.9) if kind == "cup" else 1.0)
        outline = [(low, -h), (r, h)] if kind == "cup" else [(r, -h), (r, 0.6 * h), (0.8 * r, 0.7 * h)]
        if kind == "cup":
            return _open(_lathe(kind, outline, r, 0.3 * h), r, low, h)
        lid = [(0.9 * r, 0.7 * h), (0.9 * r, h)]
        return _lathe(kind, [*outline, *lid], r, 0.3 * h, accent_from=3)
    if kind == "bottle":
        r, h, neck = u(0.028, 0.040), u(0.090, 0.130), u(0.011, 0.015)
        s = u(0.25, 0.5) * h
        outline = [(0.92 * r, -h), (r, -h + 0.006), (r, s), (0.8 * r, s + 0.014), (neck, s + 0.035)]
        outline += [(neck, 0.85 * h), (1.3 * neck, 0.85 * h), (1.3 * neck, h)]
        return _lathe(kind, outline, r, 0.3 * h, accent_from=5)
    if kind == "mug":
        r, h = u(0.037, 0.048), u(0.042, 0.056)
        solid = _open(_lathe(kind, [(0.95 * r, -h), (r, -h + 0.005), (r, h)], r, 0.2 * h), r, r, h)
        angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 10)
        path = np.column_stack([r - 0.003 + 0.026 * np.cos(angle), 0 * angle, 0.68 * h * np.sin(angle)])
        return replace(solid, mesh=_join(solid.mesh, tube(path, np.full(10, 0.0055), 10, slot=0)))
    if kind in ("ball", "apple"):
        r = u(0.028, 0.045)
        a = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 13)[1:-1]
        squash = 0.92 if kind == "apple" else 1.0
        return _lathe(kind, [(r * np.cos(x), squash * r * np.sin(x)) for x in a], r, 0.1 * r)
    if kind in ("box", "carton"):
        half = np.array([u(0.016, 0.030), u(0.028, 0.048), u(0.060, 0.100)])
        return _box(kind, half, min(half[:2]), 0.5 * half[2])
    if kind in ("book", "phone"):
        thick = u(0.008, 0.016) if kind == "book" else u(0.0035, 0.005)
        half = np.array([thick, u(0.035, 0.042), u(0.068, 0.085)]) * (1.0 if kind == "phone" else u(1.05, 1.45))
        return _box(kind, half, half[0], 0.3 * half[2])
    if kind == "crate":
        half = np.array([u(0.060, 0.11), u(0.045, 0.09), u(0.035, 0.09)])
        return _box(kind, half, half[0], 0.3 * half[2])
    if kind == "card":
        return _box(kind, np.array([0.0009, u(0.028, 0.032), u(0.042, 0.047)]), 0.001, 0.02)
    if kind == "block":
        return _box(kind, np.array([0.0075, 0.0125, 0.0375]), 0.0075, 0.02)
    if kind == "pawn":
        r, h = u(0.011, 0.015), u(0.022, 0.034)
        outline = [(r, -h), (r, -0.8 * h), (0.5 * r, -0.4 * h), (0.4 * r, 0.3 * h), (0.7 * r, 0.45 * h)]
        outline += [(0.75 * r, 0.7 * h), (0.5 * r, 0.93 * h), (0.1 * r, h)]
        return _lathe(kind, outline, 0.6 * r, 0.2 * h)
    if kind == "bowl":
        r, h = u(0.065, 0.095), u(0.028, 0.042)
        return _open(_lathe(kind, [(0.5 * r, -h), (0.8 * r, -0.3 * h), (r, h)], r, 0.1 * h), r, 0.5 * r, h)
    if kind in ("screwdriver", "knife", "marker", "brush", "hammer"):
        return _tool(kind, rng)
    raise ValueError(f"no solid is called {kind!r}; known: {', '.join(KINDS)}")


def _tool(kind: str, rng: np.random.Generator) -> Solid:
    u = rng.uniform
    r, h = u(0.009, 0.015), u(0.045, 0.060)
    if kind == "marker":
        r *= 0.75
    outline = [(0.8 * r, -h), (r, -0.8 * h), (0.88 * r, 0.2 * h), (r, 0.8 * h), (0.6 * r, h)]
    if kind == "hammer":
        h = u(0.09, 0.12)
        outline = [(0.9 * r, -0.6 * h), (r, -0.2 * h), (0.8 * r, h)]
        solid = _lathe(kind, outline, r, 0.3 * h)
        head = Box(np.array([0.0, 0.0, h]), np.array([0.013, u(0.040, 0.055), 0.014]))
        mesh = _join(solid.mesh, box_mesh(head.center, head.half, slot=1))
        return replace(solid, mesh=mesh, bodies=(*solid.bodies, head))
    solid = _lathe(kind, outline, r, 0.15 * h)
    length = u(0.055, 0.100)
    tip = np.array([0.0, 0.0, h + length])
    if kind == "knife":
        blade = Box(np.array([0, 0.25 * r, h + 0.5 * length]), np.array([0.0012, 0.9 * r + 0.003, 0.5 * length]))
        extra = box_mesh(blade.center, blade.half, slot=1)
        return replace(solid, mesh=_join(solid.mesh, extra), bodies=(*solid.bodies, blade), tip=tip)
    if kind == "brush":
        shape = [(0.3 * r, h), (0.35 * r, h + 0.5 * length), (1.2 * r, h + 0.55 * length), (0.9 * r, h + length)]
    else:
        thin = 0.25 if kind == "screwdriver" else 0.7
        shape = [(thin * r, h), (thin * r, h + 0.8 * length), (0.08 * r, h + length)]
        if kind == "marker":
            length = 0.5 * length
            tip = np.array([0.0, 0.0, h + length])
            shape = [(0.95 * r, h), (0.95 * r, h + 0.6 * length), (0.15 * r, h + length)]
    extra = _lathe(kind, shape, r, 0.0).mesh
    extra = replace(extra, slots=np.ones_like(extra.slots))
    shaft = Lathe(np.array([q[0] for q in shape]), np.array([q[1] for q in shape]))
    return replace(solid, mesh=_join(solid.mesh, extra), bodies=(*solid.bodies, shaft), tip=tip)


def _lathe(kind: str, outline: list[tuple[float, float]], grip: float, reach: float, accent_from: int = 99) -> Solid:
    """A body of revolution from its outline (radius, height), bottom to top, closed at both ends."""
    points = np.array([(0.0, outline[0][1]), *outline, (0.0, outline[-1][1])])
    body = Lathe(np.array([p[0] for p in outline]), np.array([p[1] for p in outline]))
    mesh = _revolve(points, [int(k > accent_from) for k in range(len(points) - 1)])
    return Solid(kind, mesh, (body,), grip, reach)


def _open(solid: Solid, rim: float, floor: float, h: float) -> Solid:
    """The same with a hollow: the lid gives way to an inner wall."""
    outer = solid.bodies[0]
    assert isinstance(outer, Lathe)
    wall = 0.003
    outline = [(0.0, outer.height[0]), *zip(outer.radius, outer.height, strict=True)]
    outline += [(rim - wall, h), (max(floor - wall, 0.01), -h + 0.012), (0.0, -h + 0.012)]
    inner = len(outline) - 3
    mesh = _revolve(np.array(outline), [int(k >= inner) for k in range(len(outline) - 1)])
    return replace(solid, mesh=mesh)


def _revolve(outline: Array, slots: list[int]) -> Mesh:
    """Turn an outline [N, 2] of (radius, height) about z; edges sharper than `CREASE` stay sharp."""
    angle = 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    tangent = np.diff(outline, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-12
    normal = np.column_stack([tangent[:, 1], -tangent[:, 0]])
    vertices: list[Array] = []
    normals, faces, face_slots = [], [], []
    for k in range(len(outline) - 1):
        ends = []
        for end, other in ((k, k - 1), (k + 1, k + 1)):
            n = normal[k]
            if 0 <= other < len(normal) and tangent[k] @ tangent[other] > CREASE:
                n = normal[k] + normal[other]
                n = n / np.linalg.norm(n)
            ends.append(len(vertices) * SEGMENTS)
            r, z = outline[end]
            vertices.append(np.column_stack([r * circle, np.full(SEGMENTS, z)]))
            normals.append(np.column_stack([n[0] * circle, np.full(SEGMENTS, n[1])]))
        quads = _ring_faces(ends[0], ends[1], SEGMENTS)
        faces.append(quads)
        face_slots.append(np.full(len(quads), slots[k]))
    return Mesh(np.concatenate(vertices), np.concatenate(normals), np.concatenate(faces), np.concatenate(face_slots))


def _ring_faces(a: int, b: int, n: int) -> Faces:
    """Two triangles for each gap between ring `a` and ring `b` of n vertices."""
    i = np.arange(n)
    j = (i + 1) % n
    return np.concatenate([np.column_stack([a + i, a + j, b + i]), np.column_stack([a + j, b + j, b + i])]).astype(
        np.int32
    )


def _box(kind: str, half: Array, grip: float, reach: float) -> Solid:
    center = np.zeros(3)
    return Solid(kind, box_mesh(center, half, 0), (Box(center, half),), grip, reach)


def box_mesh(center: Array, half: Array, slot: int) -> Mesh:
    """A box with sharp edges about `center` [3], half sizes `half` [3]."""
    vertices, normals = [], []
    faces: list[list[list[int]]] = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1.0, 1.0):
            corner = np.zeros((4, 3))
            corner[:, axis] = sign
            corner[:, u] = np.array([-1, 1, 1, -1]) * sign
            corner[:, v] = [-1, -1, 1, 1]
            normal = np.zeros(3)
            normal[axis] = sign
            start = 4 * len(faces)
            vertices.append(center + corner * half)
            normals.append(np.tile(normal, (4, 1)))
            faces.append([[start, start + 1, start + 2], [start, start + 2, start + 3]])
    all_faces = np.array(faces, dtype=np.int32).reshape(-1, 3)
    return Mesh(np.concatenate(vertices), np.concatenate(normals), all_faces, np.full(12, slot))


def unit_ball() -> tuple[Array, Faces]:
    """Vertices [V, 3] (also their own normals) and faces [F, 3] of a ball about the origin."""
    u = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 13)[:, None]
    v = 2 * np.pi * np.arange(24)[None] / 24
    unit = np.stack([np.cos(u) * np.cos(v), np.cos(u) * np.sin(v), np.sin(u) + 0 * v], axis=-1).reshape(-1, 3)
    i = np.arange(12 * 24).reshape(12, 24)
    j = np.roll(i, -1, axis=1)
    faces = np.concatenate(
        [np.stack([i, j, i + 24], -1).reshape(-1, 3), np.stack([j, j + 24, i + 24], -1).reshape(-1, 3)]
    ).astype(np.int32)
    return unit, faces


def tube(path: Array, radius: Array, segments: int, slot: int) -> Mesh:
    """A round tube along a path [N, 3] with a radius [N] at each point; open ends."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent[0], [0.31, 0.87, 0.38])
    angle = 2 * np.pi * np.arange(segments) / segments
    vertices, normals, faces = [], [], []
    for k in range(len(path)):
        side = side - (side @ tangent[k]) * tangent[k]
        side = side / np.linalg.norm(side)
        other = np.cross(tangent[k], side)
        n = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * other
        vertices.append(path[k] + radius[k] * n)
        normals.append(n)
        if k:
            faces.append(_ring_faces((k - 1) * segments, k * segments, segments))
    all_faces = np.concatenate(faces)
    return Mesh(np.concatenate(vertices), np.concatenate(normals), all_faces, np.full(len(all_faces), slot))


def _join(a: Mesh, b: Mesh) -> Mesh:
    return Mesh(
        np.concatenate([a.vertices, b.vertices]),
        np.concatenate([a.normals, b.normals]),
        np.concatenate([a.faces, b.faces + len(a.vertices)]).astype(np.int32),
        np.concatenate([a.slots, b.slots]),
    )


@njit()
def _lathe_distance(points, radius, height):  # type: ignore[no-untyped-def]
    """Signed distance [N] to the body of revolution whose outline runs from the axis to the axis."""
    count = radius.shape[0]
    out = np.empty(points.shape[0])
    for n in range(points.shape[0]):
        rho = np.sqrt(points[n, 0] ** 2 + points[n, 1] ** 2)
        z = points[n, 2]
        best = np.inf
        inside = False
        for k in range(-1, count):
            r0, h0 = (0.0, height[0]) if k < 0 else (radius[k], height[k])
            r1, h1 = (0.0, height[count - 1]) if k == count - 1 else (radius[k + 1], height[k + 1])
            dr, dh = r1 - r0, h1 - h0
            t = ((rho - r0) * dr + (z - h0) * dh) / max(dr * dr + dh * dh, 1e-12)
            t = min(max(t, 0.0), 1.0)
            best = min(best, (rho - r0 - t * dr) ** 2 + (z - h0 - t * dh) ** 2)
            if h0 < z <= h1 and rho < r0 + dr * (z - h0) / dh:
                inside = True
        out[n] = -np.sqrt(best) if inside else np.sqrt(best)
    return out
