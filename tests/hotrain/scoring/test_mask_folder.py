"""Masks of any model: matched by name, read by a legend, and refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_shards import Spec
from PIL import Image

from hodata.labels import MEANINGS, TASKS, Label, task_table
from hodata.shards.reader import ShardIndex
from hotrain.errors import PredictionError
from hotrain.evaluate import RowPredictor, evaluate
from hotrain.scoring.mask_folder import match, open_masks, value_table
from hotrain.scoring.metrics import confusion, score

TASK = TASKS["hand-object"]


@pytest.fixture
def index(opened: Callable[..., ShardIndex]) -> ShardIndex:
    return opened(Spec("one", "test", 4, hand=Label.LEFT_HAND, kind="png"))


def write_truth(folder: Path, index: ShardIndex, named: str = "{key}.png") -> Path:
    """The stored label maps as predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, key in enumerate(index.column("key")):
        path = folder / named.format(key=key, row=row)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(index.reader().mask(row)).save(path)
    return folder


def test_scores_equal_a_plain_loop_over_the_files(index: ShardIndex, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    total = np.zeros((16, 4), np.int64)
    for row, key in enumerate(index.column("key")):
        answer = rng.integers(0, 4, (48, 64), dtype=np.uint8)
        Image.fromarray(answer).save(tmp_path / f"{key}.png")
        sets = task_table(MEANINGS["exact"], TASK)[index.reader().mask(row)]
        total += confusion(sets, answer, 4)
    masks, matched, extent = open_masks(tmp_path, index, index.select(), TASK, "classes")
    assert isinstance(masks, RowPredictor) and (matched.missing, matched.extra, extent) == ([], [], "")
    found = evaluate(index, index.select(), TASK, masks, batch_size=3)
    assert found.by_source["one"] == score(total, 4, TASK, "wrist")


def test_the_truth_itself_scores_one_by_label_ids(index: ShardIndex, tmp_path: Path) -> None:
    masks, _, _ = open_masks(write_truth(tmp_path, index), index, index.select(), TASK, "labels")
    found = evaluate(index, index.select(), TASK, masks, details=True)
    assert found.pooled.iou == {"background": 1.0, "hand": 1.0, "object": 1.0}
    assert found.details is not None
    values = found.details.figures.values(found.details.values.sum(0))
    names = found.details.figures.names
    assert values[names.index("boundary_iou.hand")] == 1.0 and np.isnan(values[names.index("fingertip_recall")])


@pytest.mark.parametrize(
    "named", ["{key}.png", "{key}.mask.png", "deep/er/{key}.png", "deep/{row}/{key}.mask.png", "{key}.PNG"]
)
def test_files_are_found_by_key_in_any_subfolder(index: ShardIndex, tmp_path: Path, named: str) -> None:
    found = match(write_truth(tmp_path, index, named), index, index.select())
    assert len(found.files) == 4 and not found.missing and not found.extra
    assert [found.files[row].name.split(".")[0] for row in range(4)] == index.column("key").tolist()


def test_a_key_in_two_subfolders_is_not_taken(index: ShardIndex, tmp_path: Path) -> None:
    """Nothing says which of them is meant; one without a subfolder goes before both."""
    write_truth(tmp_path, index, "one/{key}.png")
    keys = index.column("key").tolist()
    for name in keys[:2]:
        (tmp_path / "two" / f"{name}.png").parent.mkdir(exist_ok=True)
        (tmp_path / "two" / f"{name}.png").touch()
    (tmp_path / f"{keys[1]}.png").touch()
    found = match(tmp_path, index, index.select())
    assert found.missing == keys[:1] and found.files[1] == tmp_path / f"{keys[1]}.png"


class Named:
    """An index whose samples have these original files."""

    def __init__(self, files: list[str]) -> None:
        self._files = files

    def column(self, name: str) -> np.ndarray:
        return np.array([f"k{n}" for n in range(len(self._files))], dtype=object)

    def reader(self) -> Named:
        return self

    def json(self, row: int) -> dict[str, str]:
        return {"original_file": self._files[row]}


def test_ends_of_original_paths_count_where_one_sample_has_them(tmp_path: Path) -> None:
    index = Named(["a/x/1.jpg", "a/y/1.jpg", "b/2.jpg", "b/3.jpg", "c/4.png"])
    for name in ("x/1", "1", "2", "b/3", "k4", "c/4", "other"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = match(tmp_path, index, np.arange(5))  # type: ignore[arg-type]
    assert {row: path.relative_to(tmp_path).as_posix() for row, path in found.files.items()} == {
        0: "x/1.png",
        2: "2.png",
        3: "b/3.png",
        4: "k4.png",  # the key goes before the original name
    }
    assert found.missing == ["k1"]  # `1.png` fits two samples
    assert sorted(path.relative_to(tmp_path).as_posix() for path in found.extra) == ["1.png", "c/4.png", "other.png"]


def test_legends(tmp_path: Path) -> None:
    legend = tmp_path / "legend.json"
    legend.write_text('{"0": "background", "7": "hand", "9": "right_arm", "255": "void"}')
    table, extent = value_table(tmp_path, TASK, None)
    assert [int(table[v]) for v in (0, 7, 9, 255, 1)] == [0, 1, 3, 0, 255] and extent == ""
    written = {"extent": "arm", "labels": [{"id": 9, "name": "hand", "color": [1, 2, 3]}]}
    legend.write_text(json.dumps(written))
    table, extent = value_table(tmp_path, TASK, str(legend))
    assert table[9] == 1 and extent == "arm"
    labels, _ = value_table(tmp_path, TASKS["sides"], "labels")
    assert labels[Label.LEFT_HAND] == 1 and labels[Label.HAND] == 255
    classes, _ = value_table(tmp_path, TASK, "classes")
    assert classes[:5].tolist() == [0, 1, 2, 3, 255]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"1": "paw"}', "'paw' is neither a class"),
        ('{"1": "second_left"}', "may be several classes"),
        ('{"300": "hand"}', "0 to 255"),
        ('{"x": "hand"}', "is no legend"),
        ("[1]", "is no legend"),
        ("{", "is no legend"),
        ("{}", "is no legend"),
        ('{"labels": [{"id": 1}]}', "is no legend"),
    ],
)
def test_bad_legends_say_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "legend.json").write_text(text)
    with pytest.raises(PredictionError, match=words):
        value_table(tmp_path, TASK, None)


