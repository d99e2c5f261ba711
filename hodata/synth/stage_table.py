"""HO-3D's kind of picture: somebody behind a table handles one YCB object; fixed cameras look on from outside.

A recording has one person, one object, one grasp and up to five cameras; hand and object move smoothly with the frame
number (30 a second). `hold`: the object is in the hand throughout. `lift`: the hand comes to the object on the table,
takes it, moves it about and puts it back. `rest`: the hand moves beside an object that it never touches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import intrinsics, look_at, rodrigues, transform
from hodata.pose.rasterize import label_map, rasterize
from hodata.synth import appearance, shade, textures
from hodata.synth.body import Person, draw_person, pose_arm
from hodata.synth.grasp import Grasp, free_pose, grasp_at
from hodata.synth.hand_model import hand_model
from hodata.synth.holding import PALM, draw_thing, hand_axes, lay_down
from hodata.synth.scene import Shot
from hodata.synth.solids import tube, unit_ball
from hodata.synth.stage_ego import UP, add_table
from hodata.synth.streams import stream
from hodata.synth.world import OWNER_SELF, PlacedObject, World
from hodata.synth.ycb_shapes import EXTENTS, Stand, stand_in

Array = NDArray[np.float64]

ACTIONS = ("hold", "lift", "rest")
CAMERAS = 5
RATE = 30.0  # frames a second
PERIOD = 7.0  # seconds of a `lift`, from one reach to the next
TOUCH = 0.005  # metres: a hand this near to the object holds it
FOREARM = 0.26  # metres from wrist to elbow
SHOULDER = np.array([0.20, -0.33, 0.37])
SAMPLES = 7  # instants by which a recording's cameras and things on the table are chosen
MIDDLE = np.array([0.05, 0.28, 0.12])  # about where hands work


@dataclass(frozen=True)
class Plot:
    """What a recording is about: everything else hangs on these words.

    Args:
        recording, subject: names; a subject has the same hands and skin in all recordings.
        thing: a YCB object.
        action: one of `ACTIONS`.
    """

    seed: int
    recording: str
    subject: str
    thing: str
    action: str

    def stream(self, *path: int | str) -> np.random.Generator:
        return stream(self.seed, "table", self.recording, *path)


@dataclass(frozen=True)
class Take:
    """What stays the same in a recording.

    Args:
        grasp: the object in the hand's frame.
        R, wrist: the hand's axes and wrist before it moves. `R_object`, `t_object`: the object on the table.
        beats: [12, 3] amplitude, frequency (Hz) and phase of slow movements: 3 turns, 3 shifts, twice.
        fingers: [45, 2] frequency (Hz) and phase of their small movements.
        lying: things that nobody touches.
        look: exposure, blur, noise.
    """

    action: str
    person: Person
    shirt: Array
    stand: Stand
    materials: list[Array]
    grasp: Grasp
    R: Array
    wrist: Array
    R_object: Array
    t_object: Array
    beats: Array
    fingers: Array
    lying: list[tuple[PlacedObject, list[Array]]]
    table: Array
    light: shade.Light
    look: tuple[float, float, float]


def compose(seed: int, recording: int, frame: int, size: tuple[int, int], camera: int) -> Shot:
    """A frame of a made-up recording; `compose_take` takes HO-3D's own names."""
    action = ("hold", "lift", "hold", "rest")[recording % 4]
    plot = Plot(seed, f"T{recording}", str(recording), list(EXTENTS)[recording % len(EXTENTS)], action)
    return compose_take(plot, frame, size, camera)


def compose_take(plot: Plot, frame: int, size: tuple[int, int], camera: int) -> Shot:
    """A frame (30 a second) of a recording from one of its cameras, 0 to 4."""
    take = _take(plot)
    T, K = camera_of(plot, camera)
    room = _room(plot, camera)
    exposure, blur, noise = take.look
    return Shot(
        _world(plot, take, frame).view(T, scaled(K, size), size), take.light, lambda version: room, MIDDLE, 0.45,
        exposure=exposure, blur=blur, noise=noise, vignette=0.06,
        noise_seed=int(plot.stream(frame, camera).integers(1 << 30)),
    )  # fmt: skip


def scaled(K: Array, size: tuple[int, int], full: tuple[int, int] = (640, 480)) -> Array:
    """K [3, 3] of pictures of `full` size, for the same pictures at another size."""
    s = np.array([size[0] / full[0], size[1] / full[1]])
    out = K.copy()
    out[:2] *= s[:, None]
    out[:2, 2] += 0.5 * s - 0.5  # pixel centres lie at integer coordinates
    return out


