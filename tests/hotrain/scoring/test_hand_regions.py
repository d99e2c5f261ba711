"""Discs round fingertips and bands round wrists, against loops over pixels and drawn polygons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hotrain.scoring.hand_regions import TIPS, fingertip_discs, polygon_distance, wrist_bands

SHAPE = (90, 120)


def hand(rng: np.random.Generator, spread: float = 25.0) -> dict[str, Any]:
    points = np.array([60.0, 45.0]) + rng.uniform(-spread, spread, (21, 2))
    return {"keypoints_px": points.tolist(), "valid": [True] * 21, "in_front": [True] * 21}


def slow_discs(hands: list[dict[str, Any]]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for one in hands:
        xs, ys = zip(*one["keypoints_px"], strict=True)
        radius = max(0.08 * math.hypot(max(xs) - min(xs), max(ys) - min(ys)), 4.0)
        for tip in (4, 8, 12, 16, 20):
            for y in range(SHAPE[0]):
                for x in range(SHAPE[1]):
                    mask[y, x] |= math.hypot(x - xs[tip], y - ys[tip]) <= radius
    return mask


def test_discs_equal_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    hands = [hand(rng), hand(rng, 40.0), hand(rng, 3.0)]
    found = fingertip_discs(hands, np.ones(SHAPE, bool))
    np.testing.assert_array_equal(found, slow_discs(hands))


def test_small_hands_have_discs_of_four_pixels() -> None:
    one = hand(np.random.default_rng(1), 0.0)
    found = fingertip_discs([one], np.ones(SHAPE, bool))
    assert found is not None
    assert found.sum() == sum(math.hypot(x, y) <= 4 for x in range(-4, 5) for y in range(-4, 5))


def test_only_visible_tips_count() -> None:
    """One tip at a time is spoilt: not valid, hidden, outside, or nowhere near hand pixels."""
    rng = np.random.default_rng(2)
    whole = hand(rng)
    points = np.array(whole["keypoints_px"])
    points[list(TIPS)] = [[20, 20], [40, 20], [60, 20], [80, 20], [100, 20]]
    hand_pixels = np.ones(SHAPE, bool)
    hand_pixels[:, 92:] = False  # the little finger's tip lies 8 pixels inside
    for spoilt in ("valid", "in_front", "outside"):
        one = {**whole, "keypoints_px": points.tolist()}
        if spoilt == "outside":
            moved = points.copy()
            moved[4] = [-0.6, 20]
            one["keypoints_px"] = moved.tolist()
        else:
            one[spoilt] = [n != 4 for n in range(21)]
        found = fingertip_discs([one], hand_pixels)
        assert found is not None
        assert [bool(found[20, x]) for x in (20, 40, 60, 80, 100)] == [False, True, True, True, False]


def test_a_tip_just_beside_its_finger_is_visible() -> None:
    one = hand(np.random.default_rng(3))
    points = np.array(one["keypoints_px"])
    points[4] = [30.0, 30.0]
    one = {**one, "keypoints_px": points.tolist(), "valid": [n == 4 for n in range(21)]}
    for distance, visible in ((1.9, True), (2.1, False)):
        pixels = np.zeros(SHAPE, bool)
        pixels[30, 30 + math.ceil(distance)] = True
        shifted = points.copy()
        shifted[4, 0] = 30 + math.ceil(distance) - distance
        found = fingertip_discs([{**one, "keypoints_px": shifted.tolist()}], pixels)
        assert found is not None and found.any() == visible


@pytest.mark.parametrize("hands", [[], [{"keypoints_px": []}], [{"keypoints_px": [[1, 2]] * 5}], [{"valid": "x"}]])
def test_no_key_points_no_discs(hands: list[dict[str, Any]]) -> None:
    assert fingertip_discs(hands, np.ones(SHAPE, bool)) is None


def test_points_that_are_not_numbers_are_left_out() -> None:
    one = hand(np.random.default_rng(4))
    one["keypoints_px"][4] = [float("nan"), 3.0]
    assert fingertip_discs([one], np.ones(SHAPE, bool)) is not None


def test_distance_to_a_polygon_against_a_drawn_one() -> None:
    """Zero inside, and outside the distance to the nearest of many points along the outline."""
    rng = np.random.default_rng(5)
    for _ in range(3):
        angles = np.sort(rng.uniform(0, 2 * math.pi, 16))
        loop = np.array([60, 45]) + np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(10, 30, (16, 1))
        loop = loop.round()  # as Pillow draws it
        x, y = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
        found = polygon_distance(np.stack([x, y], -1).astype(float), loop)
        along = np.linspace(0, 1, 60)[:, None]
        outline = np.concatenate([a + along * (b - a) for a, b in zip(loop, np.roll(loop, -1, 0), strict=True)])
        nearest = np.sqrt(((x[..., None] - outline[:, 0]) ** 2 + (y[..., None] - outline[:, 1]) ** 2).min(-1))
        drawn = Image.new("1", SHAPE[::-1])
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in loop.tolist()], fill=1)
        inside, sure = np.asarray(drawn), nearest > 1.0  # Pillow draws the outline itself too
        assert (found[inside & sure] == 0).all()
        np.testing.assert_allclose(found[~inside & sure], nearest[~inside & sure], atol=0.06)


def test_a_band_is_a_quarter_of_the_width_round_the_loop() -> None:
    square = [[40.0, 30.0], [60.0, 30.0], [60.0, 50.0], [40.0, 50.0]]
    found = wrist_bands([{"wrist_loop": square}], SHAPE)
    assert found is not None
    margin = 0.25 * 20 * math.sqrt(2)
    for y in range(SHAPE[0]):
        for x in range(SHAPE[1]):
            away = math.hypot(max(40 - x, 0, x - 60), max(30 - y, 0, y - 50))
            assert found[y, x] == (away <= margin)


def test_every_wrist_must_be_known() -> None:
    known = {"wrist_loop": [[4.0, 3.0], [6.0, 3.0], [5.0, 9.0]]}
    assert wrist_bands([], SHAPE) is None
    assert wrist_bands([known, {"wrist_loop": []}], SHAPE) is None
    assert wrist_bands([known], SHAPE) is not None
    beyond = wrist_bands([{"wrist_loop": [[-90.0, -90.0], [-80.0, -90.0], [-85.0, -80.0]]}], SHAPE)
    assert beyond is not None and not beyond.any()
