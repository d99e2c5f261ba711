"""Two stages with and without objects: what is trained from what, hands counted as a twin does, goals, the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn_shards import Spec, write

from compare import stages
from compare.course import Course
from compare.paired import Estimate
from compare.rows import Run
from compare.stages import HANDS, MEASURES, OBJECTS, STAGE_1, compare_stages, goals, stage
from hodata.labels import HANDS as HAND_LABELS
from hodata.shards.reader import ShardIndex


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    specs = [Spec("disc", "train", 3), Spec("disc", "test", 36)]
    return ShardIndex.open(f"{write(tmp_path_factory.mktemp('stages'), specs)}/*.tar")


def test_both_go_on_from_stage_1_of_their_seed(index: ShardIndex, tmp_path: Path) -> None:
    course = Course(index, "x/*.tar", tmp_path, 100, 2)
    first = stage(STAGE_1, course, 1)
    hands, objects = stage(HANDS, course, 1), stage(OBJECTS, course, 1)
    assert "--init" not in first.options and len({first.name, hands.name, objects.name}) == 3
    assert hands.options == objects.options == (*first.options, "--init", str(course.folder(Run(first, 1))))
    assert hands.config == objects.config == first.config


@pytest.mark.parametrize(
    ("below_first", "below_hands", "interval", "missed"),
    [
        (0.1, 0.02, (0.01, 0.03), 0),
        (0.1, -0.02, (-0.05, 0.01), 0),  # lower, and not surely
        (0.1, -0.02, (-0.03, -0.01), 3),
        (-0.01, 0.02, (0.01, 0.03), 3),
    ],
)
def test_goals(below_first: float, below_hands: float, interval: tuple[float, float], missed: int) -> None:
    first = {name: Estimate(below_first, (below_first - 0.2, below_first + 0.2), ()) for name in MEASURES}
    hands = {name: Estimate(below_hands, interval, ()) for name in MEASURES}
    assert [goal.met for goal in goals({STAGE_1: first, HANDS: hands})].count(False) == missed


def test_hands_are_counted_alike_whatever_else_was_learnt(
    index: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, trained = index.reader(), []
    rng = np.random.default_rng(4)
    wrong = {row: rng.random(reader.mask(row).shape) < 0.1 for row in index.select(split="test").tolist()}

    def answers_of_run(
        index: ShardIndex, rows: np.ndarray, folder: Path, extent: str, device: str
    ) -> dict[int, np.ndarray]:
        """The truth but for flipped pixels; who knows objects flips none, and sees one wherever there is no hand."""
        answers = {}
        for row in rows.tolist():
            hand = np.isin(reader.mask(row), list(HAND_LABELS))
            if not folder.name.startswith("objects"):
                answers[row] = (hand ^ wrong[row]).astype(np.uint8)
            else:
                answers[row] = np.where(hand, 1, 2).astype(np.uint8)
        return answers

    def train(course: Course, runs: Sequence[Run], task: str, say: Callable[[str], None]) -> None:
        trained.append((task, len(runs)))

    monkeypatch.setattr(Course, "train", train)
    monkeypatch.setattr(stages, "answers_of_run", answers_of_run)
    verdict = compare_stages(Course(index, "", tmp_path, 8, 1), 2, ["Tiny."], lambda text: None)
    assert trained == [("hand", 2), ("hand", 2), ("hand-object", 2)]
    hands = {row: np.isin(reader.mask(row), list(HAND_LABELS)) for row in wrong}
    both = sum((hand & ~wrong[row]).sum() for row, hand in hands.items())
    either = sum((hand | wrong[row]).sum() for row, hand in hands.items())
    whole = json.loads((tmp_path / "stages.json").read_text())
    assert whole["rows"][HANDS]["hand IoU"]["value"] == pytest.approx(both / either)
    assert whole["rows"][OBJECTS]["hand IoU"]["value"] == 1
    ahead = whole["differences"][f"{OBJECTS} - {HANDS}"]["hand IoU"]
    assert ahead["value"] == pytest.approx(1 - both / either) and ahead["interval"][0] > 0
    assert "fingertip recall" in (tmp_path / "stages.md").read_text()
    assert all(goal.met for goal in verdict if "fingertip" not in goal.what)
