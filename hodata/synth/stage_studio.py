"""FreiHAND's kind of picture: one right hand from outside, often with a thing in it, several cameras at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import intrinsics, look_at, rodrigues
from hodata.synth import appearance
from hodata.synth.body import Person, draw_person
from hodata.synth.holding import draw_thing, empty, hand_axes, put, take
from hodata.synth.scene import Shot
from hodata.synth.shade import Light
from hodata.synth.streams import stream
from hodata.synth.world import OWNER_SELF, World

HELD = 0.72  # share of instants with something in the hand


def compose(seed: int, recording: int, frame: int, size: tuple[int, int], camera: int) -> Shot:
    """An instant of a recording (one person) from one of its cameras; the world is the same for all cameras."""
    world, light = _world(seed, recording, frame)
    rng = stream(seed, "studio", recording, frame, "camera", camera)
    middle = world.hands[0].joints[4] + rng.normal(0, 0.006, 3)  # base of the middle finger
    azimuth = 2 * np.pi * (camera * 0.382 + stream(seed, "studio", recording, frame, "azimuth").uniform())
    elevation = rng.uniform(-0.5, 1.0)
    direction = np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    distance = rng.uniform(0.50, 0.72)
    T = look_at(middle + distance * direction, middle, roll=rng.normal(0, 0.35))
    focal = rng.uniform(1.9, 2.35) * size[0]
    K = intrinsics(focal, size, ((size[0] - 1) / 2 + rng.normal(0, 3), (size[1] - 1) / 2 + rng.normal(0, 3)))

    def behind(version: int) -> NDArray[np.float32]:
        own = stream(seed, "studio", recording, frame, "backdrop", version)
        shape = (size[1] // 2, size[0] // 2)
        return appearance.green_screen(own, shape) if version == 0 else appearance.backdrop(own, shape, 22)

    def tint(version: int) -> NDArray[np.float64]:
        own = stream(seed, "studio", recording, frame, "tint", version)
        return np.exp(own.normal(0, (0.0, 0.12, 0.10, 0.16)[version % 4], 3) + own.normal(0, 0.12))

    return Shot(
        world.view(T, K, size), light, behind, middle, 0.22, exposure=rng.uniform(0.85, 1.25),
        blur=rng.uniform(0.5, 1.4), noise=rng.uniform(2, 9), vignette=rng.uniform(0, 0.12),
        noise_seed=int(rng.integers(1 << 30)), tint=tint,
    )  # fmt: skip


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
    up = np.array([0.0, 0.0, 1.0])
    toward = rng.normal(size=3) * (1, 1, 0)
    return world, appearance.draw_light(rng, toward / np.linalg.norm(toward), up)
