"""Stand-ins for the ten YCB objects of HO-3D: plain shapes of about the real sizes, no data of the real scans.

As with the real meshes the frame is not centred on the object: HO-3D's poses refer to the mesh's own frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hodata.synth.lofts import Skin, Surface, loft, oval, rounded_box, sweep
from hodata.synth.solids import Mesh, Solid

Array = NDArray[np.float64]

# Name -> extents in x, y, z (metres): FORMATS of the real meshes, to the millimetre; z points up as it lies about.
EXTENTS = {
    "003_cracker_box": (0.072, 0.164, 0.213),
    "004_sugar_box": (0.050, 0.094, 0.176),
    "006_mustard_bottle": (0.097, 0.067, 0.191),
    "010_potted_meat_can": (0.101, 0.059, 0.083),
    "011_banana": (0.108, 0.178, 0.037),
    "019_pitcher_base": (0.149, 0.144, 0.242),
    "021_bleach_cleanser": (0.102, 0.068, 0.251),
    "025_mug": (0.117, 0.093, 0.081),
    "035_power_drill": (0.184, 0.187, 0.057),
    "037_scissors": (0.095, 0.201, 0.016),
}
# The number of each in the list of 21 YCB-Video objects.
LABELS = {
    "003_cracker_box": 2, "004_sugar_box": 3, "006_mustard_bottle": 5, "010_potted_meat_can": 9, "011_banana": 10,
    "019_pitcher_base": 11, "021_bleach_cleanser": 12, "025_mug": 14, "035_power_drill": 15, "037_scissors": 17,
}  # fmt: skip


@dataclass(frozen=True)
class Hold:
    """One way to take an object, in its own frame.

    Args:
        at: [3] where the hand closes.
        thumb: [3] from the little finger's side of the palm to the thumb's.
        inward: [3] from the palm into the object.
        grip: half width of what is between the fingers, metres.
    """

    at: tuple[float, float, float]
    thumb: tuple[float, float, float]
    inward: tuple[float, float, float]
    grip: float


@dataclass(frozen=True)
class Stand:
    """A stand-in: its surface (`skin` measures distances to it), the solid made of it, how it can be held."""

    name: str
    surface: Surface
    skin: Skin
    solid: Solid
    holds: tuple[Hold, ...]

    def corners(self) -> Array:
        """[8, 3] corners of the axis-aligned box, x fastest."""
        low, high = self.surface.vertices.min(axis=0), self.surface.vertices.max(axis=0)
        return np.array([[(low, high)[(k >> axis) & 1][axis] for axis in range(3)] for k in range(8)])


@lru_cache(maxsize=16)
def stand_in(name: str) -> Stand:
    """The stand-in for a YCB object.

    Raises:
        ValueError: no such object.
    """
    if name not in EXTENTS:
        raise ValueError(f"no stand-in is called {name!r}; there are {', '.join(EXTENTS)}")
    surface, holds = _SHAPES[name]()
    low, high = surface.vertices.min(axis=0), surface.vertices.max(axis=0)
    scale = np.array(EXTENTS[name]) / (high - low)
    # Some point a few centimetres off the middle is the origin, a different one for each object.
    k = list(EXTENTS).index(name)
    shift = np.array([0.011 * np.cos(2.1 * k), 0.013 * np.sin(1.7 * k + 0.5), 0.009 + 0.004 * k])
    offset = shift - 0.5 * (low + high) * scale
    surface = Surface(surface.vertices * scale + offset, surface.faces, surface.slots)
    moved = tuple(Hold(tuple(np.array(h.at) * scale + offset), h.thumb, h.inward, h.grip) for h in holds)
    grip = min(h.grip for h in holds)
    skin = Skin(surface)
    return Stand(name, surface, skin, Solid(name, draw_mesh(surface), (skin,), grip, 0.0), moved)


def draw_mesh(surface: Surface) -> Mesh:
    """The surface with one vertex for each corner normal, as the shading wants it."""
    keys = np.concatenate([surface.faces.reshape(-1, 1), surface.corner_normals().reshape(-1, 3).round(6)], axis=1)
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    faces = inverse.reshape(-1, 3).astype(np.int32)
    return Mesh(surface.vertices[unique[:, 0].astype(int)], unique[:, 1:], faces, surface.slots)


_Made = tuple[Surface, list[Hold]]


def _sides(height: float, x: float, grip: float) -> list[Hold]:
    """Holds round an upright thing, thumb up, the palm on its left or right end in x."""
    return [Hold((0, 0, height), (0, 0, 1), (s * x, 0, 0), grip) for s in (1.0, -1.0)]


def _cracker() -> _Made:
    box = rounded_box((0.036, 0.082, 0.1065), 0.003)
    holds = [Hold((0, 0, z), (0, 0, 1), (0, s, 0), 0.036) for s in (1, -1) for z in (-0.02, 0.03)]
    return box, [*holds, Hold((0, 0, 0.05), (0, 1, 0), (0, 0, -1), 0.036)]


def _sugar() -> _Made:
    box = rounded_box((0.025, 0.047, 0.088), 0.002)
    holds = [Hold((0, 0, 0.01), (0, 0, 1), (0, s, 0), 0.025) for s in (1, -1)]
    return box, [
        *holds,
        Hold((0, 0, 0.04), (0, 1, 0), (0, 0, -1), 0.025),
        Hold((0, 0, 0.02), (0, 0, 1), (1, 0, 0), 0.047),
    ]


def _mustard() -> _Made:
    rings = [(0.0, 0.042, 0.028), (0.004, 0.047, 0.032), (0.05, 0.0485, 0.0335), (0.10, 0.046, 0.031)]
    rings += [(0.13, 0.036, 0.026), (0.15, 0.017, 0.016), (0.152, 0.017, 0.016), (0.152, 0.020, 0.019)]
    rings += [(0.170, 0.019, 0.018), (0.172, 0.008, 0.008), (0.188, 0.005, 0.005), (0.191, 0.004, 0.004)]
    body = loft([oval(*ring, power=2.3) for ring in rings], [0] * 6 + [1] * 5)
    return body, _sides(0.085, 1, 0.032)


def _potted() -> _Made:
    rings = [(0.0, 0.048, 0.027), (0.003, 0.0505, 0.0295), (0.008, 0.049, 0.028), (0.075, 0.049, 0.028)]
    rings += [(0.080, 0.0505, 0.0295), (0.083, 0.0505, 0.0295), (0.083, 0.047, 0.026), (0.079, 0.046, 0.025)]
    can = loft([oval(*ring, power=3.5) for ring in rings], [1, 1, 0, 1, 1, 1, 1])
    return can, [*_sides(0.042, 1, 0.028), Hold((0, 0, 0.07), (1, 0, 0), (0, 0, -1), 0.028)]


def _banana() -> _Made:
    angle = np.linspace(-1.05, 1.05, 28)
    path = np.column_stack([0.115 * np.cos(angle), 0.105 * np.sin(angle), 0.0 * angle])
    s = np.abs(np.linspace(-1, 1, 28))
    thick = 0.018 * np.sqrt(np.clip(1 - 0.85 * s**3, 0.03, 1))
    thick[-4:] = (0.0075, 0.006, 0.0055, 0.006)  # the stem
    slots = [1] * 2 + [0] * 21 + [1] * 4
    fruit = loft(sweep(path, thick, 1.02 * thick, (0, 0, 1), 2.2, 24), slots)
    mid = (0.115, 0.0, 0.0)
    return fruit, [Hold(mid, (0, y, 0), inward, 0.018) for y in (1, -1) for inward in ((-1, 0, 0), (0, 0, -1))]


def _pitcher() -> _Made:
    outer = [(0.0, 0.050), (0.004, 0.054), (0.235, 0.058), (0.242, 0.061)]
    inner = [(0.242, 0.057), (0.235, 0.054), (0.012, 0.049)]
    body = loft([oval(z, r, r, n=44) for z, r in (*outer, *inner)], [0, 0, 1, 1, 1, 0])
    d = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    shape = [(0.050, 0.205), (0.085, 0.208), (0.105, 0.203), (0.117, 0.188), (0.119, 0.15), (0.117, 0.10)]
    shape += [(0.110, 0.065), (0.095, 0.050), (0.075, 0.045), (0.048, 0.043)]
    path = np.array([r * d + (0, 0, z) for r, z in shape])
    handle = loft(sweep(path, np.full(10, 0.012), np.full(10, 0.010), (d[1], -d[0], 0), 2.5, 18), [1] * 9)
    at = tuple(0.119 * d + (0, 0, 0.135))
    return body.joined(handle), [Hold(at, (0, 0, 1), tuple(-d), 0.011)]


def _bleach() -> _Made:
    rings = [(0.0, 0.046, 0.029), (0.005, 0.0505, 0.0335), (0.06, 0.051, 0.034), (0.12, 0.047, 0.033)]
    rings += [(0.155, 0.049, 0.033), (0.18, 0.042, 0.029), (0.205, 0.022, 0.021), (0.215, 0.017, 0.017)]
    rings += [(0.215, 0.021, 0.021), (0.247, 0.020, 0.020), (0.251, 0.017, 0.017)]
    body = loft([oval(*ring, power=2.4) for ring in rings], [0] * 7 + [1] * 3)
    return body, [*_sides(0.12, 1, 0.033), *_sides(0.09, 1, 0.033)]


def _mug() -> _Made:
    rings = [(0.0, 0.042), (0.003, 0.0455), (0.081, 0.0465), (0.081, 0.0430), (0.009, 0.041)]
    body = loft([oval(z, r, r, n=44) for z, r in rings], [0, 0, 1, 1])
    angle = np.linspace(-1.75, 1.75, 16)
    path = np.column_stack([0.041 + 0.026 * np.cos(angle), 0 * angle, 0.041 + 0.027 * np.sin(angle)])
    handle = loft(sweep(path, np.full(16, 0.0045), np.full(16, 0.006), (0, 1, 0), 2.2, 16))
    turned = [(np.cos(a), np.sin(a)) for a in (0.0, 0.9, -0.9)]
    holds = [Hold((0, 0, 0.042), (0, 0, 1), (c, s, 0), 0.046) for c, s in turned]
    return body.joined(handle), holds


def _drill() -> _Made:
    def along_x(rows: list[tuple[float, float, float]], slots: list[int]) -> Surface:
        rings = [oval(0.0, ry, rz, 2.4, n=32) for _, ry, rz in rows]
        places = [(x, 0.055) for x, _, _ in rows]
        return loft(
            [np.column_stack([0 * r[:, 0] + x, y + r[:, 0], r[:, 1]]) for (x, y), r in zip(places, rings, strict=True)],
            slots,
        )

    rows = [(-0.085, 0.020, 0.020), (-0.080, 0.027, 0.0275), (0.02, 0.0285, 0.0285), (0.035, 0.024, 0.024)]
    rows += [(0.055, 0.020, 0.020), (0.058, 0.016, 0.016), (0.088, 0.011, 0.011), (0.098, 0.006, 0.006)]
    body = along_x(rows, [0, 0, 0, 0, 1, 1, 1])
    path = np.array([(-0.045 - 0.022 * t, 0.05 - 0.125 * t, 0.0) for t in np.linspace(0, 1, 12)])
    grip = loft(sweep(path, np.full(12, 0.0205), np.full(12, 0.0175), (0, 0, 1), 2.4, 28), [1] * 11)
    base = rounded_box((0.045, 0.020, 0.0285), 0.004)
    base = Surface(base.vertices + np.array([-0.050, -0.082, 0.0]), base.faces, base.slots)
    lean = (0.173, 0.985, 0.0)
    return body.joined(grip, base), [Hold((-0.055, -0.015, 0.0), lean, (0.985, -0.173, 0), 0.018)]


def _scissors() -> _Made:
    def blade(side: float, z: float) -> Surface:
        rows = [(-0.02, 0.011), (0.02, 0.009), (0.06, 0.006), (0.092, 0.001)]
        path = np.array([(side * -0.004 * (1 - y / 0.1), y, z) for y, _ in rows])
        return loft(sweep(path, np.array([w for _, w in rows]), np.full(4, 0.0018), (0, 0, 1), 6.0, 16), [1] * 3)

    def ring(side: float, z: float) -> Surface:
        a = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        center = np.array([side * 0.025, -0.070, z])
        points = center + np.column_stack([0.017 * np.cos(a), 0.030 * np.sin(a), 0 * a])
        out = np.column_stack([np.cos(a) / 0.017, np.sin(a) / 0.030, 0 * a])
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        b = 2 * np.pi * np.arange(14) / 14
        rings = [
            p + 0.0055 * np.cos(b)[:, None] * o + 0.007 * np.sin(b)[:, None] * np.array([0, 0, 1.0])
            for p, o in zip(points, out, strict=True)
        ]
        return loft(rings, closed=True)

    def shank(side: float, z: float) -> Surface:
        path = np.array([(side * x, y, z) for x, y in ((0.016, -0.050), (0.008, -0.03), (0.0, -0.012), (-0.002, 0.0))])
        return loft(sweep(path, np.full(4, 0.0075), np.full(4, 0.0045), (0, 0, 1), 3.0, 16))

    halves = [part(s, 0.0012 * s) for s in (1.0, -1.0) for part in (blade, ring, shank)]
    holds = [Hold((0, -0.045, 0), (0, 1, 0), (0, 0, s), 0.007) for s in (1, -1)]
    return halves[0].joined(*halves[1:]), holds


_SHAPES = {
    "003_cracker_box": _cracker,
    "004_sugar_box": _sugar,
    "006_mustard_bottle": _mustard,
    "010_potted_meat_can": _potted,
    "011_banana": _banana,
    "019_pitcher_base": _pitcher,
    "021_bleach_cleanser": _bleach,
    "025_mug": _mug,
    "035_power_drill": _drill,
    "037_scissors": _scissors,
}
