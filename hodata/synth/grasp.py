"""How a hand takes a thing: the palm comes up to it, then every finger closes until it touches.

Works in the hand's own frame (x along the fingers, y out of the back of the hand, z toward the little finger of a
right hand). A left hand is solved as a right one in a mirror.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hodata.pose.camera import rodrigues
from hodata.synth.hand_model import HandModel, hand_model, mirror_pose
from hodata.synth.solids import Solid

Array = NDArray[np.float64]

FLESH = 0.0085  # metres from bone to skin
MIRROR = np.diag([1.0, 1.0, -1.0])


@dataclass(frozen=True)
class Grasp:
    """A hand pose and where the thing is.

    Args:
        pose: [48] axis-angle; the first three, the hand's own direction, are 0.
        R, t: the thing in the hand's frame: x_hand = R x_thing + t.
        gap: metres between skin and thing at the nearest vertex; negative where flesh would give way.
    """

    pose: Array
    R: Array
    t: Array
    gap: float


def grasp(side: str, betas: Array, solid: Solid, style: str, rng: np.random.Generator) -> Grasp:
    """Close a hand round a solid.

    Args:
        side: `left` or `right`.
        style: `wrap` (across the palm), `pinch` (between thumb and fingers) or `flat` (on the flat palm).
        rng: decides where and how the thing is taken.
    """
    R, t = _placement(solid, style, rng)
    g = grasp_at(betas, solid, R, t, _STANDOFF[style] * rng.uniform(0.7, 1.3), rng)
    if side == "left":
        # The thing is turned about its own mirror plane, so that it stays a rotation; solids are symmetric in x.
        return Grasp(mirror_pose(g.pose), MIRROR @ R @ np.diag([-1.0, 1.0, 1.0]), MIRROR @ g.t, g.gap)
    return g


def grasp_at(betas: Array, solid: Solid, R: Array, t: Array, standoff: float, rng: np.random.Generator) -> Grasp:
    """Close a right hand round a solid that comes up from (R, t), below the palm, until it is `standoff` away."""
    model = hand_model("right")
    t = _bring_to_palm(model, solid, R, t, standoff)
    pose = _close(model, betas, solid, R, t, rng)
    vertices, _ = model.pose(pose, betas)
    return Grasp(pose, R, t, float(solid.distance((vertices - t) @ R).min()))


def close_fingers(side: str, betas: Array, solid: Solid, R: Array, t: Array, rng: np.random.Generator) -> Array:
    """Pose [48] of a hand that closes on a thing that stays where it is (x_hand = R x_thing + t)."""
    if side == "left":
        pose = _close(hand_model("right"), betas, solid, MIRROR @ R @ np.diag([-1.0, 1.0, 1.0]), MIRROR @ t, rng)
        return mirror_pose(pose)
    return _close(hand_model("right"), betas, solid, R, t, rng)


def free_pose(side: str, rng: np.random.Generator) -> Array:
    """Pose [48] of an empty hand: relaxed, flat, pointing, pinching or a loose fist, with variation."""
    pose = np.zeros((16, 3))
    kind = rng.choice(["relaxed", "flat", "point", "pinch", "fist"], p=[0.4, 0.2, 0.15, 0.15, 0.1])
    curl = {"relaxed": 0.45, "flat": 0.08, "point": 1.1, "pinch": 0.75, "fist": 1.25}[kind] * rng.uniform(0.75, 1.2)
    axes = _flexion_axes(hand_model("right"))
    for finger in range(4):
        bend = curl * rng.uniform(0.85, 1.15) * (0.15 if kind == "point" and finger == 0 else 1.0)
        spread = rng.normal(0.0, 0.05) * np.array([0.0, 1.0, 0.0])
        for bone, share in enumerate((0.8, 1.0, 0.65)):
            pose[1 + 3 * finger + bone] = -bend * share * axes[finger] + (spread if bone == 0 else 0)
    opposition = {"relaxed": -0.4, "flat": -0.1, "point": -0.9, "pinch": -1.1, "fist": -1.0}[kind]
    pose[13] = (opposition * rng.uniform(0.7, 1.2), rng.normal(0, 0.1), 0.0)
    flex = _thumb_axis() * rng.uniform(0.1, 0.5 if kind != "fist" else 0.9)
    pose[14], pose[15] = 0.6 * flex, flex
    return mirror_pose(pose.ravel()) if side == "left" else pose.ravel()


_STANDOFF = {"wrap": 0.0, "pinch": 0.030, "flat": 0.0}


def _placement(solid: Solid, style: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Direction and first place of the thing in the hand's frame, before it comes up to the palm."""
    u = rng.uniform
    spin = rodrigues([0.0, 0.0, float(rng.choice([0.0, np.pi / 2, np.pi, -np.pi / 2])) + rng.normal(0, 0.15)])
    if solid.kind in ("book", "phone", "card"):  # the wide face lies against palm and fingers
        spin = rodrigues([0.0, 0.0, float(rng.choice([-1, 1])) * np.pi / 2 + rng.normal(0, 0.08)])
    along = u(-1, 1) * solid.reach
    # The thing's z axis runs along the width of the palm, toward the thumb more often than away from it.
    across = rodrigues([np.pi if solid.tip is not None or u() < 0.75 else 0.0, 0.0, 0.0])
    tilt = rodrigues([0.0, u(-0.5, 0.15), 0.0]) @ rodrigues([u(-0.2, 0.2), 0.0, 0.0])
    if style == "flat":
        tilt = rodrigues([0.0, u(-1.6, 1.6), 0.0])
    if style == "pinch":
        tilt = rodrigues([0.0, u(-0.9, 0.6), 0.0]) @ rodrigues([u(-0.5, 0.3), 0.0, 0.0])
    R = tilt @ across @ spin
    x = {"wrap": 0.072 + 0.25 * min(solid.grip, 0.03), "pinch": 0.105, "flat": 0.075}[style]
    z = {"wrap": 0.0, "pinch": -0.012, "flat": 0.002}[style]
    return R, np.array([x + u(-0.006, 0.006), -0.20, z]) - R[:, 2] * along


