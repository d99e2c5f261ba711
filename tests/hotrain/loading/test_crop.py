"""Crops: geometry in whole pixels against slow twins, and Pillow as the oracle of resizing."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from drawn_shards import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hodata.labels import Label
from hotrain.input_rule import InputRule
from hotrain.loading.crop import BEYOND, Box, CropRule, Window, cut, draw_window
from hotrain.loading.data import decode_image


def crop_of(image: np.ndarray, mask: np.ndarray, window: Window, size: int) -> tuple[np.ndarray, np.ndarray]:
    pixels, label = np.empty((size, size, 3), np.uint8), np.empty((size, size), np.uint8)
    cut(image, mask, window, pixels, label)
    return pixels, label


numbers = st.lists(st.floats(0, 0.9999), min_size=4, max_size=4).map(np.array)


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(st.integers(1, 200), st.integers(1, 200)), network=st.integers(8, 40), numbers=numbers)
def test_a_window_is_the_drawn_region_to_half_a_cell(size: tuple[int, int], network: int, numbers: np.ndarray) -> None:
    """Against the same draw in fractions: zoomed size, corner, and the borders in pixels of the image."""
    rule, crop = InputRule(network), CropRule(24, (0.5, 2.0))
    window = draw_window(*size, rule, crop, numbers)
    zoom = 0.5 * 4 ** float(numbers[0])
    scaled = [max(round(side * zoom), 1) for side in rule.network_size(*size)]
    assert window.shrink in (1, 2, 4, 8)
    assert window.shrink == 1 or all(s * window.shrink <= side for s, side in zip(scaled, size, strict=True))
    assert window.mirrored == (numbers[3] < 0.5)
    sides = zip(
        size, scaled, numbers[1:3], window.taken[:2], window.taken[2:], window.shown[:2], window.shown[2:], strict=True
    )
    for side, zoomed, number, start, length, at, across in sides:
        room = abs(zoomed - 24)
        corner = floor(float(number) * (room + 1)) * (1 if zoomed >= 24 else -1)
        assert (at, across) == (max(-corner, 0), min(24, zoomed))
        first, last = Fraction((corner + at) * side, zoomed), Fraction((corner + at + across) * side, zoomed)
        assert start % window.shrink == length % window.shrink == 0
        assert 0 <= start < start + length <= side
        # A region thinner than a cell becomes one; the parts of a cell at the far border are lost.
        assert abs(start - first) <= window.shrink + Fraction(1, 2) and (
            abs(start + length - last) <= window.shrink + Fraction(1, 2)
        )
        if length > window.shrink and last <= side // window.shrink * window.shrink:
            assert abs(start - first) <= Fraction(window.shrink, 2) >= abs(start + length - last)


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(st.integers(3, 60), st.integers(3, 60)), numbers=numbers)
def test_labels_are_the_nearest_pixel_and_void_beyond(size: tuple[int, int], numbers: np.ndarray) -> None:
    mask = np.random.default_rng(0).integers(0, 14, size[::-1], dtype=np.uint8)
    window = draw_window(*size, InputRule(20), CropRule(16), numbers)
    taken, shown = window.taken, window.shown
    _, label = crop_of(np.zeros((*mask.shape, 3), np.uint8), mask, window, 16)
    if window.mirrored:
        label = label[:, ::-1]
    half = Fraction(1, 2)
    for row in range(16):
        for column in range(16):
            x, y = column - shown.x, row - shown.y
            if 0 <= x < shown.width and 0 <= y < shown.height:
                across = floor((x + half) * taken.width / shown.width) + taken.x
                down = floor((y + half) * taken.height / shown.height) + taken.y
                assert label[row, column] == mask[down, across]
            else:
                assert label[row, column] == Label.VOID


@pytest.mark.parametrize("mirrored", [False, True])
def test_pixels_are_those_of_pillow(mirrored: bool) -> None:
    """Pillow's antialiased bilinear resize of the same region; both round, so they differ by one at most."""
    rng = np.random.default_rng(1)
    image = np.array(Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((160, 120)))
    mask = np.zeros((120, 160), np.uint8)
    for taken, shown in (
        (Box(12, 7, 100, 90), Box(0, 0, 64, 64)),  # smaller
        (Box(30, 40, 25, 22), Box(0, 3, 64, 55)),  # larger
        (Box(50, 9, 64, 64), Box(0, 0, 64, 64)),  # as it is
        (Box(0, 0, 160, 120), Box(5, 12, 53, 40)),  # all of it
    ):
        found, _ = crop_of(image, mask, Window(taken, shown, 1, mirrored), 64)
        region = Image.fromarray(image[taken.y : taken.y + taken.height, taken.x : taken.x + taken.width])
        expected = np.full((64, 64, 3), BEYOND, np.uint8)
        inside = np.s_[shown.y : shown.y + shown.height, shown.x : shown.x + shown.width]
        expected[inside] = region.resize((shown.width, shown.height), Image.Resampling.BILINEAR)
        expected = expected[:, ::-1] if mirrored else expected
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_image_and_label_stay_together() -> None:
    """A bright disc under its own mask: after any crop both have the same area and centre, to a fraction of a pixel."""
    rows, columns = np.mgrid[:120, :160]
    mask = ((columns - 83) ** 2 + (rows - 57) ** 2 < 30**2).astype(np.uint8)
    image = np.repeat(mask[..., None] * 200, 3, 2)
    for number in range(40):
        window = draw_window(160, 120, InputRule(64), CropRule(64), np.random.default_rng(number).random(4))
        pixels, label = crop_of(image, mask, window, 64)
        inside = label != Label.VOID
        seen = np.where(inside, pixels[..., 0], 0) / 200
        drawn = label == 1
        assert seen.sum() == pytest.approx(drawn.sum(), rel=0.04)
        for axis in np.mgrid[:64, :64]:
            assert (axis * seen).sum() / seen.sum() == pytest.approx(axis[drawn].mean(), abs=0.2)