@lru_cache(maxsize=4)
def _take(plot: Plot) -> Take:
    part = plot.stream
    person = draw_person(stream(plot.seed, "table", "subject", plot.subject))
    clothes = draw_person(part("clothes"))
    sleeve = None if clothes.sleeve is None else (clothes.sleeve[0], max(clothes.sleeve[1], 0.02))
    person = replace(person, sleeve=sleeve, watch=clothes.watch)
    shirt = sleeve[0] if sleeve is not None else appearance.cloth_material(part("shirt"))
    stand = stand_in(plot.thing)
    paint = stream(plot.seed, "table", "object", plot.thing)
    height = float(np.abs(stand.surface.vertices[:, 2]).max())
    materials = [appearance.thing_material(paint, height) for _ in range(2)]
    rng = part("pose")
    grasp = _best_grasp(stand, person, plot.action == "lift", part("grasp"))
    R_object, t_object = _stand_on_table(stand, rng)
    if plot.action == "lift":
        # The hand comes in from the elbow's side: turn the object until the fingers point away from it.
        forward = R_object @ grasp.R.T[:, 0]
        turn = np.arctan2(0.9, -0.35 + rng.normal(0, 0.3)) - np.arctan2(forward[1], forward[0])
        R_object = rodrigues([0.0, 0.0, turn]) @ R_object
        R = R_object @ grasp.R.T
        wrist = t_object - R @ grasp.t
    else:
        at = np.array([rng.uniform(0.0, 0.10), rng.uniform(0.24, 0.33), rng.uniform(0.13, 0.20)])
        forward = np.array([rng.normal(-0.45, 0.25), 0.8, rng.normal(0.1, 0.2)])
        R = hand_axes(forward, UP, "right", rng.uniform(0.0, 1.9))
        wrist = at - R @ PALM
        if plot.action == "rest":
            grasp = replace(grasp, pose=free_pose("right", rng))
            t_object = t_object + np.array([-0.19, 0.06, 0.0])
    amplitudes = np.array([0.32, 0.32, 0.45, 0.04, 0.035, 0.025] * 2) * np.repeat([1.0, 0.35], 6)
    speeds = np.concatenate([rng.uniform(0.12, 0.30, 6), rng.uniform(0.4, 0.7, 6)])
    beats = np.column_stack([amplitudes * rng.uniform(0.6, 1.3, 12), speeds, rng.uniform(0, 2 * np.pi, 12)])
    fingers = np.column_stack([rng.uniform(0.2, 0.8, 45), rng.uniform(0, 2 * np.pi, 45)])
    look = part("look")
    take = Take(
        plot.action, person, shirt, stand, materials, grasp, R, wrist, R_object, t_object, beats, fingers, [],
        appearance.table_material(part("table")),
        appearance.draw_light(part("light"), np.array([0.0, 1.0, 0.0]), UP),
        (look.uniform(0.85, 1.2), look.uniform(0.4, 1.1), look.uniform(2, 6)),
    )  # fmt: skip
    return replace(take, lying=_furnish(plot, take, part("things")))


def _best_grasp(stand: Stand, person: Person, lying: bool, rng: np.random.Generator) -> Grasp:
    """Of some ways to take the object the one that touches it most and enters it least."""
    best, best_score = None, -np.inf
    for _ in range(10):
        holds = stand.holds
        if lying:  # the forearm must be able to lie level, the palm must not look up
            holds = tuple(h for h in holds if abs(np.cross(h.thumb, h.inward)[2]) < 0.3 and h.inward[2] < 0.1)
        hold = holds[int(rng.integers(len(holds)))]
        y, z = -np.array(hold.inward), -np.array(hold.thumb)
        axes = np.stack([np.cross(y, z), y, z]) / np.linalg.norm(np.stack([np.cross(y, z), y, z]), axis=1)[:, None]
        R = rodrigues([rng.normal(0, 0.06), rng.normal(-0.05, 0.16), rng.normal(0, 0.05)]) @ axes
        x = 0.072 + 0.25 * min(hold.grip, 0.03) + rng.uniform(-0.005, 0.005)
        t = np.array([x, -0.22, rng.uniform(-0.004, 0.004)]) - R @ np.array(hold.at)
        g = grasp_at(person.betas, stand.solid, R, t, 0.0, rng)
        vertices, _ = hand_model("right").pose(g.pose, person.betas)
        gap = stand.solid.distance((vertices - g.t) @ g.R)
        too_deep = max(-0.004 - float(gap.min()), 0.0) / 0.001
        score = float((np.abs(gap) < 0.003).sum()) - 15.0 * float((gap < -0.003).sum()) - 200.0 * too_deep
        if score > best_score or best is None:
            best, best_score = g, score
    assert best is not None
    return best


def _stand_on_table(stand: Stand, rng: np.random.Generator) -> tuple[Array, Array]:
    """Where the object stands (R, t) when nobody holds it: on the table as its mesh does, any way round."""
    R = rodrigues([0.0, 0.0, rng.uniform(0, 2 * np.pi)])
    bottom = float(stand.surface.vertices[:, 2].min())
    return R, np.array([rng.uniform(0.0, 0.08), rng.uniform(0.26, 0.34), 0.0005 - bottom])


def _ease(t: float) -> float:
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class _Instant:
    """Hand and object at one time; `pose` [48] with the first three 0."""

    R: Array
    wrist: Array
    pose: Array
    R_object: Array
    t_object: Array


