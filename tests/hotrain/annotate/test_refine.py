"""A closer look finds what the coarse pass missed, where it looks, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import ColorNetwork, paint, tree_bytes, write_image
from numpy.typing import NDArray
from PIL import Image

from hotrain.annotate.inputs import find_frames
from hotrain.annotate.pipeline import AnnotateConfig, annotate
from hotrain.annotate.refine import crop_boxes


class Blurred(ColorNetwork):
    """Answers at a quarter of its input, as a network with a stride does."""

    def logits(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        full = super().logits(prepared)
        batch, classes, height, width = full.shape
        cells = full[:, :, : height // 4 * 4, : width // 4 * 4].reshape(batch, classes, height // 4, 4, width // 4, 4)
        return cells.mean((3, 5)).repeat(4, 2).repeat(4, 3)


def small_hand() -> NDArray[np.uint8]:
    """Classes [480, 640]: a hand of 60 pixels with four fingers of 6, far from the middle."""
    classes = np.zeros((480, 640), dtype=np.uint8)
    classes[330:360, 470:530] = 1
    for finger in range(4):
        classes[300:330, 472 + 15 * finger : 478 + 15 * finger] = 1
    return classes


def answer(tmp_path: Path, refine: str, classes: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    write_image(tmp_path / "in" / "0.png", paint(classes))
    out = tmp_path / refine
    annotate(Blurred(size=96), find_frames([str(tmp_path / "in")]), out, AnnotateConfig(refine=refine))
    return np.asarray(Image.open(out / "png" / "0.png")) == 9, json.loads((out / "frames.jsonl").read_text())


def test_fingers_come_back(tmp_path: Path) -> None:
    classes = small_hand()
    classes[20:100, 20:60] = 2  # elsewhere nothing changes
    truth = classes == 1
    coarse, _ = answer(tmp_path, "none", classes)
    fine, row = answer(tmp_path, "auto", classes)
    assert row["refined"] == 1
    fingers = np.s_[300:330, 465:535]
    assert coarse[fingers][truth[fingers]].mean() < 0.5 < 0.9 < fine[fingers][truth[fingers]].mean()
    iou = [(found & truth).sum() / (found | truth).sum() for found in (coarse, fine)]
    assert iou[0] < 0.6 and iou[1] > 0.8
    far = np.ones_like(truth)
    far[200:, 350:] = False
    np.testing.assert_array_equal(coarse[far], fine[far])


def test_frames_of_one_batch_are_refined_as_each_alone(tmp_path: Path) -> None:
    """A small hand at one place, at another, and none."""
    pictures = [small_hand(), np.roll(small_hand(), (-250, -400), (0, 1)), np.zeros((480, 640), dtype=np.uint8)]
    for number, classes in enumerate(pictures):
        write_image(tmp_path / "all" / f"{number}.png", paint(classes))
        write_image(tmp_path / f"only{number}" / f"{number}.png", paint(classes))

    def annotated(name: str) -> dict[str, bytes]:
        out = tmp_path / f"{name}-out"
        config = AnnotateConfig(formats=("png", "confidence"), batch_size=3)
        annotate(Blurred(size=96), find_frames([str(tmp_path / name)]), out, config)
        return {place: data for place, data in tree_bytes(out).items() if place.endswith(".png")}

    together = annotated("all")
    alone = [annotated(f"only{number}") for number in range(3)]
    assert together == {place: data for one in alone for place, data in one.items()} and len(together) == 6
    rows = map(json.loads, (tmp_path / "all-out" / "frames.jsonl").read_text().splitlines())
    assert [row.get("refined") for row in rows] == [1, 1, None]


def test_large_hands_are_left_alone_unless_asked(tmp_path: Path) -> None:
    classes = np.zeros((120, 160), dtype=np.uint8)
    classes[10:115, 20:110] = 1
    coarse = np.asarray(classes == 1)
    assert crop_boxes(coarse, (160, 120), 120, 96) == []
    assert crop_boxes(coarse, (160, 120), 120, float("inf")) == []  # no crop would show more
    assert len(crop_boxes(coarse[::2, ::2], (1600, 1200), 120, 96)) == 0
    small = np.zeros((120, 160), dtype=bool)
    small[50:60, 70:90] = True
    assert len(crop_boxes(small, (160, 120), 120, 96)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_squares_inside_the_image_round_their_hands(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = np.zeros((30, 40), dtype=bool)
    places = [(int(rng.integers(0, 26)), int(rng.integers(0, 36))) for _ in range(3)]
    for top, left in places:
        coarse[top : top + 3, left : left + 3] = True
    boxes = crop_boxes(coarse, (640, 480), 480, 1000)
    assert 1 <= len(boxes) <= 3
    for left, top, right, bottom in boxes:
        assert right - left == bottom - top and left >= 0 and top >= 0 and right <= 640 and bottom <= 480
    for top, left in places:
        x, y = (left + 1.5) * 16, (top + 1.5) * 16
        assert any(a <= x < c and b <= y < d for a, b, c, d in boxes)
