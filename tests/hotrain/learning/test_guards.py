"""What a selection may not be, each with its cure in words."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_shards import Spec

from hodata.errors import ShardError
from hodata.labels import TASKS, Label, Meaning, task_table
from hodata.shards.reader import ShardIndex
from hotrain.config import FitConfig
from hotrain.errors import SelectionError, TrainingError
from hotrain.learning import guards
from hotrain.learning.selection import select


def test_a_group_on_both_sides_of_a_split_is_named_with_both_builds(opened: Callable[..., ShardIndex]) -> None:
    clean = opened(Spec("v2", "train", group="ho3d/SM1"), Spec("v3", "test", group="ho3d/SM2"))
    guards.refuse_leaks(clean)


@pytest.mark.parametrize("split", ["val", "test"])
def test_leaks(opened: Callable[..., ShardIndex], split: str) -> None:
    index = opened(Spec("v2", "train", group="ho3d/SM1"), Spec("v3", split, group="ho3d/SM1"))
    with pytest.raises(SelectionError, match=f"'ho3d/SM1' is in train in 'v2' and in {split} in 'v3'"):
        guards.refuse_leaks(index)


def test_a_published_split_may_leak_into_itself_and_is_warned_of(opened: Callable[..., ShardIndex]) -> None:
    train = Spec("a", "train", group="a/1", policy="official")
    index = opened(train, Spec("a", "test", group="a/1", policy="official"))
    (warning,) = guards.refuse_leaks(index)
    assert "a has its published splits, and 1 of its recordings" in warning


def test_a_published_split_may_not_leak_into_another_build(opened: Callable[..., ShardIndex]) -> None:
    index = opened(Spec("a", "train", group="a/1", policy="official"), Spec("b", "test", group="a/1"))
    with pytest.raises(SelectionError, match="is in train in 'a' and in test in 'b'"):
        guards.refuse_leaks(index)


ANYTHING = Meaning("anything", "hand or not", {Label.BACKGROUND: frozenset({Label.BACKGROUND, Label.HAND})})


def free_classes(index: ShardIndex, rows: np.ndarray, task: str) -> set[str]:
    """Pixel by pixel: the classes that every pixel may be."""
    reader, classes = index.reader(), TASKS[task].classes
    free = set(classes)
    for row in rows.tolist():
        sets = task_table(index.meanings[index.column("meaning")[row]], TASKS[task])[reader.mask(row)]
        free &= {name for c, name in enumerate(classes) if (sets >> c & 1).all()}
    return free


CASES: list[tuple[str, Label, Label, Label, str]] = [
    (meaning, hand, item, ground, task)
    for (meaning, hand, item, ground), task in itertools.product(
        [
            ("exact", Label.HAND, Label.OBJECT, Label.BACKGROUND),
            ("anything", Label.HAND, Label.BACKGROUND, Label.BACKGROUND),
            ("hand-wrist", Label.BACKGROUND, Label.BACKGROUND, Label.BACKGROUND),
            ("hand-wrist", Label.BACKGROUND, Label.VOID, Label.BACKGROUND),
            ("egohos", Label.LEFT_HAND, Label.LEFT_HAND, Label.LEFT_HAND),
            ("exact", Label.VOID, Label.VOID, Label.VOID),
            ("exact", Label.HAND, Label.SECOND_LEFT, Label.OBJECT_LEFT),
        ],
        ["hand", "hand-object", "sides"],
    )
]


@pytest.mark.parametrize(("meaning", "hand", "item", "ground", "task"), CASES)
def test_a_class_that_could_answer_everything_is_refused(
    opened: Callable[..., ShardIndex], meaning: str, hand: Label, item: Label, ground: Label, task: str
) -> None:
    index = opened(
        Spec("a", samples=2, meaning=meaning, hand=hand, item=item, ground=ground),
        Spec("b", samples=2, meaning=meaning, hand=hand, item=item, ground=ground),
        meanings=[ANYTHING],
    )
    rows = index.select()
    free = free_classes(index, rows, task)
    if free:
        with pytest.raises(SelectionError) as caught:
            guards.refuse_free_answers(index, rows, TASKS[task])
        assert all(name in str(caught.value) for name in free)
    else:
        guards.refuse_free_answers(index, rows, TASKS[task])


def test_a_second_source_that_contradicts_cures_it(opened: Callable[..., ShardIndex]) -> None:
    only_hands = Spec("a", samples=2, hand=Label.HAND, item=Label.HAND, ground=Label.HAND)
    index = opened(only_hands, Spec("b", samples=1))
    with pytest.raises(SelectionError, match=r"may be hand \(meanings: exact\)"):
        guards.refuse_free_answers(index, index.select(source="a"), TASKS["hand"])
    guards.refuse_free_answers(index, index.select(), TASKS["hand"])


def test_untaught_classes_are_named(opened: Callable[..., ShardIndex]) -> None:
    index = opened(
        Spec("wrist", meaning="hand-wrist", item=Label.BACKGROUND),
        Spec("ego", meaning="egohos", hand=Label.LEFT_HAND, item=Label.OBJECT_BOTH),
        Spec("held", meaning="hand-object-wrist"),
    )
    wrist, ego = index.select(source="wrist"), index.select(source="ego")
    assert guards.missing_classes(index, wrist, TASKS["hand-object"]) == ["background", "object"]
    assert guards.missing_classes(index, ego, TASKS["hand-object"]) == []
    wrists = index.select(source="held")  # their background may be arm, which is background at extent wrist
    assert guards.missing_classes(index, wrists, TASKS["hand-object"]) == []
    assert guards.missing_classes(index, ego, TASKS["egohos"]) == ["right", "object_left", "object_right"]


def test_pixels_of_each_set_are_those_of_the_masks(mixed: ShardIndex) -> None:
    rows, task = mixed.select(split="val"), TASKS["sides"]
    expected = np.zeros(1 << len(task.classes), dtype=np.int64)
    for row in rows.tolist():
        table = task_table(mixed.meanings[mixed.column("meaning")[row]], task)
        expected += np.bincount(table[mixed.reader().mask(row)].ravel(), minlength=len(expected))
    np.testing.assert_array_equal(guards.set_pixels(mixed, rows, task), expected)


def test_illegal_ids_are_found_from_the_counts(opened: Callable[..., ShardIndex]) -> None:
    fine, bad = Spec("a", samples=2), Spec("b", samples=2, hand=77)  # type: ignore[arg-type]
    index = opened(fine, bad)
    guards.refuse_illegal_ids(index, index.select(source="a"))
    with pytest.raises(ShardError, match=r"b_train_0: \d+ of its pixels"):
        guards.refuse_illegal_ids(index, index.select())


@pytest.mark.parametrize(
    ("batch", "ranks", "accumulation", "words"),
    [
        (1, 1, 1, "--batch-size 2"),
        (4, 4, 1, "--batch-size 8"),
        (10, 4, 1, "--batch-size 8"),
        (12, 2, 4, "--batch-size 16"),
    ],
)
def test_batches_that_cannot_be_cut(batch: int, ranks: int, accumulation: int, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        guards.micro_batch(batch, ranks, accumulation)


def test_batches_that_can() -> None:
    assert guards.micro_batch(16, 2, 2) == 4


def test_selection_uses_the_recorded_splits(mixed: ShardIndex, tmp_path: Path) -> None:
    config = FitConfig((str(mixed.shards[0].parent),), str(tmp_path), val_limit=3)
    chosen = select(config, TASKS["hand"])
    assert {name: len(rows) for name, rows in chosen.rows.items()} == {"ego": 11, "wrist": 7}
    assert set(mixed.column("split")[chosen.val_rows]) == {"val"} and len(chosen.val_rows) == 3
    assert chosen.data_hash == mixed.data_hash(mixed.select(split="train"))
    text = "\n".join(chosen.notes)
    assert "ego: 11 training samples" in text and "extent arm" in text and "wrist: 7" in text


def test_shards_without_training_samples(shards: Callable[..., Path]) -> None:
    folder = shards(Spec("a", "test"))
    with pytest.raises(SelectionError, match="none of them in the split train"):
        select(FitConfig((str(folder),), "x"), TASKS["hand"])


@pytest.mark.parametrize(
    ("hand", "meanings", "idle"),
    [
        (Label.HAND, ["hand-arm"], True),  # every hand may be arm: nothing tells them apart
        (Label.HAND, ["hand-arm", "hand-arm"], True),
        (Label.HAND, ["hand-wrist"], False),
        (Label.LEFT_HAND, ["egohos", "hand-wrist"], False),  # the second says where hands end
        (Label.HAND, ["exact"], False),  # no arm anywhere: nothing to take out
    ],
)
def test_arms_that_nothing_tells_from_hands_are_idle(
    opened: Callable[..., ShardIndex], hand: Label, meanings: list[str], idle: bool
) -> None:
    index = opened(*(Spec(f"b{n}", meaning=meaning, hand=hand, group=f"g{n}") for n, meaning in enumerate(meanings)))
    task = TASKS["hand"]
    pixels = guards.set_pixels(index, np.arange(len(index)), task)
    arms = guards.idle_arms(pixels, task)
    assert bool(arms) == idle
    kept = guards.without_classes(arms, len(task.classes))
    for members in range(1 << len(task.classes)):
        left = {c for c in range(len(task.classes)) if members >> c & 1} - set(arms)
        assert kept[members] == (members if members == len(kept) - 1 else sum(1 << c for c in left))
    # No pixel loses its last class, and the free answer is gone.
    assert all(kept[members] for members in np.flatnonzero(pixels))
