"""Boundary IoU against a twin that measures the distance to the other side pixel by pixel, and SciPy's erosion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hotrain.scoring.boundary import NEVER, OPEN, SURELY, boundary_counts, boundary_radius, erode


def near_the_other_side(region: np.ndarray, radius: int) -> np.ndarray:
    """Pixels of a region from which a chess king reaches a pixel outside of it, or leaves the picture, in `radius`."""
    height, width = region.shape
    near = np.zeros(region.shape, bool)
    for y in range(height):
        for x in range(width):
            around = [(y + dy, x + dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1)]
            near[y, x] = region[y, x] and any(
                not (0 <= i < height and 0 <= j < width) or not region[i, j] for i, j in around
            )
    return near


def slow_counts(truth: np.ndarray, predicted: np.ndarray, radius: int) -> tuple[int, int, int]:
    surely, undecided = truth == SURELY, truth == OPEN
    band = surely & near_the_other_side(surely | undecided, radius)
    answered = predicted & ~undecided & near_the_other_side(predicted | undecided, radius)
    return int((band & answered).sum()), int((band | answered).sum()), int(band.sum())


def blobs(rng: np.random.Generator, shape: tuple[int, int], blur: float) -> np.ndarray:
    return ndimage.gaussian_filter(rng.normal(size=shape), blur) > 0.02


shapes = st.tuples(st.integers(1, 18), st.integers(1, 22))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), shapes, st.integers(1, 5), st.sampled_from([0.0, 0.15, 0.9]))
def test_equals_the_slow_twin(seed: int, shape: tuple[int, int], radius: int, undecided: float) -> None:
    rng = np.random.default_rng(seed)
    truth = np.where(blobs(rng, shape, 2), SURELY, NEVER).astype(np.uint8)
    truth[rng.random(shape) < undecided] = OPEN
    predicted = blobs(rng, shape, 2)
    assert boundary_counts(truth, predicted, radius) == slow_counts(truth, predicted, radius)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.tuples(st.integers(1, 70), st.integers(1, 70)), st.integers(1, 20))
def test_erosion_is_scipy_s(seed: int, shape: tuple[int, int], radius: int) -> None:
    mask = blobs(np.random.default_rng(seed), shape, 6)
    expected = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=radius)
    np.testing.assert_array_equal(erode(mask, radius), expected)


def test_equals_the_authors_steps_where_everything_is_decided() -> None:
    """Pad by one, erode by a 3x3 square as often as the distance says, take the difference (their mask_to_boundary)."""

    def band(mask: np.ndarray, times: int) -> np.ndarray:
        padded = np.pad(mask, 1)
        return mask & ~ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=times)[1:-1, 1:-1]

    rng = np.random.default_rng(1)
    for shape in ((120, 160), (97, 64)):
        radius = max(round(0.02 * float(np.hypot(*shape))), 1)
        assert radius == boundary_radius(*shape)
        truth, predicted = blobs(rng, shape, 8), blobs(rng, shape, 8)
        one, other = band(truth, radius), band(predicted, radius)
        hit, union, of_truth = boundary_counts(np.where(truth, SURELY, NEVER).astype(np.uint8), predicted, radius)
        assert (hit, union, of_truth) == ((one & other).sum(), (one | other).sum(), one.sum())
        assert hit > 0


def test_what_is_answered_where_nothing_is_decided_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    truth = np.where(blobs(rng, (60, 80), 5), SURELY, NEVER).astype(np.uint8)
    truth[blobs(rng, (60, 80), 5)] = OPEN
    predicted = blobs(rng, (60, 80), 5)
    other = np.where(truth == OPEN, ~predicted, predicted)
    assert boundary_counts(truth, predicted, 3) == boundary_counts(truth, other, 3)
    right = np.where(truth == OPEN, predicted, truth == SURELY)
    hit, union, of_truth = boundary_counts(truth, right, 3)
    assert hit == union == of_truth > 0


def test_a_large_inside_hides_a_rough_outline_from_iou_but_not_from_its_boundary() -> None:
    truth = np.zeros((480, 640), np.uint8)
    truth[100:400, 100:500] = SURELY
    smaller = np.zeros(truth.shape, bool)
    smaller[110:390, 110:490] = True
    iou = (smaller & (truth == SURELY)).sum() / (smaller | (truth == SURELY)).sum()
    hit, union, _ = boundary_counts(truth, smaller, boundary_radius(480, 640))
    assert boundary_radius(480, 640) == 16
    assert iou > 0.88 and hit / union < 0.35


@pytest.mark.parametrize("answered", [False, True])
def test_an_absent_class_has_no_truth(answered: bool) -> None:
    predicted = np.full((20, 30), answered)
    hit, union, of_truth = boundary_counts(np.zeros((20, 30), np.uint8), predicted, 2)
    assert (hit, of_truth) == (0, 0) and (union > 0) == answered
