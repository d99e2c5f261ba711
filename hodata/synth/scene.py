"""The scene generator: pictures of hands that hold things, with the full truth of every pixel.

`compose` is a pure function of its arguments: same version, same numbers, same bytes on every run. What stays the
same within a recording (people, clothes, things, table, light) hangs on (seed, recording); the rest on the frame.
Four kinds of cameras: `studio` (one hand from outside, several cameras of one instant), `ego` (the wearer's own
hands over a table), `game` (two people at a table, seen by one of them), `table` (a video of somebody who handles one
object, seen from across the table by up to five fixed cameras).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import axis_angle, transform
from hodata.synth import shade
from hodata.synth.develop import develop
from hodata.synth.hand_model import hand_model
from hodata.synth.world import OWNER_OTHER, OWNER_SELF, View, World

Array = NDArray[np.float64]

SCENE_VERSION = 3  # a change of any pixel raises it


@dataclass(frozen=True)
class HandTruth:
    """A hand in the camera frame (OpenCV, metres).

    Args:
        side: `left` or `right`; owner: `self` (who wears the camera, or is alone) or `other`.
        pose: [48] axis-angle of the 16 joints, the first in the camera frame; no mean pose added.
        betas: [10]; translation: [3], the wrist joint. `HandModel.pose` of the three gives `vertices`.
        vertices: [778, 3]; joints: [16, 3]; keypoints: [21, 3] in OpenPose order.
    """

    side: str
    owner: str
    pose: Array
    betas: Array
    translation: Array
    vertices: Array
    joints: Array
    keypoints: Array


@dataclass(frozen=True)
class ObjectTruth:
    """A thing in the camera frame: x_camera = R x_thing + t; mesh in its own frame; `label` says who holds it."""

    name: str
    R: Array
    t: Array
    vertices: Array
    faces: NDArray[np.int32]
    label: Label


@dataclass(frozen=True)
class Scene:
    """A picture with its truth.

    Args:
        image: uint8 [H, W, 3], sRGB.
        truth: uint8 [H, W] of `Label` ids: hands to the wrist, arms (sleeves as well), touched things.
        owner: uint8 [H, W]: 0 nobody's skin or sleeve, 1 the wearer's, 2 somebody else's.
        K: [3, 3] in pixels.
        T_camera_from_world: [4, 4]; the world's z points up, its table lies at z = 0.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    owner: NDArray[np.uint8]
    K: Array
    T_camera_from_world: Array
    hands: list[HandTruth]
    objects: list[ObjectTruth]


@dataclass
class Shot:
    """A composed picture that can be coloured more than once (FreiHAND has four versions of each).

    Args:
        view: geometry.
        light: in the world's frame.
        backdrop: version -> linear colours [h, w, 3] behind everything.
        center, radius: the part of the world that throws shadows.
        tint: version -> gain [3] on everything but the backdrop.
    """

    view: View
    light: shade.Light
    backdrop: Callable[[int], NDArray[np.float32]]
    center: Array
    radius: float
    exposure: float
    blur: float
    noise: float
    vignette: float
    noise_seed: int
    tint: Callable[[int], Array] = field(default=lambda version: np.ones(3))

    def images(self, versions: int = 1) -> list[NDArray[np.uint8]]:
        """The picture in each of its versions, uint8 [H, W, 3]."""
        base = self.view.colors(self.light, self.backdrop(0), self.center, self.radius)
        pictures = []
        drawn = self.view.raster.face >= 0
        for version in range(versions):
            linear = base
            if version:
                behind = _stretch(self.backdrop(version), drawn.shape)
                linear = np.where(drawn[..., None], base * self.tint(version).astype(np.float32), behind)
            # A camera's automatic exposure: most of the way to a middle grey.
            exposure = self.exposure * (0.24 / max(float(linear[::4, ::4].mean()), 0.02)) ** 0.7
            pictures.append(develop(linear, exposure, self.blur, self.noise, self.vignette, self.noise_seed + version))
        return pictures

    def scene(self) -> Scene:
        """Version 0 with its truth."""
        view = self.view
        hands, objects = truths(view)
        return Scene(self.images()[0], view.truth, view.owner, view.K, view.T_camera_from_world, hands, objects)


def compose(kind: str, seed: int, recording: int, frame: int, size: tuple[int, int], camera: int = 0) -> Shot:
    """One picture before colour.

    Args:
        kind: `studio`, `ego`, `game` or `table`.
        seed, recording, frame: decide everything that is in it.
        size: (width, height) in pixels.
        camera: which camera of the same instant (studio and table only).
    """
    from hodata.synth import stage_ego, stage_game, stage_studio, stage_table

    stages = {
        "studio": stage_studio.compose,
        "ego": stage_ego.compose,
        "game": stage_game.compose,
        "table": stage_table.compose,
    }
    if kind not in stages:
        raise ValueError(f"kind must be one of {', '.join(stages)}, not {kind!r}")
    return stages[kind](seed, recording, frame, size, camera)


def render_scene(kind: str, seed: int, recording: int, frame: int, size: tuple[int, int], camera: int = 0) -> Scene:
    """A picture with its truth: `compose`, then colour."""
    return compose(kind, seed, recording, frame, size, camera).scene()


def truths(view: View) -> tuple[list[HandTruth], list[ObjectTruth]]:
    """Hands and things of a view in its camera's frame."""
    T = view.T_camera_from_world
    hands = []
    for hand in view.world.hands:
        pose = hand.pose.copy()
        pose[:3] = axis_angle(T[:3, :3] @ hand.R)
        vertices, joints = transform(T, hand.vertices), transform(T, hand.joints)
        keypoints = hand_model(hand.side).keypoints(vertices, joints)
        owner = {OWNER_SELF: "self", OWNER_OTHER: "other"}[hand.owner]
        hands.append(
            HandTruth(hand.side, owner, pose, hand.betas, transform(T, hand.wrist), vertices, joints, keypoints)
        )
    objects = [
        ObjectTruth(o.kind, T[:3, :3] @ o.R, transform(T, o.t), o.mesh.vertices, o.mesh.faces, o.label)
        for o in view.world.objects
    ]
    return hands, objects


def _stretch(picture: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Bilinear enlargement of [h, w, 3] to shape (H, W)."""
    h, w = picture.shape[:2]
    y = np.arange(shape[0]) * ((h - 1.001) / max(shape[0] - 1, 1))
    x = np.arange(shape[1]) * ((w - 1.001) / max(shape[1] - 1, 1))
    i, j = y.astype(int), x.astype(int)
    a, b = (x - j).astype(np.float32)[None, :, None], (y - i).astype(np.float32)[:, None, None]
    rows = picture[i] * (1 - b) + picture[i + 1] * b
    return rows[:, j] * (1 - a) + rows[:, j + 1] * a


__all__ = ["SCENE_VERSION", "HandTruth", "ObjectTruth", "Scene", "Shot", "World", "compose", "render_scene", "truths"]
