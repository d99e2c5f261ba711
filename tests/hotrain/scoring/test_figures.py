"""The counts of one image: the metrics' own figures again, and the rest against loops over pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hodata.labels import LABELS, MEANINGS, TASKS, Task, task_table
from hotrain.scoring.boundary import NEVER, OPEN, SURELY, boundary_counts, boundary_radius
from hotrain.scoring.figures import FINGERTIPS, WITHOUT_WRIST, Figures
from hotrain.scoring.hand_regions import fingertip_discs, wrist_bands
from hotrain.scoring.metrics import confusion, score

LEGAL = np.array([int(label) for label in LABELS], dtype=np.uint8)
SHAPE = (24, 30)


def picture(rng: np.random.Generator, task: Task, meaning: str) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of labels and of answers, so that there are contours: sets and classes uint8 [H, W]."""
    labels = np.kron(rng.choice(LEGAL, (4, 5)), np.ones((6, 6), np.uint8))
    answers = np.kron(rng.integers(0, len(task.classes), (4, 5), dtype=np.uint8), np.ones((6, 6), np.uint8))
    return task_table(MEANINGS[meaning], task)[labels], answers


def of_image(task: Task, sets: np.ndarray, answers: np.ndarray, extent: str, hands: list[Any]) -> dict[str, Any]:
    found = Figures(task).of_image(sets, answers, confusion(sets, answers, len(task.classes)), extent, hands)
    assert found.dtype == np.int64
    return dict(zip(Figures(task).counted, found.tolist(), strict=True))


def is_hand(task: Task, extent: str, class_id: int) -> bool:
    return task.kind_of(class_id) == "hand" or (extent == "arm" and class_id in task.arm_to_hand)


HANDS = [
    {
        "keypoints_px": [[12.0 + n % 5, 9.0 + n // 3] for n in range(21)],
        "valid": [True] * 21,
        "in_front": [n != 8 for n in range(21)],
        "wrist_loop": [[6.0, 15.0], [12.0, 15.0], [12.0, 19.0], [6.0, 18.0]],
    }
]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    task_name=st.sampled_from(sorted(TASKS)),
    meaning=st.sampled_from(sorted(MEANINGS)),
    extent=st.sampled_from(["wrist", "arm"]),
)
def test_equals_the_metrics_and_the_slow_twin(seed: int, task_name: str, meaning: str, extent: str) -> None:
    task = TASKS[task_name]
    sets, answers = picture(np.random.default_rng(seed), task, meaning)
    found = of_image(task, sets, answers, extent, HANDS)
    figures = Figures(task)
    counts = np.array([found[name] for name in figures.counted])
    values = dict(zip(figures.names, figures.values(counts).tolist(), strict=True))
    expected = score(confusion(sets, answers, len(task.classes)), 1, task, extent)
    for name, value in (
        *((f"iou.{name}", value) for name, value in expected.iou.items()),
        *((f"kinds.{name}", value) for name, value in expected.kinds.items()),
        ("accuracy", expected.accuracy),
        ("jaccard", expected.jaccard),
    ):
        assert values[name] == pytest.approx(float("nan") if value is None else value, nan_ok=True)

    says, answered = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, bool)
    for y, x in np.ndindex(*SHAPE):
        may = {is_hand(task, extent, c) for c in range(len(task.classes)) if sets[y, x] >> c & 1}
        says[y, x] = OPEN if len(may) == 2 else SURELY if may == {True} else NEVER
        answered[y, x] = is_hand(task, extent, int(answers[y, x]))
    assert tuple(found["boundary_iou.hand"]) == boundary_counts(says, answered, boundary_radius(*SHAPE))

    discs, bands = fingertip_discs(HANDS, says == SURELY), wrist_bands(HANDS, SHAPE)
    assert discs is not None and bands is not None
    tips = [(bool(answered[p]), 1) for p in np.ndindex(*SHAPE) if discs[p] and says[p] == SURELY]
    assert found[FINGERTIPS] == [sum(hit for hit, _ in tips), len(tips), len(tips)]
    kept = [p for p in np.ndindex(*SHAPE) if not bands[p] and says[p] != OPEN]
    truth, hit = [p for p in kept if says[p] == SURELY], [p for p in kept if says[p] == SURELY and answered[p]]
    union = [p for p in kept if says[p] == SURELY or answered[p]]
    assert found[WITHOUT_WRIST] == [len(hit), len(union), len(truth)]


@pytest.mark.parametrize("extent", ["wrist", "arm"])
def test_a_model_that_sees_nothing_misses_every_contour(extent: str) -> None:
    task = TASKS["hand-object"]
    labels = np.zeros((60, 80), np.uint8)
    labels[20:40, 30:50] = 12 if extent == "arm" else 1
    labels[:8, :8] = 10
    sets = task_table(MEANINGS["exact"], task)[labels]
    found = of_image(task, sets, np.zeros_like(labels), extent, [])
    band = 20 * 20 - 16 * 16  # the radius is 2 pixels
    assert found["boundary_iou.hand"] == [0, band, band]
    assert found["boundary_iou.object"] == [0, 8 * 8 - 4 * 4, 8 * 8 - 4 * 4]  # the picture's edge is a contour


def test_without_hands_their_figures_are_absent() -> None:
    task = TASKS["hand-object"]
    sets, answers = picture(np.random.default_rng(0), task, "exact")
    for hands in ([], [{"keypoints_px": [], "wrist_loop": []}]):
        found = of_image(task, sets, answers, "wrist", hands)
        assert found[FINGERTIPS] == found[WITHOUT_WRIST] == [0, 0, 0]


def test_lost_fingertips_cost_recall_where_iou_hardly_falls() -> None:
    """What HOnnotate's readme warns of: a hand without its tips."""
    task = TASKS["hand"]
    labels, answers = np.zeros((200, 200), np.uint8), np.zeros((200, 200), np.uint8)
    labels[50:180, 50:150] = 9
    points = np.full((21, 2), 100.0)
    for number, tip in enumerate((4, 8, 12, 16, 20)):
        x = 60 + 20 * number
        labels[20:50, x - 5 : x + 5] = 9
        points[tip] = [x, 24]
    points[0] = [100, 175]
    hands = [{"keypoints_px": points.tolist(), "valid": [True] * 21, "in_front": [True] * 21}]
    answers[50:180, 50:150] = 1
    found = of_image(task, task_table(MEANINGS["exact"], task)[labels], answers, "wrist", hands)
    assert found["iou.hand"][0] / found["iou.hand"][1] > 0.89
    assert found[FINGERTIPS][0] == 0 and found[FINGERTIPS][2] > 5 * 10 * 10


def test_names_are_paths_and_every_kind_has_a_contour() -> None:
    assert Figures(TASKS["hand"]).names == (
        "iou.background",
        "iou.hand",
        "kinds.hand",
        "accuracy",
        "boundary_iou.hand",
        "fingertip_recall",
        "hand_iou_without_wrist",
        "jaccard",
    )
    regions = Figures(TASKS["egohos"]).regions
    assert set(regions) == {"left", "right", "object_left", "object_right", "object_both", "hand", "object"}
    assert regions["hand"] == {1, 2} and regions["object"] == {3, 4, 5}
