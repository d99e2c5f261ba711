"""The undecided band at the wrist: round the boundary loop, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from hodata.pose.arguments import NEAR
from hodata.pose.camera import intrinsics, look_at, pixel_rays, project, rodrigues, transform
from hodata.pose.render import PosedMesh, render
from hodata.pose.wrist import BAND, NEAR_LOOP, WIDEST, wrist_band
from hodata.synth.hand_model import hand_model

SIZE = (160, 120)
K = intrinsics(170.0, SIZE)


def slow_band(loop: np.ndarray, depth: np.ndarray, hand: np.ndarray) -> np.ndarray:
    """Pixel by pixel: distance to densely sampled edges, winding angle for the inside, distance in space."""
    pixels = project(loop, K)
    width = max(np.linalg.norm(a - b) for a in pixels for b in pixels)
    size = max(np.linalg.norm(a - b) for a in loop for b in loop)
    t = np.linspace(0, 1, 200)[:, None]
    edges = np.concatenate([a + t * (b - a) for a, b in zip(pixels, np.roll(pixels, -1, axis=0), strict=True)])
    out = np.zeros(depth.shape, dtype=bool)
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            if not (hand[y, x] or np.isinf(depth[y, x])):
                continue
            spokes = pixels - (x, y)
            angles = np.arctan2(spokes[:, 1], spokes[:, 0])
            turn = (np.roll(angles, -1) - angles + np.pi) % (2 * np.pi) - np.pi
            inside = abs(turn.sum()) > np.pi
            if not inside and np.linalg.norm(edges - (x, y), axis=1).min() > BAND * width:
                continue
            if np.isfinite(depth[y, x]) and not (inside and depth[y, x] > loop[:, 2].min()):
                point = pixel_rays(np.array([x, y]), K) * depth[y, x]
                if np.linalg.norm(loop - point, axis=1).min() > NEAR_LOOP * size:
                    continue
            out[y, x] = True
    return out


@pytest.mark.parametrize("number", range(6))
def test_equals_a_slow_twin_from_any_side(number: int) -> None:
    rng = np.random.default_rng(number)
    model = hand_model("right")
    pose = np.concatenate([np.zeros(3), rng.normal(0, 0.3, 45)])
    vertices, _ = model.pose(pose)
    direction = rng.normal(size=3)
    T = look_at(0.35 * direction / np.linalg.norm(direction), rng.normal(0, 0.02, 3), up=rng.normal(size=3))
    hand = transform(T, vertices)
    thing = np.array([[0.0, 0.0, 0.0], [0.05, 0.0, 0.0], [0.0, 0.05, 0.0]]) + hand[:, :3].mean(axis=0) - [0, 0, 0.05]
    seen = render([PosedMesh(hand, model.faces, 2), PosedMesh(thing, np.array([[0, 1, 2]]), 4)], K, SIZE)
    band = wrist_band(hand[model.loop], K, seen.depth, seen.part == 0)
    slow = slow_band(hand[model.loop], seen.depth, seen.part == 0)
    assert band.any()
    assert np.count_nonzero(band != slow) <= 3, "pixels on the very edge of the band"
    assert not (band & (seen.part == 1)).any()


def test_a_finger_in_front_of_the_wrist_stays_hand() -> None:
    model = hand_model("right")
    vertices, _ = model.pose(np.zeros(48))
    # Fingers point at the camera: they hide the wrist behind them.
    R = rodrigues([0.0, np.pi / 2, 0.0]) @ np.diag([1.0, 1.0, 1.0])
    hand = vertices @ R.T + [0, 0, 0.45]
    if hand[model.loop][:, 2].mean() < hand[:, 2].mean():
        hand = vertices @ rodrigues([0.0, -np.pi / 2, 0.0]).T + [0, 0, 0.45]
    seen = render([PosedMesh(hand, model.faces, 2)], K, SIZE)
    band = wrist_band(hand[model.loop], K, seen.depth, seen.part == 0)
    tips = seen.depth < hand[:, 2].min() + 0.05
    assert tips.sum() > 20 and not (band & tips).any()


@pytest.mark.parametrize("depths", [(0.005, 0.065), (-0.02, 0.04), (0.011, 0.071)])
def test_loops_at_the_plane_of_the_camera_leave_a_picture_undecided_no_farther_than_wrists_are_wide(
    depths: tuple[float, float],
) -> None:
    size, camera = (640, 480), intrinsics(617.0, (640, 480))
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    middle, radius = np.mean(depths), (depths[1] - depths[0]) / 2
    loop = np.stack([0.05 + radius * np.cos(turn), 0 * turn, middle + radius * np.sin(turn)], axis=1)  # seen edge-on
    empty = np.full((size[1], size[0]), np.inf, dtype=np.float32)
    band = wrist_band(loop, camera, empty, np.zeros(empty.shape, dtype=bool))
    # The loop sampled densely, where it is not too near to be drawn; the near end lies to the right of the picture.
    t = np.linspace(0, 1, 300)[:, None]
    edges = np.concatenate([a + t * (b - a) for a, b in zip(loop, np.roll(loop, -1, axis=0), strict=True)])
    pixels = project(edges[edges[:, 2] >= NEAR], camera)
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    away = np.hypot(np.maximum(pixels[:, 0].min() - columns, 0), rows - camera[1, 2])
    # Two corners more, where the plane cuts the loop.
    drawn = loop[loop[:, 2] >= NEAR, 2]
    median = np.median(np.append(drawn, [NEAR, NEAR] if len(drawn) < 16 else []))
    reach = BAND * WIDEST * 2 * radius * 617 / median
    np.testing.assert_array_equal(band, away <= reach)
    assert 0.3 < band.mean() < 0.9


def test_the_band_of_loops_in_reach_of_an_arm_is_a_quarter_of_their_width() -> None:
    """From 10 cm on, nothing is bounded, whatever the side from which the loop is seen."""
    rng, model = np.random.default_rng(2), hand_model("right")
    camera = intrinsics(617.0, (640, 480))
    loop = model.vertices[model.loop] - model.vertices[model.loop].mean(axis=0)
    widest = []
    for _ in range(3000):
        turned = loop @ rodrigues(rng.normal(0, 2, 3)).T
        distance = rng.uniform(0.1, 1.0) - turned[:, 2].min()
        there = turned + pixel_rays(rng.uniform([0, 0], [640, 480]), camera) * distance
        pixels = project(there, camera)
        width, size = (np.linalg.norm(p[:, None] - p, axis=-1).max() for p in (pixels, there))
        widest.append(width / (size * 617 / np.median(there[:, 2])))
    assert max(widest) < WIDEST


def test_nothing_where_the_loop_is_out_of_sight() -> None:
    model = hand_model("right")
    for shift in ([0, 0, -2.0], [9.0, 0, 0.5]):
        hand = model.vertices + shift
        depth = np.full((SIZE[1], SIZE[0]), np.inf, dtype=np.float32)
        assert not wrist_band(hand[model.loop], K, depth, np.zeros(depth.shape, dtype=bool)).any()
