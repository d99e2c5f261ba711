"""Colour changes: by position alone, within their limits, against a float64 twin."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch

from hotrain.learning.augment import PHOTOMETRIC, ColorRule, jitter_colors, normalize
from hotrain.order import uniforms

STILL = ColorRule(0, 0, 0, 0, 0, 0, 0)


def images(count: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 8, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def slow_jitter(image: np.ndarray, seed: int, position: int, rule: ColorRule) -> np.ndarray:
    """One image, step by step: gamma, hue, saturation, balance, brightness, contrast."""
    draw = uniforms(seed, position, PHOTOMETRIC, 9)
    spread = 2 * draw - 1
    pixels = np.clip(image.astype(np.float64) / 255, 1e-4, None) ** math.exp(rule.gamma * spread[1])
    angle = 2 * math.pi * rule.hue * spread[3]
    axis = np.ones(3) / math.sqrt(3)
    flat = pixels.reshape(3, -1).T
    turned = (
        flat * math.cos(angle)
        + np.cross(axis, flat) * math.sin(angle)
        + np.outer(flat @ axis, axis) * (1 - math.cos(angle))
    )
    gray = turned @ np.array([0.299, 0.587, 0.114])
    saturation = 0.0 if draw[8] < rule.gray else 1 + rule.saturation * spread[2]
    mixed = gray[:, None] + saturation * (turned - gray[:, None])
    mixed = mixed * (1 + rule.balance * spread[5:8]) * (1 + rule.brightness * spread[4])
    middle = mixed.mean()
    mixed = middle + (1 + rule.contrast * spread[0]) * (mixed - middle)
    return np.round(np.clip(mixed, 0, 1) * 255).T.reshape(image.shape)


def test_equals_the_slow_twin() -> None:
    batch, position = images(), torch.tensor([0, 1, 7, 500, 10**9, 12345])
    found = jitter_colors(batch, 11, position, ColorRule()).numpy()
    for image, p, answer in zip(batch.numpy(), position.tolist(), found, strict=True):
        assert np.abs(answer - slow_jitter(image, 11, p, ColorRule())).max() <= 1


def test_a_position_s_colours_do_not_depend_on_its_batch() -> None:
    batch, position = images(), torch.arange(100, 106)
    whole = jitter_colors(batch, 0, position, ColorRule())
    parts = [jitter_colors(batch[n : n + 1], 0, position[n : n + 1], ColorRule()) for n in range(6)]
    assert (whole.int() - torch.cat(parts).int()).abs().max() <= 1  # sums of other lengths may round differently
    assert not torch.equal(whole, jitter_colors(batch, 1, position, ColorRule()))


def test_a_rule_of_zeros_changes_nothing() -> None:
    batch = images()
    assert (jitter_colors(batch, 0, torch.arange(6), STILL).int() - batch.int()).abs().max() <= 1


def test_hue_turns_by_the_angle_it_says() -> None:
    red = torch.tensor([200, 60, 60], dtype=torch.uint8)[None, :, None, None].expand(200, 3, 2, 2)
    turned = jitter_colors(red, 5, torch.arange(200), ColorRule(0, 0, 0, 0.05, 0, 0, 0))
    hues = [colorsys.rgb_to_hsv(*(turned[n, :, 0, 0].numpy() / 255))[0] for n in range(200)]
    signed = [hue - 1 if hue > 0.5 else hue for hue in hues]
    assert max(signed) == pytest.approx(0.05, abs=0.012) and min(signed) == pytest.approx(-0.05, abs=0.012)


def test_some_images_lose_their_colour() -> None:
    batch = images(1).expand(400, 3, 8, 10)
    gray = jitter_colors(batch, 2, torch.arange(400), ColorRule(0, 0, 0.1, 0, 0, 0, gray=0.25))
    share = ((gray.float().amax(1) - gray.float().amin(1)).amax((1, 2)) <= 1).float().mean()
    assert 0.18 < float(share) < 0.32


def test_normalize_is_its_formula() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    batch = images()
    expected = (batch.numpy() / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    np.testing.assert_allclose(normalize(batch, mean, std).numpy(), expected, atol=1e-5)
