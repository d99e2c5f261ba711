"""Connected parts and the ones to trust, against OpenCV and by cases."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hotrain.annotate.components import bounding_box, components, trusted


@pytest.mark.parametrize("seed", range(4))
def test_parts_are_those_of_opencv(seed: int) -> None:
    mask = np.random.default_rng(seed).random((40, 50)) < 0.3
    mask[:5] = False
    found = components(mask)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    assert len(found) == count - 1
    assert sorted(found.areas) == sorted(stats[1:, cv2.CC_STAT_AREA])
    largest = found.mask([found.largest], mask.shape)
    assert len(set(labels[largest])) == 1 and largest.sum() == stats[1:, cv2.CC_STAT_AREA].max()
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    assert bounding_box(mask) == (y, x, y + h, x + w)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((60, 80), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_only_the_largest_hand_and_the_objects_that_touch_it_are_trusted() -> None:
    hand, other_hand, stray = square(20, 20, 16), square(20, 60, 12), square(0, 0, 1)
    held, behind, held_by_other = square(20, 36, 8), square(50, 20, 5), square(34, 60, 6)
    kept_hand, kept_object = trusted(hand | other_hand | stray, held | behind | held_by_other)
    np.testing.assert_array_equal(kept_hand, hand)
    np.testing.assert_array_equal(kept_object, held)


@pytest.mark.parametrize(("gap", "touches"), [(0, True), (3, True), (4, False)])
def test_a_few_pixels_between_hand_and_object_still_touch(gap: int, touches: bool) -> None:
    hand = square(20, 20, 10)
    for thing in (
        square(20, 30 + gap, 6),
        square(30 + gap, 20, 6),
        square(14 - gap, 20, 6),
        square(30 + gap, 30 + gap, 4),
    ):
        assert trusted(hand, thing)[1].any() == touches


def test_a_hand_at_the_border_and_nothing_at_all() -> None:
    empty = np.zeros((60, 80), dtype=bool)
    assert not trusted(empty, square(3, 3, 9))[1].any()
    hand, thing = trusted(square(0, 0, 20), empty)
    assert hand.sum() == 400 and not thing.any()
    everything = ~empty
    assert trusted(everything, everything)[1].all()
    assert bounding_box(empty) is None and len(components(empty)) == 0
