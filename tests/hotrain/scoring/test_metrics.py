"""Scores against an independent twin that loops over pixels and sets of classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hodata.labels import LABELS, MEANINGS, TASKS, Label, Task, task_table
from hotrain.scoring.metrics import confusion, report, score, source_extent

LEGAL = np.array([int(label) for label in LABELS], dtype=np.uint8)


def slow_scores(pixels: list[tuple[frozenset[int], int]], task: Task, extent: str) -> dict[str, object]:
    """From pixels as (classes that it may be, answer): the definitions, with Python sets."""

    def fold(c: int) -> int:
        if c in task.arm_to_hand:
            return task.arm_to_hand[c] if extent == "arm" else 0
        return c

    def iou(pairs: list[tuple[frozenset[int], int]], c: int) -> float | None:
        decides = [(may, answer) for may, answer in pairs if may == {c} or c not in may]
        truth = [may == {c} for may, _ in decides]
        if not any(truth):
            return None
        both = sum(t and answer == c for t, (_, answer) in zip(truth, decides, strict=True))
        either = sum(t or answer == c for t, (_, answer) in zip(truth, decides, strict=True))
        return both / either

    public = [(frozenset(map(fold, may)), fold(answer)) for may, answer in pixels]
    kind = {c: ["background", "hand", "object"].index(task.kind_of(c)) for c in range(task.public)}
    kinds = [(frozenset(kind[c] for c in may), kind[answer]) for may, answer in public]
    singles = [(may, answer) for may, answer in public if len(may) == 1]
    hand = iou(kinds, 1)
    thing = iou(kinds, 2) if 2 in kind.values() else None
    present = [value for value in (hand, thing) if value is not None]
    return {
        "iou": {name: iou(public, c) for c, name in enumerate(task.public_classes)},
        "jaccard": sum(present) / len(present) if present else None,
        "accuracy": sum({a} == m for m, a in singles) / len(singles) if singles else None,
    }


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    task_name=st.sampled_from(sorted(TASKS)),
    meaning=st.sampled_from(sorted(MEANINGS)),
    extent=st.sampled_from(["wrist", "arm"]),
    few=st.booleans(),
)
def test_equals_the_slow_twin(seed: int, task_name: str, meaning: str, extent: str, few: bool) -> None:
    rng = np.random.default_rng(seed)
    task = TASKS[task_name]
    labels = rng.choice(LEGAL[: 3 if few else None], 90)
    answers = rng.integers(0, len(task.classes), 90).astype(np.uint8)
    sets = task_table(MEANINGS[meaning], task)[labels]
    found = score(confusion(sets, answers, len(task.classes)), 1, task, extent)

    may = [frozenset(c for c in range(len(task.classes)) if s >> c & 1) for s in sets.tolist()]
    expected = slow_scores(list(zip(may, answers.tolist(), strict=True)), task, extent)
    assert found.iou == pytest.approx(expected["iou"])
    assert found.jaccard == pytest.approx(expected["jaccard"])
    assert found.accuracy == pytest.approx(expected["accuracy"])


def test_confusion_counts_every_pixel_once() -> None:
    rng = np.random.default_rng(0)
    sets, answers = rng.integers(1, 16, 500).astype(np.uint8), rng.integers(0, 4, 500).astype(np.uint8)
    matrix = confusion(sets, answers, 4)
    assert matrix.shape == (16, 4) and matrix.dtype == np.int64
    expected = np.zeros((16, 4), int)
    for s, a in zip(sets, answers, strict=True):
        expected[s, a] += 1
    np.testing.assert_array_equal(matrix, expected)


def test_a_right_answer_scores_one_and_a_missing_class_none() -> None:
    task = TASKS["hand-object"]
    labels = np.array([0, 0, 1, 2, 9, 255], dtype=np.uint8)
    answers = np.array([0, 0, 1, 1, 1, 2], dtype=np.uint8)  # the void pixel's answer is nobody's business
    found = score(confusion(task_table(MEANINGS["exact"], task)[labels], answers, 4), 1, task, "wrist")
    assert found.iou == {"background": 1.0, "hand": 1.0, "object": None}
    assert found.jaccard == 1.0 and found.accuracy == 1.0


def test_sides_count_as_one_hand_for_jaccard() -> None:
    """Every hand found on the wrong side: IoU 0 for each side, 1 for the hand."""
    task = TASKS["sides"]
    labels = np.array([1, 1, 2, 0, 3], dtype=np.uint8)
    answers = np.array([2, 2, 1, 0, 3], dtype=np.uint8)
    found = score(confusion(task_table(MEANINGS["exact"], task)[labels], answers, 6), 1, task, "wrist")
    assert found.iou["left"] == found.iou["right"] == 0.0
    assert found.kinds == {"hand": 1.0, "object": 1.0} and found.jaccard == 1.0


def test_arm_is_hand_or_background_as_the_extent_says() -> None:
    task = TASKS["hand"]
    labels = np.array([Label.HAND, Label.ARM, Label.ARM, Label.BACKGROUND], dtype=np.uint8)
    answers = np.array([1, 2, 1, 0], dtype=np.uint8)
    matrix = confusion(task_table(MEANINGS["exact"], task)[labels], answers, 3)
    assert score(matrix, 1, task, "wrist").iou["hand"] == 0.5
    assert score(matrix, 1, task, "arm").iou["hand"] == 1.0


def test_sources_pool_at_their_own_extents_and_macro_is_their_mean() -> None:
    task = TASKS["hand"]
    ego = confusion(task_table(MEANINGS["egohos"], task)[np.array([1, 1, 1, 0])], np.array([1, 2, 0, 0], np.uint8), 3)
    free = confusion(task_table(MEANINGS["hand-wrist"], task)[np.array([9, 0])], np.array([1, 2], np.uint8), 3)
    extents = {"ego": source_extent([MEANINGS["egohos"]], task, "wrist"), "free": "wrist"}
    assert extents["ego"] == "arm"
    found = report({"ego": ego, "free": free}, {"ego": 2, "free": 3}, task, extents)
    assert found.by_source["ego"].iou["hand"] == pytest.approx(2 / 3)
    assert found.by_source["free"].iou["hand"] == 1.0
    assert found.iou_macro["hand"] == pytest.approx(5 / 6)
    assert found.pooled.iou["hand"] == pytest.approx(3 / 4)
    assert (found.pooled.extent, found.pooled.samples) == ("mixed", 5)


def test_a_source_with_two_meanings_is_scored_where_one_of_them_decides() -> None:
    task = TASKS["hand"]
    assert source_extent([MEANINGS["egohos"], MEANINGS["exact"]], task, "wrist") == "wrist"
    assert source_extent([MEANINGS["hand-wrist"]], task, "arm") == "wrist"
