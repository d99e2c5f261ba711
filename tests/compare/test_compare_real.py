"""Hands with their arms, counted as a twin does; a goal needs more than the spread; the page and its pictures."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from drawn_shards import Spec, write

from compare import real
from compare.course import Course
from compare.figure import silhouettes
from compare.main import _conditions, main
from compare.real import MEASURES, TASK, compare_real, goals
from compare.rows import OURS_ANYWHERE, RATES, Run, Setting, fit_arguments
from compare.score import count
from hodata.labels import Label
from hodata.shards.reader import ShardIndex

SPECS = [Spec("skin", split, 6, hand=hand, item=Label.BACKGROUND) for split, hand in
         (("train", Label.HAND), ("val", Label.HAND), ("test", Label.ARM))]  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    return ShardIndex.open(f"{write(tmp_path_factory.mktemp('real'), SPECS)}/*.tar")


def test_arms_count_as_hands(index: ShardIndex) -> None:
    rows, rng = index.select(split="test"), np.random.default_rng(1)
    reader = index.reader()
    maps = {row: rng.integers(0, len(TASK.classes), reader.mask(row).shape).astype(np.uint8) for row in rows.tolist()}
    counts = count(index, rows, TASK, maps, "arm")
    place = real.Figures(TASK).counted.index(MEASURES["hand IoU"])
    for number, row in enumerate(rows.tolist()):
        truth, answer = reader.mask(row) > 0, maps[row] > 0
        assert counts[number, place].tolist()[:2] == [(truth & answer).sum(), (truth | answer).sum()]


@pytest.mark.parametrize(
    ("ours", "met"),
    [
        ((0.60, 0.61, 0.62), True),
        ((0.57, 0.58, 0.59), False),  # ahead by less than the reference's own spread
        ((0.50, 0.70, 0.60), False),  # itself too uncertain
        ((0.40, 0.41, 0.42), False),
    ],
)
def test_a_goal_needs_more_than_the_spread(ours: tuple[float, ...], met: bool) -> None:
    reference = dict.fromkeys(MEASURES, (0.5, 0.56, 0.53))
    assert [goal.met for goal in goals(reference, dict.fromkeys(MEASURES, ours))] == [met, met]


def test_one_seed_has_no_spread_to_be_ahead_of() -> None:
    assert not any(goal.met for goal in goals(dict.fromkeys(MEASURES, (0.2,)), dict.fromkeys(MEASURES, (0.9,))))


def test_rows_learn_hands_alone_and_weigh_no_source(tmp_path: Path) -> None:
    for recipe in (OURS_ANYWHERE, real.reference(RATES[0])):
        arguments = fit_arguments(Run(recipe, 0), "x/*.tar", tmp_path, 800, {"skin": 6}, "hand", extent="arm")
        assert dict(pairwise(arguments))["--extent"] == "arm"
        assert arguments[arguments.index("--task") + 1] == "hand"
        assert not [one for one in arguments if "egohos" in one]


def test_the_page_and_its_pictures(index: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = index.reader()

    def answers(index: ShardIndex, rows: np.ndarray, folder: Path, extent: str, device: str) -> dict[int, np.ndarray]:
        """Ours knows all but a column for each seed, the reference nothing."""
        truth = {row: (reader.mask(row) > 0).astype(np.uint8) for row in rows.tolist()}
        for mask in truth.values():
            seed = int(folder.name[-1])
            mask[:, : seed + 1 if folder.name.startswith(OURS_ANYWHERE.name) else None] = 0
        return truth

    monkeypatch.setattr(real, "answers_of_run", answers)
    monkeypatch.setattr(Course, "train_tuned", lambda course, first, seeds, task, say: dict.fromkeys(RATES, 0.5))
    verdict = compare_real(Course(index, "", tmp_path, 8, 1), 2, ["Tiny."], lambda text: None)
    assert [goal.met for goal in verdict] == [True, True]
    page, whole = (tmp_path / "report.md").read_text(), json.loads((tmp_path / "results.json").read_text())
    assert whole["best_rate"] == RATES[0] and "1e-4: 50.0" in page and "Tiny." in page and "skin/test-1" in page
    assert whole["rows"]["ours"]["hand IoU"][0] >= whole["rows"]["ours"]["hand IoU"][1] > 0.9
    assert whole["rows"][f"reference, lr tuned: {RATES[0]}"]["hand IoU"] == [0.0, 0.0]
    assert "Hands end at: skin arm." in page
    assert (tmp_path / "compare.png").stat().st_size > 1000 and (tmp_path / "answers.png").stat().st_size > 1000


def test_pictures_that_are_no_ground_truth_and_hands_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [*SPECS, Spec("unscored", "test", 2, "object-amodal", hand=Label.BACKGROUND, item=Label.OBJECT),
             Spec("bare", "test", 2, hand=Label.BACKGROUND, item=Label.BACKGROUND)]  # fmt: skip
    index = ShardIndex.open(f"{write(tmp_path / 'shards', specs)}/*.tar")
    reader, answered = index.reader(), []

    def answers(index: ShardIndex, rows: np.ndarray, folder: Path, extent: str, device: str) -> dict[int, np.ndarray]:
        answered.append(set(index.column("source")[rows].tolist()))
        return {row: np.zeros(reader.mask(row).shape, np.uint8) for row in rows.tolist()}

    monkeypatch.setattr(real, "answers_of_run", answers)
    monkeypatch.setattr(Course, "train_tuned", lambda course, first, seeds, task, say: dict.fromkeys(RATES, 0.5))
    said: list[str] = []
    compare_real(Course(index, "", tmp_path, 8, 1, extent="arm"), 2, ["Tiny."], said.append)
    assert answered == [{"skin", "bare"}] * 4
    assert "unscored: 2 test pictures have no ground truth to score against and are left out" in said
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text and json.loads(text)["by_group"]["ours"]["bare/test-0"]["hand IoU"] == [None, None]
    assert "n/a" in (tmp_path / "report.md").read_text()


def test_silhouettes_show_answers_side_by_side() -> None:
    left, none = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    left[:, :30] = 1
    picture = np.asarray(silhouettes({"one": [left, none], "two": [none, left]}, {"one": [1, 0], "two": [0, 1]}))
    half, wide = picture.shape[0] // 2, picture.shape[1] // 2
    light = [
        [picture[22 + half * y : 172 + half * y, 10 + wide * x : 100 + wide * x].mean() for x in (0, 1)] for y in (0, 1)
    ]
    assert light[0][0] > 200 > 70 > light[0][1] and light[1][1] > 200 > 70 > light[1][0]


def test_shards_without_a_split_are_refused_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "shards", SPECS[:1])
    assert main(["--real", f"{tmp_path}/shards/*.tar", "--out", str(tmp_path / "out")]) == 1
    assert "nothing in split val, test" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_the_page_of_two_stages_says_what_one_saw() -> None:
    course = Course(None, "", Path(), 4_000, 2)  # type: ignore[arg-type]
    assert _conditions(course, 3, "miniatures")[0].startswith("4,000 images of miniatures a run")


def test_real_and_miniatures_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--real", "x/*.tar", "--raw", "raw", "--shards", "y/*.tar"])
    assert "--real is in place of miniatures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stages", "--ours-alone"], "give one of them"),
        (["--real", "x/*.tar", "--device", "cuda"], "torch sees no CUDA GPU here"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(arguments)
    assert words in capsys.readouterr().err


def test_every_row_runs_the_model_that_was_asked_for(tmp_path: Path) -> None:
    setting = Setting("deeplabv3_resnet50", 256, "cuda", 2)
    for recipe in (OURS_ANYWHERE, real.reference(RATES[0])):
        arguments = fit_arguments(Run(recipe, 0), "x/*.tar", tmp_path, 800, {"skin": 6}, "hand", setting)
        given = dict(pairwise(arguments))
        assert (given["--model"], given["--crop"], given["--workers"]) == ("deeplabv3_resnet50", "256", "2")
        assert (given["--device"], given["--precision"]) == ("cuda:0", "bf16")
