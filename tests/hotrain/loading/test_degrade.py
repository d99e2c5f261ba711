"""Blur, noise and JPEG: against SciPy and Pillow, by position alone, and as often as the rule says."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from hotrain.loading.degrade import (
    DegradeRule,
    Faults,
    add_noise,
    degrade,
    draw_faults,
    gaussian_blur,
    motion_blur,
    recompress,
)


def picture(side: int = 64) -> np.ndarray:
    """Smooth blobs with sharp edges, uint8 [S, S, 3]."""
    rng = np.random.default_rng(0)
    blobs = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side)))
    sharp = blobs.copy()
    sharp[side // 4 : side // 2, side // 3 :] = rng.integers(0, 256, (3,))
    return sharp


@pytest.mark.parametrize("sigma", [0.5, 0.9, 1.7, 3.0])
def test_gaussian_blur_is_scipy_s(sigma: float) -> None:
    expected = ndimage.gaussian_filter(picture().astype(float), (sigma, sigma, 0), mode="nearest", truncate=3)
    assert np.abs(gaussian_blur(picture(), sigma) - expected).max() <= 3  # weights are 256ths, rounded twice
    assert np.abs((gaussian_blur(picture(), sigma) - expected).mean()) < 0.3


@pytest.mark.parametrize(("length", "angle"), [(4.0, 0.0), (9.0, 0.4), (8.0, math.pi / 2), (12.0, 2.5)])
def test_motion_smears_a_point_along_its_path(length: float, angle: float) -> None:
    """All of the light stays, evenly, on a line of that length and direction."""
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    smeared = motion_blur(point, length, angle)[..., 0].astype(float)
    rows, columns = np.nonzero(smeared)
    y, x = rows - 20, columns - 20
    along, off = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    assert smeared.sum() == pytest.approx(255, abs=len(rows))
    assert np.abs(off).max() <= 0.71 and along.max() == pytest.approx(length / 2, abs=0.71)
    assert along.min() == pytest.approx(-length / 2, abs=0.71)
    outer = smeared[smeared > 0]
    assert outer.max() <= outer.min() * 2.5  # the middle takes what rounding leaves


def test_blur_leaves_an_even_picture_alone() -> None:
    even = np.full((20, 30, 3), (3, 128, 255), np.uint8)
    np.testing.assert_array_equal(gaussian_blur(even, 2.0), even)
    np.testing.assert_array_equal(motion_blur(even, 7.0, 1.0), even)


@pytest.mark.parametrize(("level", "shot"), [(128, 0.0), (128, 1.0), (60, 0.0), (60, 1.0), (180, 0.5)])
def test_noise_has_the_variance_it_says(level: int, shot: float) -> None:
    """sigma squared * (1 - shot + shot * level / 128), in the mean over many pixels, and its mean is 0."""
    grain = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    seen = add_noise(np.full_like(grain, level), grain, 6.0, shot).astype(float)
    assert seen.mean() == pytest.approx(level, abs=0.1)
    assert seen.std() == pytest.approx(6 * math.sqrt(1 - shot + shot * level / 128), rel=0.02)


def test_noise_is_clipped_and_not_wrapped() -> None:
    grain = np.random.default_rng(1).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert add_noise(np.zeros_like(grain), grain, 14.0, 0.0).max() < 60
    assert add_noise(np.full_like(grain, 255), grain, 14.0, 0.5).min() > 180


def test_a_recompressed_picture_is_what_pillow_makes_of_it() -> None:
    """Its brightness; colour, of half the resolution, is enlarged the fast way, as the loader does with all JPEGs."""
    for quality in (25, 60, 95):
        buffer = io.BytesIO()
        Image.fromarray(picture()).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        expected = np.asarray(Image.open(buffer).convert("L")).astype(int)
        found = np.asarray(Image.fromarray(recompress(picture(), quality)).convert("L"))
        assert np.abs(found - expected).mean() < 1.5
    lost = [np.abs(recompress(picture(), quality).astype(int) - picture()).mean() for quality in (25, 60, 95)]
    assert lost[0] > lost[1] > lost[2]


def test_a_rule_of_zeros_changes_nothing() -> None:
    image = picture()
    for position in range(20):
        degrade(image, 0, position, DegradeRule())
    np.testing.assert_array_equal(image, picture())
    assert draw_faults(0, 5, DegradeRule(), 64) == Faults() and str(Faults()) == ""


def test_a_picture_depends_on_seed_and_position_alone() -> None:
    rule = DegradeRule(0.7, 0.7, 0.7)
    seen = []
    for seed, position in ((0, 3), (0, 4), (1, 3)):
        pair = [picture(), picture()]
        for image in pair:
            degrade(image, seed, position, rule)
        np.testing.assert_array_equal(*pair)
        seen.append(pair[0])
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[0], seen[2])


def test_each_pixel_of_each_position_has_noise_of_its_own() -> None:
    grains = []
    for position in range(6):
        even = np.full((64, 64, 3), 128, np.uint8)
        degrade(even, 0, position, DegradeRule(noise=1.0))
        grains.append(even.reshape(-1).astype(float))
    likeness = np.corrcoef([*grains, np.roll(grains[0], 1), np.roll(grains[0], 3), np.roll(grains[0], 64 * 3)])
    assert np.abs(likeness - np.eye(9)).max() < 0.05


def test_each_is_as_frequent_as_its_share_and_within_its_limits() -> None:
    rule = DegradeRule(blur=0.4, noise=0.2, jpeg=0.6)
    drawn = [draw_faults(7, position, rule, 480) for position in range(4000)]
    gauss, motion = [f.sigma for f in drawn if f.sigma], [f.motion for f in drawn if f.motion]
    noise, quality = [f.noise for f in drawn if f.noise], [f.quality for f in drawn if f.quality]
    shares = [len(found) / 4000 for found in (gauss, motion, noise, quality)]
    np.testing.assert_allclose(shares, [0.2, 0.2, 0.2, 0.6], atol=0.03)
    assert 0.5 <= min(gauss) < 0.52 and 2.9 < max(gauss) <= 3
    assert min(length for length, _ in motion) >= 3 and 15.5 < max(length for length, _ in motion) <= 16
    assert min(angle for _, angle in motion) >= 0 and 3.1 < max(angle for _, angle in motion) < math.pi
    assert min(sigma for sigma, _ in noise) >= 1.5 and 13.5 < max(sigma for sigma, _ in noise) <= 14
    assert (min(quality), max(quality)) == (25, 95)
    # Drawn apart: half of the blurred are not those that are compressed, and so on.
    both = sum(bool(f.noise and f.quality) for f in drawn) / 4000
    assert both == pytest.approx(0.12, abs=0.02)
