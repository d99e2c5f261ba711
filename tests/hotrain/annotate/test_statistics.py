"""The figures of frames.jsonl against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawn import scene

from hodata.labels import TASKS
from hotrain.annotate.flip import flip_average
from hotrain.annotate.rle import decode, encode, merge
from hotrain.annotate.statistics import add_neighbours, frame_statistics, kind_masks, neighbour_iou

TASK = TASKS["hand-object"]


def test_figures_of_one_frame() -> None:
    rng = np.random.default_rng(0)
    classes = TASK.fold("wrist")[scene()[1]]
    confidence = rng.integers(100, 256, classes.shape, dtype=np.uint8)
    found = frame_statistics(kind_masks(classes, TASK), confidence, 0.12345)
    for class_id, kind in ((1, "hand"), (2, "object")):
        values = confidence[classes == class_id] / 255
        rows, columns = np.nonzero(classes == class_id)
        assert found[kind]["area"] == len(values)
        assert found[kind]["confidence_mean"] == pytest.approx(values.mean(), abs=6e-4)
        assert found[kind]["confidence_p05"] == pytest.approx(
            np.quantile(values, 0.05, method="inverted_cdf"), abs=6e-4
        )
        x, y, w, h = found[kind]["box"]
        assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert found[kind]["components"] == 1 and not found[kind]["touches_border"]
    assert found["flip_disagreement"] == 0.123


@pytest.mark.parametrize("edge", [np.s_[0, 3], np.s_[-1, 3], np.s_[3, 0], np.s_[3, -1]])
def test_touching_a_border(edge: tuple[int, int]) -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[edge] = True
    found = frame_statistics({"hand": mask}, np.full((9, 9), 255, np.uint8), None)
    assert found["hand"]["touches_border"] and found["hand"]["components"] == 1
    assert "flip_disagreement" not in found


def test_kinds_fold_sides_and_holders() -> None:
    task = TASKS["egohos"]
    masks = kind_masks(np.arange(task.public, dtype=np.uint8)[None], task)
    assert masks["hand"].tolist() == [[False, True, True, False, False, False]]
    assert masks["object"].tolist() == [[False, False, False, True, True, True]]
    assert set(kind_masks(np.zeros((2, 2), np.uint8), TASKS["hand"])) == {"hand"}


def test_neighbours() -> None:
    rng = np.random.default_rng(1)
    masks = [rng.random((20, 30)) < 0.5 for _ in range(2)]
    things = [rng.random((20, 30)) < 0.2 for _ in range(2)]
    packed = [{"hand": encode(m), "object": encode(t)} for m, t in zip(masks, things, strict=True)]
    common = (masks[0] & masks[1]).sum() + (things[0] & things[1]).sum()
    union = (masks[0] | masks[1]).sum() + (things[0] | things[1]).sum()
    assert neighbour_iou(*packed) == pytest.approx(common / union, abs=6e-4)
    np.testing.assert_array_equal(decode(packed[0]["hand"]), masks[0])
    np.testing.assert_array_equal(decode(merge([packed[0]["hand"], packed[1]["hand"]])), masks[0] | masks[1])
    assert neighbour_iou(packed[0], {"hand": encode(np.zeros((5, 5), bool))}) is None


def row(recording: str = "a", **changes: Any) -> dict[str, Any]:
    hand = {"area": 50, "components": 1, "confidence_mean": 0.9, "touches_border": False}
    return {"status": "ok", "recording": recording, "hand": {**hand, **changes}}


def test_a_mask_that_jumps_is_flagged_and_neighbours_end_with_the_recording() -> None:
    here, there = (np.zeros((20, 20), dtype=bool) for _ in range(2))
    here[:10, :10] = there[10:, 10:] = True
    order = [here, here, there, here, here]
    rows = [row() for _ in order] + [row("b")]
    add_neighbours(rows, [{"hand": encode(mask)} for mask in [*order, here]])
    assert [r["iou_next"] for r in rows] == [1, 0, 0, 1, None, None]
    assert [r["iou_previous"] for r in rows] == [None, 1, 0, 0, 1, None]
    assert [r["flags"] for r in rows] == [[], [], ["jump"], [], [], []]
    assert min(rows, key=lambda r: r["quality"]) is rows[2]


def test_other_flags() -> None:
    rows = [row(confidence_mean=0.5), row(area=0), row(components=4), row(touches_border=True)]
    rows.append({"status": "broken", "recording": "a"})
    add_neighbours(rows, [None] * 5)
    assert [r["flags"] for r in rows] == [["unsure"], ["no-hand"], ["fragments"], ["border"], ["broken"]]
    assert rows[4]["quality"] == 0


def test_flipping_swaps_sides_and_undoes_itself() -> None:
    names = TASKS["egohos"].classes
    swapped = [names[c] for c in TASKS["egohos"].mirrored()]
    assert swapped == [
        *("background", "right", "left", "object_right", "object_left", "object_both"),
        *("right_arm", "left_arm"),
    ]
    task = TASKS["sides"]
    logits = np.random.default_rng(0).normal(size=(2, len(task.classes), 6, 8)).astype(np.float32)
    mirrored = logits[:, task.mirrored(), :, ::-1]
    mean, apart = flip_average(logits, mirrored, task, task.fold("wrist"))
    np.testing.assert_allclose(mean, logits, atol=1e-6)
    assert apart == [0, 0] and mean.dtype == np.float32
    fold = task.fold("wrist")
    _, apart = flip_average(logits, np.roll(mirrored, 3, axis=3), task, fold)
    # The arms of task `sides` are 4 and 5, and background at the wrist: added up before the likeliest is taken.
    chances = np.exp(logits)
    chances[:, 0] += chances[:, 4] + chances[:, 5]
    one = chances[:, :4].argmax(1)
    other = np.roll(one, -3, axis=2)
    assert apart[0] == pytest.approx(((one != other)[0]).sum() / ((one > 0) | (other > 0))[0].sum())
