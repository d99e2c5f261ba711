"""FreiHAND's kind of picture: one right hand from outside, often with a thing in it, several cameras at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import intrinsics, look_at, rodrigues, transform
from hodata.pose.rasterize import rasterize
from hodata.synth import appearance
from hodata.synth.body import Person, draw_person
from hodata.synth.hand_model import hand_model
from hodata.synth.holding import draw_thing, empty, hand_axes, put, take
from hodata.synth.scene import Shot
from hodata.synth.shade import Light
from hodata.synth.streams import stream
from hodata.synth.world import OWNER_SELF, View, World

Array = NDArray[np.float64]

UP = np.array([0.0, 0.0, 1.0])
HELD = 0.72  # share of instants with something in the hand
VISIBLE = 0.6  # a camera that sees less of the hand than this, behind its thing or its arm, stands elsewhere


def compose(seed: int, recording: int, frame: int, size: tuple[int, int], camera: int) -> Shot:
    """An instant of a recording (one person) from one of its cameras; the world is the same for all cameras."""
    world, light = _world(seed, recording, frame)
    rng = stream(seed, "studio", recording, frame, "camera", camera)
    middle = world.hands[0].joints[4] + rng.normal(0, 0.006, 3)  # base of the middle finger
    start = stream(seed, "studio", recording, frame, "azimuth").uniform()
    for attempt in range(12):
        view = world.view(*_camera(rng, middle, start + 0.382 * camera + 0.31 * attempt, size), size)
        if _visible(view, size) >= VISIBLE:
            break

    def behind(version: int) -> NDArray[np.float32]:
        own = stream(seed, "studio", recording, frame, "backdrop", version)
        shape = (size[1] // 2, size[0] // 2)
        return appearance.green_screen(own, shape) if version == 0 else appearance.backdrop(own, shape, 22)

    def tint(version: int) -> Array:
        own = stream(seed, "studio", recording, frame, "tint", version)
        return np.exp(own.normal(0, (0.0, 0.07, 0.06, 0.10)[version % 4], 3) + own.normal(0, 0.12))

    return Shot(
        view, light, behind, middle, 0.22, exposure=rng.uniform(0.85, 1.25),
        blur=rng.uniform(0.5, 1.4), noise=rng.uniform(2, 9), vignette=rng.uniform(0, 0.12),
        noise_seed=int(rng.integers(1 << 30)), tint=tint,
    )  # fmt: skip


def _camera(rng: np.random.Generator, middle: Array, turn: float, size: tuple[int, int]) -> tuple[Array, Array]:
    """T_camera_from_world and K of a camera at a share `turn` of the full circle round the hand."""
    elevation = rng.uniform(-0.5, 1.0)
    flat = np.array([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn), 0.0]) * np.cos(elevation)
    eye = middle + rng.uniform(0.50, 0.72) * (flat + np.sin(elevation) * UP)
    T = look_at(eye, middle, roll=rng.normal(0, 0.35))
    center = ((size[0] - 1) / 2 + rng.normal(0, 3), (size[1] - 1) / 2 + rng.normal(0, 3))
    return T, intrinsics(rng.uniform(1.9, 2.35) * size[0], size, center)


def _visible(view: View, size: tuple[int, int]) -> float:
    """The part of the hand's silhouette that nothing covers."""
    hand = transform(view.T_camera_from_world, view.world.hands[0].vertices)
    silhouette = rasterize(hand, hand_model("right").faces, view.K, size).face >= 0
    seen = view.truth == Label.RIGHT_HAND
    return float(seen.sum()) / max(float(silhouette.sum()), 1.0)


def _world(seed: int, recording: int, frame: int) -> tuple[World, Light]:
    person: Person = draw_person(stream(seed, "studio", recording, "person"))
    rng = stream(seed, "studio", recording, frame)
    forward = rng.normal(size=3) * (1.0, 1.0, 0.6) + (0.0, 0.0, 0.5)
    forward /= np.linalg.norm(forward)
    side = np.cross(forward, rng.normal(size=3))
    R = hand_axes(forward, side, "right", rng.uniform(-np.pi, np.pi))
    arm = rodrigues(R @ np.array([0.0, rng.normal(0, 0.25), rng.normal(0.05, 0.35)])) @ forward
    elbow = -0.46 * arm
    if rng.uniform() < HELD:
        reach = take("right", person, draw_thing(rng), R, np.zeros(3), elbow, rng)
    else:
        reach = empty("right", R, np.zeros(3), elbow, rng)
    world = World()
    put(world, reach, person, OWNER_SELF, Label.OBJECT_RIGHT if reach.thing else None, rng)
    toward = rng.normal(size=3) * (1, 1, 0)
    return world, appearance.draw_light(rng, toward / np.linalg.norm(toward), UP)