@lru_cache(maxsize=1)
def palm_points() -> Array:
    """Vertices of the palm's underside at rest: what a thing in the hand lies against."""
    model = hand_model("right")
    v = model.vertices
    fixed = model.weights[:, [0, 1, 4, 7, 10]].sum(axis=1) > 0.7
    return v[fixed & (v[:, 1] < 0.0) & (v[:, 0] > 0.02)]


def _bring_to_palm(model: HandModel, solid: Solid, R: Array, t: Array, standoff: float) -> Array:
    """Move the thing along +y until it is `standoff` away from the palm (sphere tracing)."""
    points = palm_points()
    for _ in range(24):
        gap = float(solid.distance((points - t) @ R).min()) + 0.0012 - standoff
        t = t + np.array([0.0, gap, 0.0])
        if abs(gap) < 2e-4:
            break
    return t


def _flexion_axes(model: HandModel) -> Array:
    """[4, 3]: the axis about which each finger (index, middle, little, ring) stretches."""
    joints = model.joints
    direction = np.array([joints[2 + 3 * k] - joints[1 + 3 * k] for k in range(4)])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    axes = np.cross(direction, [0.0, 1.0, 0.0])
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def _thumb_axis() -> Array:
    """The axis about which the thumb's outer joints bend, toward its pad."""
    joints = hand_model("right").joints
    direction = joints[15] - joints[14]
    axis = np.cross(direction / np.linalg.norm(direction), [0.15, -0.78, 0.60])
    return axis / np.linalg.norm(axis)


def _close(model: HandModel, betas: Array, solid: Solid, R: Array, t: Array, rng: np.random.Generator) -> Array:
    """Try a grid of bends for every finger and keep the one that touches most and enters least."""
    joints = model.joints + model.joint_dirs @ betas
    tips = model.pose(np.zeros(48), betas)[0][[320, 443, 672, 555, 744]]
    pose = np.zeros((16, 3))
    axes = _flexion_axes(model)
    first = np.radians(np.linspace(-12, 85, 10))
    second = np.radians(np.linspace(4, 100, 10))
    bend1, bend2 = (g.ravel() for g in np.meshgrid(first, second, indexing="ij"))
    bends = np.stack([bend1, bend2, 0.65 * bend2], axis=1)
    relaxed = (rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.7))
    for finger in range(4):
        base = 1 + 3 * finger
        rotations = -bends[:, :, None] * axes[finger]
        points = _along(np.array([*joints[base : base + 3], tips[finger]]), rotations)
        cost = _cost(solid, (points - t) @ R, FLESH if finger != 2 else 0.0075)
        cost += 0.05 * ((bends[:, 0] - relaxed[0]) ** 2 + (bends[:, 1] - relaxed[1]) ** 2)
        best = int(np.argmin(cost))
        pose[base : base + 3] = rotations[best]
    opposition, swing, flex1, flex2 = (
        g.ravel()
        for g in np.meshgrid(
            np.radians(np.linspace(-85, 15, 7)),
            np.radians(np.linspace(-30, 35, 4)),
            np.radians([-5, 25]),
            np.radians([-10, 20, 55]),
            indexing="ij",
        )
    )
    zero = np.zeros_like(opposition)
    axis = _thumb_axis()
    rotations = np.stack(
        [np.stack([opposition, swing, zero], axis=1), flex1[:, None] * axis, flex2[:, None] * axis], axis=1
    )
    points = _along(np.array([*joints[13:16], tips[4]]), rotations)
    # The thumb must not run through the other fingers: their points are obstacles as well.
    posed, _ = model.pose(pose.ravel(), betas)
    others = posed[(model.weights[:, 1:13].sum(axis=1) > 0.5)][::8]
    clearance = np.linalg.norm(points[:, 3:, None] - others, axis=-1).min(axis=(1, 2))
    cost = _cost(solid, (points - t) @ R, 0.0098) + 2e5 * np.maximum(0.0085 - clearance, 0) ** 2
    cost += 0.05 * ((opposition + 0.7) ** 2 + swing**2 + flex1**2 + 0.5 * flex2**2)
    pose[13:16] = rotations[int(np.argmin(cost))]
    return pose.ravel()


def _along(chain: Array, rotations: Array) -> Array:
    """Points [N, 7, 3] along a finger's three bones for N candidate rotations [N, 3 joints, 3]."""
    R = np.eye(3)
    position = np.broadcast_to(chain[0], (len(rotations), 3))
    points = []
    for bone in range(3):
        R = R @ rodrigues(rotations[:, bone])
        step = R @ (chain[bone + 1] - chain[bone])
        points += [position + 0.5 * step, position + (1.0 if bone < 2 else 0.86) * step]
        position = position + step
    points.append(position - 0.32 * step)
    return np.stack(points, axis=1)


def _cost(solid: Solid, points: Array, flesh: float) -> Array:
    """[N]: millimetres of overlap squared, and how far the finger's pads stay from the surface."""
    gap = solid.distance(points) - flesh
    inside = np.minimum(gap + 0.0008, 0.0)
    away = np.minimum(np.abs(gap), 0.03) / 0.03
    return 0.6e6 * (inside**2).sum(axis=1) + away @ np.array([0.3, 0.4, 0.6, 0.7, 1.0, 1.3, 1.0])
