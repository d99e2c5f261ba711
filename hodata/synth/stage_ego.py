"""EgoHOS's kind of picture: the wearer's hands over a table, things in them, things beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import intrinsics, look_at, rodrigues
from hodata.synth import appearance, shade
from hodata.synth.body import Person, draw_person
from hodata.synth.holding import (
    Reach,
    Thing,
    draw_thing,
    empty,
    hand_axes,
    hold_together,
    lay_down,
    lift,
    lowest,
    put,
    take,
)
from hodata.synth.scene import Shot
from hodata.synth.solids import TOOLS, Box, Solid, box_mesh
from hodata.synth.streams import stream
from hodata.synth.world import OWNER_SELF, World

Array = NDArray[np.float64]

UP = np.array([0.0, 0.0, 1.0])
# What the hands are doing in a frame, and how often.
DOINGS = ("right", "left", "apart", "together", "tool", "empty")
SHARES = (0.20, 0.14, 0.20, 0.33, 0.08, 0.05)
# A book's wide face up, its long side across.
_LYING = rodrigues([0.0, np.pi / 2, 0.0]) @ rodrigues([0.0, 0.0, np.pi / 2])
TOGETHER = ("crate", "bowl", "book", "carton", "ball")


@dataclass(frozen=True)
class Recording:
    """What stays the same in a recording."""

    person: Person
    things: list[Thing]
    big: list[Thing]
    tool: Thing
    table: Array
    table_size: Array
    room: NDArray[np.float32]
    light: shade.Light
    eye: Array
    focal: float
    noise: float
    blur: float


@lru_cache(maxsize=4)
def _recording(seed: int, number: int) -> Recording:
    def part(name: str) -> np.random.Generator:
        return stream(seed, "ego", number, name)

    rng = part("things")
    things = [draw_thing(rng) for _ in range(8)]
    big = [draw_thing(rng, str(kind)) for kind in rng.choice(TOGETHER, 2, replace=False)]
    tool = draw_thing(rng, str(rng.choice(TOOLS)))
    camera = part("camera")
    return Recording(
        draw_person(part("person")),
        things,
        big,
        tool,
        appearance.table_material(part("table")),
        np.array([part("table").uniform(0.5, 1.0), part("table").uniform(0.55, 1.0)]),
        appearance.backdrop(part("room"), (150, 260), 26),
        appearance.draw_light(part("light"), np.array([0.0, -1.0, 0.0]), UP),
        np.array([camera.normal(0, 0.02), camera.uniform(-0.16, -0.06), camera.uniform(0.37, 0.48)]),
        camera.uniform(1.1, 1.45),
        camera.uniform(2, 8),
        camera.uniform(0.4, 1.5),
    )


def compose(seed: int, recording: int, frame: int, size: tuple[int, int], camera: int) -> Shot:
    """A frame of a recording."""
    r = _recording(seed, recording)
    rng = stream(seed, "ego", recording, frame, "pose")
    world = World()
    _act(world, r, rng)
    lay_down(world, _lying(r, rng), rng, (-0.36, 0.36, 0.10, 0.72), 0.035)
    add_table(world, r.table, r.table_size)
    jitter = stream(seed, "ego", recording, frame, "camera")
    middle = np.mean([hand.joints[4] for hand in world.hands], axis=0)
    target = 0.75 * middle + 0.25 * np.array([0.0, 0.30, 0.03]) + jitter.normal(0, 0.025, 3)
    T = look_at(r.eye + jitter.normal(0, 0.015, 3), target, roll=jitter.normal(0, 0.07))
    K = intrinsics(r.focal * size[0] * jitter.uniform(0.95, 1.05), size)
    top, left = int(jitter.integers(30)), int(jitter.integers(60))
    room = np.ascontiguousarray(r.room[top : top + 120, left : left + 200])
    return Shot(
        world.view(T, K, size), r.light, lambda version: room, np.array([0.0, 0.3, 0.05]), 0.45,
        exposure=jitter.uniform(0.9, 1.15), blur=r.blur, noise=r.noise, vignette=0.08,
        noise_seed=int(jitter.integers(1 << 30)),
    )  # fmt: skip


def add_table(world: World, material: Array, half: Array, middle: tuple[float, float] = (0.0, 0.45)) -> None:
    """A table top at z = 0, `half` [2] metres from its middle to its edges, with a front."""
    center = np.array([middle[0], middle[1], -0.02])
    mesh = box_mesh(center, np.array([half[0], half[1], 0.02]), 0)
    world.add(mesh.vertices, mesh.normals, mesh.vertices, [(mesh.faces, material, Label.BACKGROUND)], casts=False)


def arm_of(side: str, rng: np.random.Generator, spread: float = 1.0) -> tuple[Array, Array, Array]:
    """Where a wearer's palm and elbow are [3], and the hand's axes [3, 3]: from the elbow forward, wrist bent a bit."""
    outward = 1.0 if side == "right" else -1.0
    at = np.array([outward * spread * rng.uniform(0.05, 0.15), rng.uniform(0.20, 0.36), rng.uniform(0.03, 0.15)])
    elbow = np.array([outward * rng.uniform(0.20, 0.34), rng.uniform(-0.22, -0.10), rng.uniform(-0.02, 0.10)])
    forward = at - elbow
    bend = rodrigues([rng.normal(0.0, 0.2), 0.0, outward * rng.normal(-0.1, 0.25)])
    roll = rng.uniform(-0.15, 1.75)
    return at, elbow, hand_axes(bend @ forward, UP, side, roll)


def _act(world: World, r: Recording, rng: np.random.Generator) -> None:
    doing = str(rng.choice(DOINGS, p=SHARES))
    reaches: list[Reach] = []
    labels: list[Label | None] = []
    picks = rng.permutation(len(r.things))
    if doing == "together":
        thing = r.big[int(rng.integers(len(r.big)))]
        at = np.array([rng.normal(0, 0.025), rng.uniform(0.24, 0.34), rng.uniform(0.09, 0.16)])
        R = rodrigues([0.0, rng.normal(0, 0.2), rng.normal(0, 0.15)])
        if thing.solid.kind == "book":  # held like a tray or read
            R = R @ rodrigues([rng.uniform(0.2, 1.2), 0.0, 0.0]) @ _LYING
        elif thing.solid.kind == "carton":  # by its two ends
            R = R @ rodrigues([0.0, np.pi / 2, 0.0])
        elbows = {side: arm_of(side, rng)[1] for side in ("left", "right")}
        reaches = hold_together(r.person, thing, R, at, elbows, rng.uniform(-0.2, 0.7), rng)
        labels = [Label.OBJECT_BOTH, None]
    else:
        for side in ("right", "left"):
            at, elbow, R = arm_of(side, rng)
            own = Label.OBJECT_RIGHT if side == "right" else Label.OBJECT_LEFT
            if doing == "tool" and side == "right":
                roll = rng.uniform(-1.0, -0.2)  # the thumb's side down, and with it the tool's tip
                R = hand_axes(at - elbow, UP, side, roll)
                reaches.append(take(side, r.person, r.tool, R, at, elbow, rng))
                labels.append(own)
            elif doing in (side, "apart"):
                reaches.append(take(side, r.person, r.things[picks[len(reaches)]], R, at, elbow, rng))
                labels.append(own)
            elif rng.uniform() < (0.9 if doing == "empty" else 0.6):
                reaches.append(empty(side, R, at, elbow, rng))
                labels.append(None)
        if not reaches:
            at, elbow, R = arm_of("right", rng)
            reaches, labels = [empty("right", R, at, elbow, rng)], [None]
    low = min(lowest(reach, r.person) for reach in reaches)
    wanted = rng.uniform(0.003, 0.02) if doing != "tool" else rng.uniform(0.03, 0.07)
    if low < wanted or rng.uniform() < 0.4:
        lift(reaches, wanted - low)
    for reach, label in zip(reaches, labels, strict=True):
        put(world, reach, r.person, OWNER_SELF, label, rng)
    if doing == "tool":
        _touch_with_tool(world, r, reaches[0], rng)


def _touch_with_tool(world: World, r: Recording, reach: Reach, rng: np.random.Generator) -> None:
    """Something stands on the table right under the tool's tip: a thing of the second order."""
    if reach.thing is None:
        return
    thing, R, t = reach.thing
    if thing.solid.tip is None:
        return
    tip = thing.solid.tip @ R.T + t
    if not 0.012 < tip[2] < 0.14:
        return
    half = np.array([rng.uniform(0.03, 0.06), rng.uniform(0.03, 0.06), 0.5 * tip[2] + 0.001])
    center = np.array([*(tip[:2] + rng.uniform(-0.6, 0.6, 2) * half[:2]), half[2]])
    solid = Solid("slab", box_mesh(np.zeros(3), half, 0), (Box(np.zeros(3), half),), 0.03, 0.0)
    turn = rodrigues([0.0, 0.0, rng.normal(0, 0.2)])
    skin = np.concatenate([hand.vertices for hand in world.hands])
    if solid.distance((skin - center) @ turn).min() < 0.012:
        return  # a hand would touch it as well
    material = r.things[int(rng.integers(len(r.things)))].materials[0]
    label = Label.SECOND_RIGHT if reach.side == "right" else Label.SECOND_LEFT
    world.add_object("slab", solid.mesh, turn, center, [material], label)


def _lying(r: Recording, rng: np.random.Generator) -> list[Thing]:
    """Things that lie about: the same ones that are held in other frames, copies and big ones as well."""
    pool = [*r.things, *r.big, r.tool]
    return [pool[int(k)] for k in rng.permutation(len(pool))[: int(rng.integers(3, 8))]]
