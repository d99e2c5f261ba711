"""Outlines against a slow even-odd fill."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from hodata.synth.outlines import outline


def fill(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Even-odd fill at pixel centres, one edge at a time."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            crosses = (y0 <= y) != (y1 <= y)
            inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


@pytest.mark.parametrize("seed", range(8))
def test_filling_the_outline_gives_the_mask_back(seed):
    """Blobs with islands and holes: what differs lies on the border, and is little."""
    rng = np.random.default_rng(seed)
    mask = gaussian_filter(rng.normal(size=(70, 90)), 4) > 0.02
    mask[20:24, 30:34] = True
    again = fill(outline(mask), mask.shape)
    border = binary_dilation(mask) & ~binary_erosion(mask, border_value=1)
    differ = mask != again
    small = ~binary_dilation(binary_erosion(mask, iterations=1), iterations=3) & mask  # islands too small to outline
    assert not (differ & ~border & ~small).any()
    assert differ.sum() < 0.03 * mask.sum()


def test_shapes_at_the_picture_edge_and_nothing():
    mask = np.zeros((20, 30), dtype=bool)
    assert outline(mask).shape == (0, 2)
    mask[3, 4] = True
    assert outline(mask).shape == (0, 2), "a speck is not outlined"
    mask[:, :12] = True
    polygon = outline(mask)
    np.testing.assert_array_equal(fill(polygon, mask.shape), mask)
    assert polygon.min() >= -0.5 and polygon[:, 0].max() <= 11.5
