"""HO-3D's kind of picture: somebody behind a table handles one YCB object; fixed cameras look on from outside.

A recording has one person, one object, one grasp and up to five cameras; hand and object move smoothly with the frame
number (30 a second). `hold`: the object is in the hand throughout. `lift`: the hand comes to the object on the table,
takes it, moves it about and puts it back. `rest`: the hand moves beside an object that it never touches.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import intrinsics, look_at, transform
from hodata.pose.rasterize import label_map, rasterize
from hodata.synth import appearance, textures
from hodata.synth.body import pose_arm
from hodata.synth.hand_model import hand_model
from hodata.synth.holding import draw_thing, lay_down
from hodata.synth.scene import Shot
from hodata.synth.solids import tube, unit_ball
from hodata.synth.stage_ego import UP, add_table
from hodata.synth.table_take import PERIOD, RATE, Plot, Take, instant, take_of
from hodata.synth.world import OWNER_SELF, PlacedObject, World
from hodata.synth.ycb_shapes import EXTENTS

Array = NDArray[np.float64]
Lying = tuple[PlacedObject, list[Array]]  # a thing with its materials

TOUCH = 0.005  # metres: a hand this near to the object holds it
FOREARM = 0.26  # metres from wrist to elbow
SHOULDER = np.array([0.20, -0.33, 0.37])
SAMPLES = 7  # instants by which a recording's cameras and things on the table are chosen
MIDDLE = np.array([0.05, 0.28, 0.12])  # about where hands work


def compose(seed: int, recording: int, frame: int, size: tuple[int, int], camera: int) -> Shot:
    """A frame of a made-up recording; `compose_take` takes HO-3D's own names."""
    action = ("hold", "lift", "hold", "rest")[recording % 4]
    plot = Plot(seed, f"T{recording}", str(recording), list(EXTENTS)[recording % len(EXTENTS)], action)
    return compose_take(plot, frame, size, camera)


def compose_take(plot: Plot, frame: int, size: tuple[int, int], camera: int) -> Shot:
    """A frame (30 a second) of a recording from one of its cameras, 0 to 4."""
    take = take_of(plot)
    T, K = camera_of(plot, camera)
    room = _room(plot, camera)
    exposure, blur, noise = take.look
    view = _world(plot, take, frame, _lying(plot)).view(T, scaled(K, size), size)
    return Shot(
        view, take.light, lambda version: room, MIDDLE, 0.45,
        exposure=exposure, blur=blur, noise=noise, vignette=0.06,
        noise_seed=int(plot.stream(frame, camera).integers(1 << 30)),
    )  # fmt: skip


def scaled(K: Array, size: tuple[int, int]) -> Array:
    """K [3, 3] of pictures of 640x480, for the same pictures at another size."""
    s = np.array([size[0] / 640, size[1] / 480])
    out = K.copy()
    out[:2] *= s[:, None]
    out[:2, 2] += 0.5 * s - 0.5  # pixel centres lie at integer coordinates
    return out


def _world(plot: Plot, take: Take, frame: int, lying: list[Lying]) -> World:
    now = instant(take, frame)
    world = World()
    elbow = _elbow(now.wrist)
    folds = plot.stream("sleeve")  # the same in every frame
    arm = pose_arm(take.person, "right", now.R, now.wrist, now.pose, elbow, folds)
    world.add_arm(take.person, "right", now.R, now.wrist, now.pose, arm, OWNER_SELF)
    hand = world.hands[0].vertices
    gap = take.stand.skin.gap((hand - now.t_object) @ now.R_object)
    label = Label.OBJECT_RIGHT if gap <= TOUCH else Label.OBJECT
    world.add_object(take.stand.name, take.stand.solid.mesh, now.R_object, now.t_object, take.materials, label)
    _add_sitter(world, take, elbow)
    for item, materials in lying:
        world.add_object(item.kind, item.mesh, item.R, item.t, materials, Label.BACKGROUND)
    add_table(world, take.table, np.array([0.75, 0.50]), (0.0, 0.42))
    return world


def _elbow(wrist: Array) -> Array:
    toward = np.array([0.30, -0.08, 0.05]) - wrist
    return wrist + FOREARM * toward / np.linalg.norm(toward)


def _add_sitter(world: World, take: Take, elbow: Array) -> None:
    """Upper arms (the left one hangs down), body and face of who sits behind the table."""
    skin = take.person.skin
    for shoulder, joint, label in (
        (SHOULDER, elbow, Label.RIGHT_ARM),
        (SHOULDER * (-1, 1, 1), np.array([-0.26, -0.24, 0.02]), Label.LEFT_ARM),
    ):
        path = joint + np.linspace(-0.09, 1.0, 14)[:, None] * (shoulder - joint)
        radius = np.interp(np.linspace(-0.09, 1.0, 14), [-0.09, 0.0, 0.3, 1.0], [0.012, 0.046, 0.05, 0.06])
        mesh = tube(path, radius, 20, 0)
        bare = take.person.sleeve is None
        part = mesh.faces.max(axis=1) < 20 * 7
        cloth = [(mesh.faces[~part], take.shirt, label), (mesh.faces[part], skin if bare else take.shirt, label)]
        world.add(mesh.vertices, mesh.normals, mesh.vertices - joint, cloth, OWNER_SELF)
    unit, faces = unit_ball()
    face = appearance.material(textures.FACE, skin[1:4], np.array([0.05, 0.035, 0.03]), grain=0.1, gloss=0.02, seed=7)
    for center, half, row, texture in (
        ((0.0, -0.42, 0.10), (0.21, 0.13, 0.36), take.shirt, unit * 0.3),
        ((0.0, -0.36, 0.53), (0.075, 0.095, 0.115), face, unit * (-1, -1, 1)),
    ):
        normals = unit / half
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        world.add(unit * half + center, normals, texture, [(faces, row, Label.BACKGROUND)])


