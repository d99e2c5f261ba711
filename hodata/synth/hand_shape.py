"""The stand-in hand's shape: a smooth field, its surface as a mesh, decimated to MANO's counts.

Made from anatomy-like numbers alone; no data of MANO is used. The frame of a right hand at rest: origin at the
wrist joint, x toward the middle finger, y out of the back of the hand, z toward the little finger (the thumb is at
negative z); metres.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hodata.pose.mano import boundary_loop

Array = NDArray[np.float64]
Field = Callable[[Array], Array]

VERTICES = 778
LOOP = 16  # boundary edges at the wrist; with 778 vertices this gives 1,538 faces (Euler)
CUT = -0.010  # the surface is open at this x, behind the wrist joint
CELL = 0.0040

# Joints of the right hand at rest in millimetres, in the order of MANO: wrist; index, middle, little, ring, thumb.
_FINGERS = {
    # name: (base joint, direction angle in the palm plane in degrees, bone lengths, radii at the joints and the tip)
    "index": ((88.0, 3.0, -25.0), -8.0, (39.0, 24.0, 23.0), (10.2, 9.4, 8.6, 7.2)),
    "middle": ((91.0, 5.0, -3.0), -1.0, (43.0, 27.0, 24.0), (10.6, 9.7, 8.8, 7.3)),
    "pinky": ((75.0, -1.0, 38.0), 17.0, (31.0, 19.0, 20.0), (9.0, 8.2, 7.4, 6.3)),
    "ring": ((85.0, 3.0, 18.5), 8.0, (40.0, 26.0, 23.0), (10.2, 9.2, 8.3, 7.0)),
}
_THUMB_BASE = np.array([20.0, -9.0, -21.0])
_THUMB_BONES = ((42.0, (0.66, -0.26, -0.70)), (33.0, (0.80, -0.22, -0.56)), (27.0, (0.86, -0.18, -0.48)))
_THUMB_RADII = (14.0, 11.6, 10.6, 8.4)


def rest_joints() -> tuple[Array, Array]:
    """Joints [16, 3] in MANO's order and finger tips [5, 3] (index, middle, pinky, ring, thumb), metres."""
    joints, tips = [np.zeros(3)], []
    for base, angle, bones, _ in _FINGERS.values():
        direction = np.array([np.cos(np.radians(angle)), 0.0, np.sin(np.radians(angle))])
        chain = np.array(base) + np.cumsum([0.0, *bones])[:, None] * direction
        joints += list(chain[:3])
        tips.append(chain[3])
    chain = [_THUMB_BASE]
    for length, direction_list in _THUMB_BONES:
        direction = np.array(direction_list)
        chain.append(chain[-1] + length * direction / np.linalg.norm(direction))
    return np.array([*joints, *chain[:3]]) / 1000, np.array([*tips, chain[3]]) / 1000


def field(points: Array) -> Array:
    """Signed distance [N], about in metres and negative inside, of points [N, 3]: blended tapered capsules."""
    p = points * 1000
    joints, tips = rest_joints()
    joints, tips = joints * 1000, tips * 1000
    palm = [
        _capsule(p, (-40, 0, -12), (4, 0, -11), 16.5, 16.0),
        _capsule(p, (-40, 0, 12), (4, -1, 11), 16.0, 15.5),
        _capsule(p, (12, -7, -12), joints[14] + (-4, 0, 1), 15.0, 12.0),  # thenar
        _capsule(p, (14, -8, 17), (62, -6, 33), 13.0, 10.5),  # hypothenar
        _capsule(p, (42, -6, -29), (72, -2, -28), 11.0, 8.5),  # web of the thumb
    ]
    for finger, (base, start) in enumerate(zip((1, 4, 7, 10), (-13, -4, 15, 6), strict=True)):
        radius = (11.6, 11.8, 10.3, 11.3)[finger]
        palm.append(_capsule(p, (4, 1, start), joints[base] - (2, 2.5, 0), 14.5, radius))
    parts = [_blend(palm, 5.0) + 1.5]
    for finger, (_, _, _, radii) in enumerate(_FINGERS.values()):
        chain = [*joints[1 + 3 * finger : 4 + 3 * finger], tips[finger]]
        parts.append(_finger(p, np.array(chain), radii))
    parts.append(_finger(p, np.array([*joints[13:16], tips[4]]), _THUMB_RADII))
    return _blend(parts, 2.6) / 1000