@pytest.mark.parametrize("shrink", [2, 4])
def test_a_scaled_down_decode_shows_the_same_place(shrink: int) -> None:
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    image = np.repeat(np.repeat(ramp[None, :, None], 480, 0), 3, 2)
    data, mask = encode(image, "jpg"), np.zeros((480, 640), np.uint8)
    window = Window(Box(80, 20, 400, 400), Box(0, 0, 96, 96), shrink, False)
    small = decode_image(data, "jpg", "k", (640, 480), shrink)
    assert small.shape == (480 // shrink, 640 // shrink, 3)
    exact, quick = (
        crop_of(decoded, mask, window, 96)[0].astype(int) for decoded in (decode_image(data, "jpg", "k"), small)
    )
    assert np.abs(exact - quick).max() <= 3


@pytest.mark.parametrize("limits", [(1.0, 1.0), (0.5, 0.9), (0.6, 1.7)])
def test_zoom_and_place_cover_their_ranges(limits: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    zooms, places = [], set()
    for _ in range(500):
        window = draw_window(640, 480, InputRule(96), CropRule(96, limits), rng.random(4))
        zoom = window.shown.height / window.taken.height, window.shown.width / window.taken.width
        assert zoom[0] == pytest.approx(zoom[1], rel=0.03)
        zooms.append(zoom[1] * 480 / 96)
        places.add(window.taken[:2] + window.shown[:2])
    assert min(zooms) == pytest.approx(limits[0], rel=0.03) and max(zooms) == pytest.approx(limits[1], rel=0.03)
    assert len(places) > 10


def test_aimed_crops_show_the_centre_of_a_hand_anywhere() -> None:
    """All of them do, at places that cover the crop; without aim as many do as chance puts there."""
    rng = np.random.default_rng(2)
    hand = np.array([[600, 20, 619, 39], [100, 400, 139, 459]], np.float32)
    middles = [(610, 30), (120, 430)]
    shown: dict[float, list[bool]] = {0.0: [], 1.0: []}
    places = []
    for aim, found in shown.items():
        rule = CropRule(64, (1.5, 3.0), aim=aim)
        for _ in range(400):
            numbers = rng.random(6)
            window = draw_window(640, 480, InputRule(96), rule, numbers, hand)
            x, y = middles[int(numbers[5] * 2)]
            left, top = x - window.taken.x, y - window.taken.y
            # A pixel of the crop is up to 3.4 of the image: the grid on which a region is taken.
            found.append(-4 <= left <= window.taken.width + 4 and -4 <= top <= window.taken.height + 4)
            if aim and int(numbers[5] * 2) == 1:
                places.append((left / window.taken.width, top / window.taken.height))
    assert all(shown[1.0])
    assert 0 < np.mean(shown[0.0]) < 0.3
    assert np.ptp(places, axis=0).min() > 0.4


@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(st.floats(0, 0.9999), min_size=6, max_size=6).map(np.array), seen=st.integers(30, 400))
def test_hands_are_brought_towards_one_size(numbers: np.ndarray, seen: int) -> None:
    """Against the definition: of the size at zoom 1, the part `even` of the way to the typical one, logarithmically."""
    hand = np.array([[100, 100, 99 + seen, 99 + seen]], np.float32)
    plain = draw_window(1000, 1000, InputRule(500), CropRule(100, (1.0, 1.0)), numbers)
    even = draw_window(1000, 1000, InputRule(500), CropRule(100, (1.0, 1.0), even=0.5, hand_size=60.0), numbers, hand)
    zoom = even.shown.width / even.taken.width / (plain.shown.width / plain.taken.width)
    assert zoom == pytest.approx((60 / (seen / 2)) ** 0.5, rel=0.05)


def test_without_hands_or_options_the_window_is_the_plain_one() -> None:
    rng = np.random.default_rng(3)
    none = np.zeros((0, 4), np.float32)
    box = np.array([[10, 10, 60, 50]], np.float32)
    for _ in range(50):
        numbers = rng.random(6)
        plain = draw_window(640, 480, InputRule(96), CropRule(96), numbers[:4])
        eager = CropRule(96, aim=1.0, even=1.0, hand_size=40.0)
        assert draw_window(640, 480, InputRule(96), eager, numbers, none) == plain
        assert draw_window(640, 480, InputRule(96), CropRule(96), numbers, box) == plain
