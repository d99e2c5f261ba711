"""A person's arms: the posed hand, the forearm that grows out of its wrist, sleeve and watch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hodata.synth import appearance
from hodata.synth.hand_model import BETAS, HandModel, hand_model
from hodata.synth.hand_shape import CUT

Array = NDArray[np.float64]
Faces = NDArray[np.int32]
RINGS = 12  # of a forearm
SLEEVE_RINGS = 18


@dataclass(frozen=True)
class Person:
    """What does not change about somebody within a recording.

    Args:
        skin: material row [16] of the skin.
        betas: [10] shape of the hands.
        sleeve: material row [16], and how far from the wrist it begins in metres (None: bare forearms).
        watch: material row [16] of something round the wrist, and on which side it is worn (None: nothing).
    """

    skin: Array
    betas: Array
    sleeve: tuple[Array, float] | None
    watch: tuple[Array, str] | None


@dataclass(frozen=True)
class Arm:
    """Surfaces of one arm in one frame: shared vertices, with faces for each surface.

    Args:
        vertices, normals, texture: [V, 3]; texture is the place on the right hand at rest.
        hand, forearm: faces of skin. `sleeve`, `watch`: (vertices, normals, faces) or None.
        joints: [16, 3].
    """

    vertices: Array
    normals: Array
    texture: Array
    hand: Faces
    forearm: Faces
    sleeve: tuple[Array, Array, Faces] | None
    watch: tuple[Array, Array, Faces] | None
    joints: Array


def draw_person(rng: np.random.Generator) -> Person:
    """Somebody: any skin, any hands, long sleeves, short sleeves or none, sometimes a watch."""
    skin = appearance.skin_material(appearance.skin_tone(rng), rng)
    betas = np.clip(rng.normal(0, 0.8, BETAS), -2, 2)
    sleeve = None
    if rng.uniform() < 0.62:
        start = rng.uniform(0.005, 0.05) if rng.uniform() < 0.65 else rng.uniform(0.05, 0.22)
        sleeve = (appearance.cloth_material(rng), float(start))
    watch = None
    if rng.uniform() < 0.25:
        band = appearance.material(0, appearance.any_color(rng), np.zeros(3), gloss=0.3, shininess=40)
        watch = (band, str(rng.choice(["left", "right"])))
    return Person(skin, betas, sleeve, watch)


def vertex_normals(vertices: Array, faces: Faces) -> Array:
    """Unit normals [V, 3], faces weighted by area."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.empty_like(vertices)
    for axis in range(3):
        total[:, axis] = np.bincount(faces.ravel(), np.repeat(normal[:, axis], 3), len(vertices))
    return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12)


def pose_arm(
    person: Person, side: str, R: Array, wrist: Array, pose: Array, elbow: Array, rng: np.random.Generator
) -> Arm:
    """Put an arm into the scene.

    Args:
        R: [3, 3] columns are the hand's axes (fingers, back of the hand, little finger of a right hand).
        wrist, elbow: [3] in the frame of the scene, metres.
        pose: [48] axis-angle of the joints; the first three must be 0.
        rng: wrinkles of the sleeve.
    """
    model = hand_model(side)
    vertices, joints = model.pose(pose, person.betas)
    vertices, joints = vertices @ R.T + wrist, joints @ R.T + wrist
    rings, texture, arc = _forearm(model, vertices, R, elbow)
    points = np.concatenate([vertices, rings[1:].reshape(-1, 3)])
    uv = np.concatenate([hand_model("right").vertices, texture[1:].reshape(-1, 3)])
    n = len(model.loop)
    numbers = np.concatenate([model.loop[None], len(vertices) + np.arange((RINGS - 1) * n).reshape(-1, n)])
    forearm = _strip(numbers)
    normals = vertex_normals(points, np.concatenate([model.faces, forearm]))
    sleeve = watch = None
    if person.sleeve is not None:
        sleeve = _sleeve(rings, arc, person.sleeve[1], rng)
    if person.watch is not None and person.watch[1] == side and (person.sleeve is None or person.sleeve[1] > 0.06):
        watch = _band(rings, arc, 0.012, 0.034, 0.0025)
    return Arm(points, normals, uv, model.faces, forearm, sleeve, watch, joints)