def _finger(p: Array, chain: Array, radii: tuple[float, ...]) -> Array:
    """Three bones, with slightly thicker joints and a flattened tip."""
    end = chain[3] - (chain[3] - chain[2]) / np.linalg.norm(chain[3] - chain[2]) * radii[3]
    bones = [
        _capsule(p, chain[0], chain[1], radii[0], radii[1]),
        _capsule(p, chain[1], chain[2], radii[1], radii[2]),
        _capsule(p, chain[2], end, radii[2], radii[3]),
    ]
    pads = [  # the soft undersides between the creases, and the knuckle
        _capsule(p, (0.7 * a + 0.3 * b) - (0, 1.6, 0), (0.35 * a + 0.65 * b) - (0, 1.8, 0), 0.93 * r, 0.93 * s)
        for a, b, r, s in zip(chain[:3], [*chain[1:3], end], radii[:3], radii[1:], strict=True)
    ]
    knuckle = np.linalg.norm(p - (chain[1] + (0, 0.9, 0)), axis=1) - radii[1] * 1.02
    return _blend([*bones, *pads, knuckle], 1.0) + 0.9


def _capsule(p: Array, a: object, b: object, ra: float, rb: float) -> Array:
    """Distance to a segment whose radius changes from `ra` to `rb`."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    along = b - a
    t = np.clip((p - a) @ along / (along @ along), 0.0, 1.0)
    return np.linalg.norm(p - a - t[:, None] * along, axis=1) - (ra + t * (rb - ra))


def _blend(distances: list[Array], softness: float) -> Array:
    """A smooth minimum: surfaces closer than a few `softness` flow together."""
    return -softness * np.logaddexp.reduce(-np.stack(distances) / softness, axis=0)


def template() -> tuple[Array, NDArray[np.int32]]:
    """The right hand at rest: vertices float64 [778, 3] in metres, faces int32 [1538, 3] counter-clockwise outside."""
    vertices, faces = _surface_nets(field)
    vertices = _project(vertices)
    vertices, faces = _decimate(vertices, faces, VERTICES)
    for _ in range(3):  # even out the triangles, stay on the surface
        vertices = _project(_relax(vertices, faces, 0.4))
    return vertices, faces


def _surface_nets(distance: Field) -> tuple[Array, NDArray[np.int32]]:
    """Naive surface nets (Gibson 1998): one vertex per cell that the surface crosses, one quad per crossed edge."""
    low, high = np.array([CUT, -0.055, -0.100]), np.array([0.200, 0.035, 0.075])
    shape = np.ceil((high - low) / CELL).astype(int) + 1
    axes = [low[k] + CELL * np.arange(shape[k]) for k in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    value = distance(grid.reshape(-1, 3)).reshape(shape)
    inside = value < 0
    total = np.zeros((*(shape - 1), 3))
    count = np.zeros(shape - 1)
    corners = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    for first in corners:
        for axis in range(3):
            if first[axis] == 0:
                second = tuple(v + (n == axis) for n, v in enumerate(first))
                a, b = _corner(value, first), _corner(value, second)
                crossed = (a < 0) != (b < 0)
                t = np.where(crossed, a / np.where(crossed, a - b, 1.0), 0.0)
                point = np.array(first) + t[..., None] * (np.array(second) - np.array(first))
                total += np.where(crossed[..., None], point, 0.0)
                count += crossed
    used = count > 0
    number = np.full(used.shape, -1)
    number[used] = np.arange(used.sum())
    cell = np.stack(np.nonzero(used), axis=1)
    vertices = low + CELL * (cell + total[used] / count[used][:, None])
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        solid = np.moveaxis(inside, (axis, u, v), (0, 1, 2))
        n = np.moveaxis(number, (axis, u, v), (0, 1, 2))
        crossed = solid[:-1, 1:-1, 1:-1] != solid[1:, 1:-1, 1:-1]
        i, j, k = np.nonzero(crossed)
        outward = solid[:-1, 1:-1, 1:-1][i, j, k]
        j, k = j + 1, k + 1
        quad = np.stack([n[i, j - 1, k - 1], n[i, j, k - 1], n[i, j, k], n[i, j - 1, k]], axis=1)
        quad[~outward] = quad[~outward][:, ::-1]
        faces.append(quad)
    quads = np.concatenate(faces)
    # Split each quad along its shorter diagonal.
    flat = np.linalg.norm(vertices[quads[:, 0]] - vertices[quads[:, 2]], axis=1) <= np.linalg.norm(
        vertices[quads[:, 1]] - vertices[quads[:, 3]], axis=1
    )
    one = np.where(flat[:, None], quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    two = np.where(flat[:, None], quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    triangles = np.concatenate([one, two])
    # The rim: pull it onto the cut.
    rim = boundary_loop(triangles.astype(np.int32))
    vertices[rim, 0] = CUT
    return vertices, triangles.astype(np.int32)


def _corner(value: Array, offset: tuple[int, ...]) -> Array:
    i, j, k = offset
    n = value.shape
    return value[i : n[0] - 1 + i, j : n[1] - 1 + j, k : n[2] - 1 + k]


def gradient(points: Array) -> Array:
    """Unit gradient [N, 3] of the field: the outward normal."""
    step = 2e-4
    g = np.stack([field(points + step * e) - field(points - step * e) for e in np.eye(3)], axis=1)
    return g / np.linalg.norm(g, axis=1, keepdims=True)


def _project(vertices: Array) -> Array:
    """Move vertices onto the surface along the gradient; those on the rim stay in the plane of the cut."""
    for _ in range(3):
        rim = np.abs(vertices[:, 0] - CUT) < 1e-9
        step = gradient(vertices)
        step[rim, 0] = 0.0
        vertices = vertices - np.clip(field(vertices), -0.002, 0.002)[:, None] * step
    return vertices


def _relax(vertices: Array, faces: NDArray[np.int32], amount: float) -> Array:
    total, count = np.zeros_like(vertices), np.zeros(len(vertices))
    for a, b in ((0, 1), (1, 2), (2, 0)):
        for i, j in ((a, b), (b, a)):
            np.add.at(total, faces[:, i], vertices[faces[:, j]])
            np.add.at(count, faces[:, i], 1)
    moved = vertices + amount * (total / count[:, None] - vertices)
    rim = np.abs(vertices[:, 0] - CUT) < 1e-9
    moved[rim] = vertices[rim]
    return moved


def _decimate(vertices: Array, faces: NDArray[np.int32], target: int) -> tuple[Array, NDArray[np.int32]]:
    """Collapse edges to their middle, cheapest quadric error first (Garland and Heckbert 1997).

    The rim is brought to `LOOP` edges first; the surface stays a manifold (link condition), no face turns over.
    """
    points = [tuple(v) for v in vertices.tolist()]
    ring: list[set[int]] = [set() for _ in points]  # faces at each vertex
    triangles: list[tuple[int, int, int] | None] = [tuple(f) for f in faces.tolist()]
    normals = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    planes = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    offsets = -np.einsum("ij,ij->i", planes, vertices[faces[:, 0]])
    quadric = np.zeros((len(points), 10))
    h = np.column_stack([planes, offsets])
    area = 0.5 * np.linalg.norm(normals, axis=1)
    terms = np.stack([h[:, i] * h[:, j] for i in range(4) for j in range(i, 4)], axis=1) * area[:, None]
    for k in range(3):
        np.add.at(quadric, faces[:, k], terms)
    errors = quadric.tolist()
    for number, triangle in enumerate(faces.tolist()):
        for v in triangle:
            ring[v].add(number)
    rim = set(boundary_loop(faces).tolist())
    alive = len(points)
    stamp = [0] * len(points)
    heap: list[tuple[float, int, int, int, int]] = []

    def near(v: int) -> set[int]:
        return {w for f in ring[v] for w in triangles[f] or ()} - {v}

    def push(a: int, b: int) -> None:
        if (a in rim) != (b in rim):
            return  # would pull the rim in
        p, q = points[a], points[b]
        x, y, z = ((p[k] + q[k]) / 2 for k in range(3))
        xx, xy, xz, x1, yy, yz, y1, zz, z1, one = (m + n for m, n in zip(errors[a], errors[b], strict=True))
        error = xx * x * x + yy * y * y + zz * z * z + one
        error += 2 * (xy * x * y + xz * x * z + yz * y * z + x1 * x + y1 * y + z1 * z)
        length = sum((p[k] - q[k]) ** 2 for k in range(3))
        if a in rim:  # the rim is thinned out before anything else
            heapq.heappush(heap, (-1.0 / length, a, b, stamp[a], stamp[b]))
            return
        # The small second term keeps flat regions from becoming slivers.
        heapq.heappush(heap, (max(error, 0.0) + 2e-8 * length + 0.01 * length * length, a, b, stamp[a], stamp[b]))

    for a in range(len(points)):
        for b in near(a):
            if a < b:
                push(a, b)
    rim_left = len(rim)
    while alive > target and heap:
        _, a, b, sa, sb = heapq.heappop(heap)
        if stamp[a] != sa or stamp[b] != sb:
            continue
        on_rim = a in rim
        shared = ring[a] & ring[b]
        if on_rim and (len(shared) != 1 or rim_left <= LOOP):
            continue
        if len(near(a) & near(b)) != len(shared) or (not on_rim and len(shared) != 2):
            continue
        middle = tuple((p + q) / 2 for p, q in zip(points[a], points[b], strict=True))
        if _turns_over(a, b, middle, ring, triangles, points, shared):
            continue
        points[a] = middle
        errors[a] = [m + n for m, n in zip(errors[a], errors[b], strict=True)]
        for f in shared:
            for v in triangles[f] or ():
                ring[v].discard(f)
            triangles[f] = None
        for f in list(ring[b]):
            triangles[f] = tuple(a if v == b else v for v in triangles[f] or ())  # type: ignore[assignment]
            ring[a].add(f)
        ring[b].clear()
        stamp[b] = -1
        stamp[a] += 1
        rim_left -= on_rim
        alive -= 1
        for other in near(a):
            push(min(a, other), max(a, other))
    kept = np.array([v for v in range(len(points)) if stamp[v] >= 0])
    renumbered = np.full(len(points), -1)
    renumbered[kept] = np.arange(len(kept))
    left = np.array([f for f in triangles if f is not None])
    return np.array(points)[kept], renumbered[left].astype(np.int32)


def _turns_over(a, b, middle, ring, triangles, points, shared) -> bool:  # type: ignore[no-untyped-def]
    for v in (a, b):
        for f in ring[v] - shared:
            p, q, r = (points[w] for w in triangles[f])
            s, t, u = (middle if w == v else points[w] for w in triangles[f])
            if _dot(_normal(p, q, r), _normal(s, t, u)) <= 0:
                return True
    return False


def _normal(p, q, r):  # type: ignore[no-untyped-def]
    x0, y0, z0 = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    x1, y1, z1 = r[0] - p[0], r[1] - p[1], r[2] - p[2]
    return y0 * z1 - z0 * y1, z0 * x1 - x0 * z1, x0 * y1 - y0 * x1


def _dot(p, q) -> float:  # type: ignore[no-untyped-def]
    return float(p[0] * q[0] + p[1] * q[1] + p[2] * q[2])
