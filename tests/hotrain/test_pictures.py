"""Sheets and curves: what is drawn is where and what it should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_shards import Spec
from PIL import Image

from hodata.labels import COLORS, TASKS, Label
from hodata.shards.reader import ShardIndex
from hotrain.pictures import Curve, Example, class_colors, curves, prediction_sheet, save_picture
from hotrain.sheets import spread_rows, training_curves

TASK = TASKS["hand-object"]


def test_a_sheet_shows_image_truth_and_prediction_side_by_side() -> None:
    image = np.full((60, 90, 3), 200, dtype=np.uint8)
    label, predicted = np.zeros((60, 90), np.uint8), np.zeros((60, 90), np.uint8)
    label[:, :45] = Label.LEFT_HAND
    predicted[:, 45:] = TASK.classes.index("object")
    sheet = np.asarray(prediction_sheet([Example(image, label, predicted, "key")], TASK, "title", height=60))
    left, top = 8, 34
    panels = [sheet[top : top + 60, left + (90 + 3) * n : left + (90 + 3) * n + 90] for n in range(3)]
    np.testing.assert_array_equal(panels[0], image)

    def tint(color: tuple[int, int, int]) -> np.ndarray:
        return (0.5 * image[0, 0] + 0.5 * np.array(color)).astype(np.uint8)

    np.testing.assert_array_equal(panels[1][30, 10], tint(COLORS[Label.LEFT_HAND]))
    np.testing.assert_array_equal(panels[2][30, 80], tint(COLORS[Label.OBJECT]))
    assert (panels[1][30, 80] == 150).all() and (panels[2][30, 10] == 150).all()  # background: dimmed alone


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_class_has_its_own_colour(task: str) -> None:
    colors = class_colors(TASKS[task])
    assert len({tuple(color) for color in colors.tolist()}) == len(TASKS[task].classes)


def test_curves_run_where_their_points_are() -> None:
    """A rising line: the darkest columns of its colour move up from left to right."""
    chart = np.asarray(curves({"loss": [Curve("one", [(x, x**2) for x in range(20)])]}, "samples")).astype(int)
    line = np.abs(chart - [40, 90, 200]).sum(2) < 60
    line[330:] = False  # the legend
    columns = np.flatnonzero(line.any(0))
    heights = np.array([np.flatnonzero(line[:, column]).mean() for column in columns])
    assert columns[-1] - columns[0] > 350
    assert heights[0] - heights[-1] > 200
    assert (np.diff(heights) < 3).all()


def test_charts_without_points_or_with_one_are_drawn() -> None:
    picture = curves({"empty": [], "single": [Curve("one", [(5, 0.25)])], "flat": [Curve("f", [(0, 1), (9, 1)])]}, "x")
    assert picture.size == (3 * 560, 380)


def test_training_curves_read_the_log(tmp_path: Path) -> None:
    entries = [{"position": p, "kind": "train", "loss": 1 / p} for p in range(20, 200, 20)]
    entries.append({"position": 200, "kind": "val", "iou hand": 0.5, "iou object": None, "jaccard": 0.5})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"posi')
    assert training_curves(tmp_path).size == (1120, 380)


def test_a_picture_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    save_picture(Image.new("RGB", (4, 4)), tmp_path / "new" / "a.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_rows_to_look_at_are_spread(opened: Callable[..., ShardIndex]) -> None:
    index = opened(Spec("a", samples=12), Spec("b", samples=2), Spec("c", samples=12))
    rows = spread_rows(index, index.select(), 8)
    assert len(set(rows)) == 8
    counts = {name: sum(index.column("source")[row] == name for row in rows) for name in "abc"}
    assert counts == {"a": 3, "b": 2, "c": 3}
    groups = {index.column("group")[row] for row in rows if index.column("source")[row] == "a"}
    assert len(groups) >= 2
    assert spread_rows(index, index.select(source="b"), 8) == index.select(source="b").tolist()