def _instants() -> list[int]:
    """Frame numbers that stand for a whole recording."""
    return [round(k * PERIOD * RATE / SAMPLES) for k in range(SAMPLES)]


@lru_cache(maxsize=4)
def _lying(plot: Plot) -> list[Lying]:
    """Things on the table where neither hand nor object comes."""
    there, rng = World(), plot.stream("things")
    for frame in _instants():
        there.occupied().extend(_world(plot, take_of(plot), frame, []).occupied())
    things = [draw_thing(rng) for _ in range(int(rng.integers(2, 6)))]
    lay_down(there, things, rng, (-0.45, 0.40, -0.02, 0.80), 0.04)
    look = {id(thing.solid.mesh): thing.materials for thing in things}
    return [(item, look[id(item.mesh)]) for item in there.objects]


@lru_cache(maxsize=8)
def _room(plot: Plot, camera: int) -> NDArray[np.float32]:
    return appearance.backdrop(plot.stream("room", camera), (200, 266), 30)


@lru_cache(maxsize=2)
def _samples(plot: Plot) -> list[World]:
    return [_world(plot, take_of(plot), frame, _lying(plot)) for frame in _instants()]


@lru_cache(maxsize=32)
def camera_of(plot: Plot, number: int) -> tuple[Array, Array]:
    """T_camera_from_world and K of a camera from which hand and object are mostly seen in all frames."""
    worlds, rng = _samples(plot), plot.stream("camera", number)
    middle = np.mean([world.hands[0].joints[4] for world in worlds], axis=0)
    azimuth = np.radians((-15.0, -75.0, 45.0, -45.0, 20.0)[number])
    rise = np.radians((28.0, 24.0, 38.0, 50.0, 62.0)[number])
    best, least = None, np.inf
    for attempt in range(8):
        spread = 0.12 + 0.05 * attempt
        a, e = azimuth + rng.normal(0, spread), rise + rng.normal(0, 0.1)
        flat = np.array([np.sin(a), np.cos(a), 0.0]) * np.cos(e)
        eye = middle + rng.uniform(0.53, 0.83) * (flat + np.sin(e) * UP)
        T = look_at(eye, middle + rng.normal(0, 0.02, 3), roll=rng.normal(0, 0.04))
        # A real camera's middle is never far off; readers tell resized pictures by it.
        focal, x, y = rng.uniform(605, 625), *np.clip((rng.normal(0, 6), rng.normal(0, 5)), (-26, -19), (26, 19))
        K = intrinsics(focal, (640, 480), (320 + x, 240 + y))
        hidden = float(np.mean([_hidden(world, T, K) for world in worlds]))
        if hidden < least:
            best, least = (T, K), hidden
        if hidden < 0.002:
            break
    assert best is not None
    return best


def _hidden(world: World, T: Array, K: Array) -> float:
    """How much of hand and object is covered by other things or lies outside, and a part of what the hand hides."""
    size = (160, 120)
    alone = pair_map(world, T, scaled(K, size), size)
    view = world.view(T, scaled(K, size), size)
    truth = view.truth
    covered = (alone > 0) & ~np.isin(truth, (Label.RIGHT_HAND, Label.OBJECT_RIGHT, Label.OBJECT))
    inner = alone.copy()
    inner[3:-3, 3:-3] = 0
    total = max(int((alone > 0).sum()), 1)
    seen = (alone == Label.RIGHT_HAND).sum() / total
    return float(covered.sum() + (inner > 0).sum()) / total + 0.2 * max(0.2 - float(seen), 0.0)


def pair_map(world: World, T_camera_from_world: Array, K: Array, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Hand and object alone, as a renderer that knows nothing else draws them: uint8 [H, W] of label ids."""
    hand, item = world.hands[0], world.objects[0]
    model = hand_model("right")
    vertices = np.concatenate([hand.vertices, item.mesh.vertices @ item.R.T + item.t])
    faces = np.concatenate([model.faces, item.mesh.faces + len(hand.vertices)])
    raster = rasterize(transform(T_camera_from_world, vertices), faces, K, size)
    labels = np.where(np.arange(len(faces)) < len(model.faces), np.uint8(Label.RIGHT_HAND), np.uint8(item.label))
    return label_map(raster.face, labels)