def _forearm(model: HandModel, vertices: Array, R: Array, elbow: Array) -> tuple[Array, Array, Array]:
    """Rings [N, 16, 3] from the wrist's open loop to the elbow, their texture places, and their arc length [N]."""
    loop = vertices[model.loop]
    start = loop.mean(axis=0)
    reach = float(np.linalg.norm(elbow - start))
    # A quadratic curve that leaves the wrist straight back.
    bend = start - R[:, 0] * 0.3 * reach
    t = np.linspace(0, 1, RINGS)[:, None] ** 1.3
    path = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * elbow
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    tangent = np.gradient(path, axis=0)
    tangent[0] = -R[:, 0]
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up, rings = R[:, 1], []
    local = (loop - start) @ R
    direction = local[:, 1:] / np.linalg.norm(local[:, 1:], axis=1, keepdims=True)
    for k in range(RINGS):
        up = up - (up @ tangent[k]) * tangent[k]
        up = up / np.linalg.norm(up)
        side = np.cross(-tangent[k], up)
        grown = min(arc[k] / 0.22, 1.0)
        grown = grown * grown * (3 - 2 * grown)
        size = np.linalg.norm(local[:, 1:], axis=1)
        radius = (1 - grown) * size * (1 + 0.6 * min(arc[k], 0.1)) + grown * 0.041
        offset = radius[:, None] * direction
        rings.append(path[k] + offset[:, :1] * up + offset[:, 1:] * side)
    rest = hand_model("right").vertices[model.loop]
    texture = np.repeat(rest[None], RINGS, axis=0)
    texture[..., 0] = CUT - arc[:, None]
    return np.array(rings), texture, arc


def _strip(numbers: Faces) -> Faces:
    """Faces between rows of rings, turned so that they continue the hand's own."""
    a, b = numbers[:-1], np.roll(numbers, -1, axis=1)[:-1]
    c, d = numbers[1:], np.roll(numbers, -1, axis=1)[1:]
    return np.concatenate(
        [np.stack([b, a, c], axis=-1).reshape(-1, 3), np.stack([b, c, d], axis=-1).reshape(-1, 3)]
    ).astype(np.int32)


def _at(rings: Array, arc: Array, place: float) -> Array:
    """The ring [16, 3] at an arc length."""
    k = int(np.clip(np.searchsorted(arc, place) - 1, 0, len(arc) - 2))
    t = (place - arc[k]) / (arc[k + 1] - arc[k])
    return rings[k] + t * (rings[k + 1] - rings[k])


def _sleeve(rings: Array, arc: Array, start: float, rng: np.random.Generator) -> tuple[Array, Array, Faces]:
    """Cloth round the forearm: loose, with folds across it and a cuff."""
    n = rings.shape[1]
    places = np.linspace(min(start, arc[-1] - 0.03), arc[-1], SLEEVE_RINGS)
    angle = 2 * np.pi * np.arange(n) / n
    phase = rng.uniform(0, 2 * np.pi, 3)
    loose = rng.uniform(0.004, 0.012)
    rows = []
    for place in places:
        ring = _at(rings, arc, place)
        center = ring.mean(axis=0)
        out = (ring - center) / np.linalg.norm(ring - center, axis=1, keepdims=True)
        fold = np.sin(place * 190 + 2 * np.sin(angle + phase[0]) + phase[1])
        fold += 0.7 * np.sin(place * 90 + 3 * angle + phase[2])
        rows.append(ring + out * (0.003 + loose + 0.0022 * fold)[:, None])
    cuff = rows[0].mean(axis=0)
    rows.insert(0, cuff + (rows[0] - cuff) * 0.93)  # the hem turns in
    vertices = np.concatenate(rows)
    faces = _strip(np.arange(len(vertices)).reshape(-1, n).astype(np.int32))
    return vertices, vertex_normals(vertices, faces), faces


def _band(rings: Array, arc: Array, start: float, end: float, thick: float) -> tuple[Array, Array, Faces]:
    rows = []
    for place, out in ((start, 0.0005), (start, thick), (end, thick), (end, 0.0005)):
        ring = _at(rings, arc, place)
        center = ring.mean(axis=0)
        rows.append(ring + (ring - center) / np.linalg.norm(ring - center, axis=1, keepdims=True) * out)
    vertices = np.concatenate(rows)
    faces = _strip(np.arange(len(vertices)).reshape(4, -1).astype(np.int32))
    return vertices, vertex_normals(vertices, faces), faces