def test_nothing_is_guessed(index: ShardIndex, tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"--ids classes \(0 background, 1 hand, 2 object, 3 arm\)"):
        open_masks(write_truth(tmp_path, index), index, index.select(), TASK, None)
    with pytest.raises(PredictionError, match="no such folder"):
        open_masks(tmp_path / "nowhere", index, index.select(), TASK, "classes")


def test_missing_masks_stop_it_unless_allowed(index: ShardIndex, tmp_path: Path) -> None:
    keys = index.column("key").tolist()
    (write_truth(tmp_path, index) / f"{keys[2]}.png").rename(tmp_path / "stray.png")
    with pytest.raises(PredictionError, match=f"1 of 4 samples .{keys[2]}.; 1 of its PNGs .*stray.*--allow-missing"):
        open_masks(tmp_path, index, index.select(), TASK, "labels")
    _, matched, _ = open_masks(tmp_path, index, index.select(), TASK, "labels", allow_missing=True)
    assert matched.missing == [keys[2]] and len(matched.files) == 3
    with pytest.raises(PredictionError, match="no mask for 4 of 4"):
        open_masks(tmp_path / "..", Named(["q.png"] * 4), np.arange(4), TASK, "labels", True)  # type: ignore[arg-type]


def test_masks_of_another_size_are_counted_and_named(index: ShardIndex, tmp_path: Path) -> None:
    keys = index.column("key").tolist()
    write_truth(tmp_path, index)
    for key in keys[:2]:
        Image.new("L", (32, 24)).save(tmp_path / f"{key}.png")
    with pytest.raises(PredictionError, match=f"2 masks have another size.*{keys[0]}.png is 32x24, its image 64x48"):
        open_masks(tmp_path, index, index.select(), TASK, "labels")


def test_pictures_that_are_no_masks_are_refused(index: ShardIndex, tmp_path: Path) -> None:
    key = index.column("key")[0]
    masks, _, _ = open_masks(write_truth(tmp_path, index), index, index.select(), TASK, "classes")
    path = tmp_path / f"{key}.png"
    for picture, words in (
        (Image.new("RGB", (64, 48)), "has colours"),
        (Image.new("I;16", (64, 48)), "16 bits"),
        (Image.new("L", (60, 48)), "is .60, 48., its image"),
        (Image.new("L", (64, 48), 77), "value 77"),
    ):
        picture.save(path)
        with pytest.raises(PredictionError, match=words):
            masks.answer(0)
    path.write_bytes(b"no picture")
    with pytest.raises(PredictionError, match="cannot be read as PNG"):
        masks.answer(0)
    with pytest.raises(PredictionError, match="cannot be read as PNG"):
        open_masks(tmp_path, index, index.select(), TASK, "classes")


def test_palette_and_one_bit_masks_keep_their_values(index: ShardIndex, tmp_path: Path) -> None:
    masks, _, _ = open_masks(write_truth(tmp_path, index), index, index.select(), TASK, "classes")
    path = tmp_path / f"{index.column('key')[0]}.png"
    values = np.zeros((48, 64), np.uint8)
    values[10:20] = 2
    palette = Image.fromarray(values).convert("P")
    palette.putdata(values.ravel().tolist())
    palette.putpalette([200, 100, 50] * 256)
    palette.save(path)
    np.testing.assert_array_equal(masks.answer(0), values)
    Image.fromarray(values > 0).save(path)
    np.testing.assert_array_equal(masks.answer(0), (values > 0).astype(np.uint8))
