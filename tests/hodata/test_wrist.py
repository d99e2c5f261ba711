"""The undecided band at the wrist: round the boundary loop, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from hodata.pose.camera import intrinsics, look_at, pixel_rays, project, rodrigues, transform
from hodata.pose.render import PosedMesh, render
from hodata.pose.wrist import BAND, NEAR_LOOP, wrist_band
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


def test_nothing_where_the_loop_is_out_of_sight() -> None:
    model = hand_model("right")
    for shift in ([0, 0, -2.0], [9.0, 0, 0.5]):
        hand = model.vertices + shift
        depth = np.full((SIZE[1], SIZE[0]), np.inf, dtype=np.float32)
        assert not wrist_band(hand[model.loop], K, depth, np.zeros(depth.shape, dtype=bool)).any()
