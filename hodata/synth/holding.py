"""Putting hands and things together in a scene: one hand takes a thing, two hands take one, a hand is empty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import rodrigues
from hodata.synth import appearance
from hodata.synth.body import Person, pose_arm
from hodata.synth.grasp import close_fingers, free_pose, grasp, palm_points
from hodata.synth.solids import KINDS, TOOLS, Solid, make_solid
from hodata.synth.world import World

Array = NDArray[np.float64]

CONTACT = 0.003  # metres: a thing whose surface is this near to the skin is touched
PALM = np.array([0.080, -0.018, 0.0])  # about where a hand holds things, in its own frame
_STYLES = {
    "marker": ("pinch", "wrap"), "card": ("pinch",), "block": ("pinch",), "pawn": ("pinch",), "piece": ("pinch",),
    "apple": ("wrap", "flat"), "ball": ("wrap", "flat"), "brush": ("wrap", "pinch"),
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """A solid with the materials of its two slots."""

    solid: Solid
    materials: list[Array]


@dataclass
class Reach:
    """One hand that is about to be placed, before its arm is drawn.

    Args:
        R, wrist: the hand's axes (columns) and wrist in the scene.
        elbow: [3].
        pose: [48], first three 0.
        thing: what it holds, with its place (R, t) in the scene, or None.
    """

    side: str
    R: Array
    wrist: Array
    elbow: Array
    pose: Array
    thing: tuple[Thing, Array, Array] | None = None


def draw_thing(rng: np.random.Generator, kind: str | None = None) -> Thing:
    """Any thing, or one of a kind, in any colours. Slim tools come up less often than what fills a hand."""
    odds = np.array([0.4 if name in TOOLS else 1.0 for name in KINDS])
    solid = make_solid(kind or str(rng.choice(KINDS, p=odds / odds.sum())), rng)
    height = solid.half_extent()[2]
    return Thing(solid, [appearance.thing_material(rng, height), appearance.thing_material(rng, height)])


def hand_axes(forward: Array, up: Array, side: str, roll: float) -> Array:
    """[3, 3] columns: fingers along `forward`; the back of the hand `up`, rolled (radians) so that the thumb rises."""
    x = forward / np.linalg.norm(forward)
    y = up - (up @ x) * x
    y /= np.linalg.norm(y)
    R = np.column_stack([x, y, np.cross(x, y)])
    return R @ rodrigues([roll if side == "right" else -roll, 0.0, 0.0])


def take(side: str, person: Person, thing: Thing, R: Array, at: Array, elbow: Array, rng: np.random.Generator) -> Reach:
    """A hand with axes R holds a thing, its palm about at `at` [3]."""
    wrist = at - R @ PALM
    for attempt in range(4):
        styles = _STYLES.get(thing.solid.kind, ("wrap",))
        style = str(rng.choice(styles)) if attempt < 3 else "wrap"
        g = grasp(side, person.betas, thing.solid, style, rng)
        if g.gap < CONTACT:
            break
    return Reach(side, R, wrist, elbow, g.pose, (thing, R @ g.R, R @ g.t + wrist))


def empty(side: str, R: Array, at: Array, elbow: Array, rng: np.random.Generator) -> Reach:
    """An empty hand with axes R, its palm about at `at` [3]."""
    return Reach(side, R, at - R @ PALM, elbow, free_pose(side, rng))


def hold_together(
    person: Person, thing: Thing, R: Array, t: Array, elbows: dict[str, Array], pitch: float, rng: np.random.Generator
) -> list[Reach]:
    """Both hands on one thing at (R, t): each comes from its side until its palm touches, then the fingers close."""
    reaches = []
    points = palm_points()
    for side, outward in (("left", -1.0), ("right", 1.0)):
        tilt = pitch + rng.uniform(-0.2, 0.2)
        forward = np.array([-0.15 * outward, np.cos(tilt), np.sin(tilt)])
        axes = hand_axes(forward, np.array([outward, 0.0, rng.uniform(-0.3, 0.5)]), side, 0.0)
        own = points if side == "right" else points * np.array([1.0, 1.0, -1.0])
        middle = t + np.array([0.0, rng.uniform(-0.03, 0.01), rng.uniform(-0.02, 0.02)])
        wrist = middle - axes @ PALM + axes[:, 1] * 0.3
        for _ in range(30):
            gap = float(thing.solid.distance((own @ axes.T + wrist - t) @ R).min()) + 0.001
            wrist = wrist - axes[:, 1] * gap
            if abs(gap) < 2e-4:
                break
        pose = close_fingers(side, person.betas, thing.solid, axes.T @ R, axes.T @ (t - wrist), rng)
        reaches.append(Reach(side, axes, wrist, elbows[side], pose))
    reaches[0].thing = (thing, R, t)
    return reaches


def lowest(reach: Reach, person: Person) -> float:
    """The smallest z of a hand and of what it holds, metres."""
    from hodata.synth.hand_model import hand_model

    vertices, _ = hand_model(reach.side).pose(reach.pose, person.betas)
    low = float((vertices @ reach.R.T + reach.wrist)[:, 2].min())
    if reach.thing is not None:
        thing, R, t = reach.thing
        low = min(low, float((thing.solid.mesh.vertices @ R.T + t)[:, 2].min()))
    return low


def lift(reaches: list[Reach], by: float) -> None:
    """Move hands, elbows and held things up."""
    up = np.array([0.0, 0.0, by])
    for reach in reaches:
        reach.wrist = reach.wrist + up
        reach.elbow = reach.elbow + up
        if reach.thing is not None:
            thing, R, t = reach.thing
            reach.thing = (thing, R, t + up)


def put(world: World, reach: Reach, person: Person, owner: int, label: Label | None, rng: np.random.Generator) -> None:
    """Add a hand with its arm and, where `label` says who holds it, its thing."""
    arm = pose_arm(person, reach.side, reach.R, reach.wrist, reach.pose, reach.elbow, rng)
    world.add_arm(person, reach.side, reach.R, reach.wrist, reach.pose, arm, owner)
    if reach.thing is not None and label is not None:
        thing, R, t = reach.thing
        world.add_object(thing.solid.kind, thing.solid.mesh, R, t, thing.materials, label)


def lay_down(
    world: World,
    things: list[Thing],
    rng: np.random.Generator,
    region: tuple[float, float, float, float],
    margin: float,
) -> None:
    """Put things on the table (z = 0) where no hand and no held thing comes near; those without room stay away.

    Args:
        region: x0, x1, y0, y1 in metres.
        margin: metres kept to everything that is there.
    """
    there = [vertices[:, :2] for vertices in world.occupied()]
    for thing in things:
        half = thing.solid.half_extent()
        upright = thing.solid.kind in ("can", "bottle", "mug", "cup", "jar", "ball", "apple", "bowl", "pawn", "crate")
        if rng.uniform() < 0.15 or not upright:
            axis = 0 if half[0] <= half[1] else 1  # the thinnest way up
            R = rodrigues([0.0, np.pi / 2, 0.0]) if axis == 0 else rodrigues([np.pi / 2, 0.0, 0.0])
        else:
            R = np.eye(3)
        R = rodrigues([0.0, 0.0, rng.uniform(0, 2 * np.pi)]) @ R
        vertices = thing.solid.mesh.vertices @ R.T
        lift_by = -float(vertices[:, 2].min())
        size = float(np.linalg.norm(vertices[:, :2], axis=1).max())
        for _ in range(12):
            spot = np.array([rng.uniform(region[0], region[1]), rng.uniform(region[2], region[3])])
            if all(np.linalg.norm(points - spot, axis=1).min() > size + margin for points in there):
                t = np.array([*spot, lift_by])
                world.add_object(thing.solid.kind, thing.solid.mesh, R, t, thing.materials, Label.BACKGROUND)
                there.append((vertices + t)[:, :2])
                break