def _instant(take: Take, frame: int) -> _Instant:
    seconds = frame / RATE
    waves = (take.beats[:, 0] * np.sin(2 * np.pi * take.beats[:, 1] * seconds + take.beats[:, 2])).reshape(2, 6).sum(0)
    away, up = 0.0, 1.0
    if take.action == "lift":
        u = (seconds / PERIOD + 0.02) % 1.0
        away = 0.16 * (1 - _ease(u / 0.2) + _ease((u - 0.88) / 0.12))
        up = _ease((u - 0.2) / 0.16) - _ease((u - 0.74) / 0.12)
        waves = waves * up + np.array([0, 0, 0, 0, 0, 0.10]) * up
    W, shift = rodrigues(waves[:3]), waves[3:]
    pivot = take.wrist + take.R @ PALM
    R = W @ take.R
    wrist = W @ (take.wrist - pivot) + pivot + shift
    if take.action == "rest":
        R_object, t_object = take.R_object, take.t_object
    else:
        R_object, t_object = R @ take.grasp.R, R @ take.grasp.t + wrist
    pose = take.grasp.pose.copy()
    pose[3:] += 0.010 * np.sin(2 * np.pi * take.fingers[:, 0] * seconds + take.fingers[:, 1])
    if away > 0:  # the hand opens, then leaves backward and off the palm
        pose *= 1 - 0.75 * min(away / 0.06, 1.0)
        wrist = wrist + away * R @ np.array([-0.75, 0.62, 0.0]) + np.array([0.0, 0.0, 0.1 * away])
    hand = hand_model("right").pose(pose, take.person.betas)[0] @ R.T + wrist
    low = float(hand[:, 2].min())
    if take.action == "hold" or (take.action == "lift" and up > 0):
        low = min(low, float((take.stand.surface.vertices @ R_object.T + t_object)[:, 2].min()))
    rise = max(0.004 - low, 0.0) if take.action != "lift" else max(0.0005 - low, 0.0)
    lift = np.array([0.0, 0.0, rise])
    moves = take.action != "rest" and away == 0
    return _Instant(R, wrist + lift, pose, R_object, t_object + lift if moves else t_object)


def _world(plot: Plot, take: Take, frame: int) -> World:
    now = _instant(take, frame)
    world = World()
    elbow = _elbow(now.wrist)
    folds = plot.stream("sleeve")  # the same in every frame
    arm = pose_arm(take.person, "right", now.R, now.wrist, now.pose, elbow, folds)
    world.add_arm(take.person, "right", now.R, now.wrist, now.pose, arm, OWNER_SELF)
    hand = world.hands[0].vertices
    gap = np.abs(take.stand.solid.distance((hand - now.t_object) @ now.R_object)).min()
    label = Label.OBJECT_RIGHT if gap <= TOUCH else Label.OBJECT
    world.add_object(take.stand.name, take.stand.solid.mesh, now.R_object, now.t_object, take.materials, label)
    _add_sitter(world, take, elbow)
    for item, materials in take.lying:
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


def _furnish(plot: Plot, take: Take, rng: np.random.Generator) -> list[tuple[PlacedObject, list[Array]]]:
    """Lay things on the table where neither hand nor object comes; with their materials."""
    there = World()
    for frame in _instants():
        there.occupied().extend(_world(plot, take, frame).occupied())
    things = [draw_thing(rng) for _ in range(int(rng.integers(2, 6)))]
    lay_down(there, things, rng, (-0.45, 0.40, -0.02, 0.80), 0.04)
    look = {id(thing.solid.mesh): thing.materials for thing in things}
    return [(item, look[id(item.mesh)]) for item in there.objects]


@lru_cache(maxsize=8)
def _room(plot: Plot, camera: int) -> NDArray[np.float32]:
    return appearance.backdrop(plot.stream("room", camera), (200, 266), 30)


@lru_cache(maxsize=32)
def camera_of(plot: Plot, number: int) -> tuple[Array, Array]:
    """T_camera_from_world and K of a camera from which hand and object are mostly seen in all frames."""
    take, rng = _take(plot), plot.stream("camera", number)
    worlds = [_world(plot, take, frame) for frame in _instants()]
    middle = np.mean([world.hands[0].joints[4] for world in worlds], axis=0)
    azimuth = np.radians((-15.0, -75.0, 45.0, -45.0, 20.0)[number])
    rise = np.radians((28.0, 24.0, 38.0, 50.0, 62.0)[number])
    best, least = None, np.inf
    for attempt in range(8):
        spread = 0.12 + 0.05 * attempt
        a, e = azimuth + rng.normal(0, spread), rise + rng.normal(0, 0.1)
        flat = np.array([np.sin(a), np.cos(a), 0.0]) * np.cos(e)
        eye = middle + rng.uniform(0.56, 0.88) * (flat + np.sin(e) * UP)
        T = look_at(eye, middle + rng.normal(0, 0.02, 3), roll=rng.normal(0, 0.04))
        K = intrinsics(rng.uniform(605, 625), (640, 480), (320 + rng.normal(0, 6), 240 + rng.normal(0, 5)))
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
