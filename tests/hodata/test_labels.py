"""Meanings, tasks and the table that both make."""

from __future__ import annotations

import numpy as np
import pytest

from hodata.labels import (
    EXTENTS,
    LABELS,
    MEANINGS,
    MIRROR,
    TASKS,
    Label,
    Meaning,
    Task,
    fold_sets,
    label_from_name,
    mirror_table,
    parse_sets,
    scored_extent,
    task_table,
)

# What each meaning says of a stored label (shards/README.md says it in words); one that is not listed means itself.
SAID = {
    "exact": {},
    "egohos": {"left_hand": "left_hand left_arm", "right_hand": "right_hand right_arm"},
    "hand-wrist": {"background": "background arm object"},
    "hand-rendered": {
        "background": "background arm object",
        "hand": "hand arm object",
        "left_hand": "left_hand left_arm object",
        "right_hand": "right_hand right_arm object",
    },
    "hand-arm": {
        "background": "background object",
        "hand": "hand arm",
        "left_hand": "left_hand left_arm",
        "right_hand": "right_hand right_arm",
    },
    "hand-object-wrist": {"background": "background arm"},
    "object-amodal": {
        "background": "background arm hand",
        "object_left": "object hand",
        "object_right": "object hand",
    },
    "hand-object-arm": {
        "hand": "hand arm",
        "left_hand": "left_hand left_arm",
        "right_hand": "right_hand right_arm",
    },
}
NEVER_SCORED = {"hand-rendered", "object-amodal"}


def classes_of(mask: int, task: Task) -> set[str]:
    return {name for bit, name in enumerate(task.classes) if mask >> bit & 1}


def test_ids_are_egohos_own_and_the_format_s() -> None:
    assert [int(label) for label in LABELS] == [*range(14), 255]
    assert label_from_name("Left Hand") is Label.LEFT_HAND
    with pytest.raises(ValueError, match="known labels: background, left_hand"):
        label_from_name("thumb")


@pytest.mark.parametrize("name", SAID)
def test_meanings_say_what_the_datasets_drew(name: str) -> None:
    found = {label.label_name: {each.label_name for each in MEANINGS[name].labels_of(label)} for label in LABELS}
    assert found == {stored: set(SAID[name].get(stored, stored).split()) for stored in found}
    assert MEANINGS[name].scored == (name not in NEVER_SCORED)
    assert MEANINGS.keys() == SAID.keys()


@pytest.mark.parametrize(
    ("meaning", "task", "stored", "classes"),
    [
        ("hand-wrist", "hand-object", Label.BACKGROUND, {"background", "arm", "object"}),
        ("hand-wrist", "hand", Label.BACKGROUND, {"background", "arm"}),
        ("hand-wrist", "hand-object", Label.RIGHT_HAND, {"hand"}),
        ("egohos", "hand-object", Label.LEFT_HAND, {"hand", "arm"}),
        ("egohos", "hand-object", Label.BACKGROUND, {"background"}),
        ("egohos", "hand-object", Label.SECOND_LEFT, {"background", "hand", "object", "arm"}),
        ("egohos", "egohos", Label.SECOND_LEFT, {"background"}),
        ("egohos", "sides", Label.LEFT_HAND, {"left", "left_arm"}),
        ("exact", "sides", Label.HAND, {"left", "right"}),
        ("exact", "egohos", Label.OBJECT, {"object_left", "object_right", "object_both"}),
        ("exact", "hand", Label.OBJECT_BOTH, {"background"}),
        ("exact", "sides", Label.VOID, {"background", "left", "right", "object", "left_arm", "right_arm"}),
    ],
)
def test_table_says_what_a_pixel_may_be(meaning: str, task: str, stored: Label, classes: set[str]) -> None:
    table = task_table(MEANINGS[meaning], TASKS[task])
    assert classes_of(int(table[stored]), TASKS[task]) == classes


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
@pytest.mark.parametrize("meaning", MEANINGS.values(), ids=lambda m: m.name)
def test_table_is_the_union_over_allowed_labels(meaning: Meaning, task: Task) -> None:
    """A slow twin: collect classes label by label; ids that are no labels get the empty set."""
    table = task_table(meaning, task)
    for stored in range(256):
        expected = 0
        if stored in set(map(int, LABELS)):
            for label in meaning.labels_of(Label(stored)):
                expected |= sum(1 << c for c in task.sets[label])
        assert table[stored] == expected


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
@pytest.mark.parametrize("extent", EXTENTS)
def test_folding_sets_folds_each_member(task: Task, extent: str) -> None:
    fold = task.fold(extent)
    folded = fold_sets(fold)
    for mask in range(1 << len(task.classes)):
        members = {int(fold[c]) for c in range(len(task.classes)) if mask >> c & 1}
        assert folded[mask] == sum(1 << c for c in members)
    assert fold.max() < task.public


@pytest.mark.parametrize(
    ("meaning", "extent"),
    [("hand-wrist", "wrist"), ("egohos", "arm"), ("exact", "wrist"), ("hand-arm", "arm")],
)
def test_sources_are_scored_at_the_extent_that_their_masks_decide(meaning: str, extent: str) -> None:
    assert scored_extent(MEANINGS[meaning], TASKS["hand"], "wrist") == extent


def test_exact_masks_are_scored_at_any_extent() -> None:
    for extent in EXTENTS:
        assert scored_extent(MEANINGS["exact"], TASKS["sides"], extent) == extent


def test_mirroring_twice_is_nothing_and_swaps_sides() -> None:
    table = mirror_table()
    np.testing.assert_array_equal(table[table], np.arange(256))
    assert table[Label.LEFT_HAND] == Label.RIGHT_HAND
    assert table[Label.OBJECT_BOTH] == Label.OBJECT_BOTH


@pytest.mark.parametrize("meaning", MEANINGS.values(), ids=lambda meaning: meaning.name)
def test_meanings_say_the_same_of_a_mirrored_picture(meaning: Meaning) -> None:
    for stored in LABELS:
        for true in LABELS:
            mirrored = MIRROR.get(stored, stored), MIRROR.get(true, true)
            assert meaning.allows(stored, true) == meaning.allows(*mirrored), (stored, true)


def test_what_is_said_of_one_side_holds_for_the_other() -> None:
    meaning = Meaning("own", "right hands only", {Label.RIGHT_HAND: frozenset({Label.RIGHT_HAND, Label.RIGHT_ARM})})
    assert meaning.labels_of(Label.LEFT_HAND) == {Label.LEFT_HAND, Label.LEFT_ARM}
    assert meaning.labels_of(Label.RIGHT_HAND) == {Label.RIGHT_HAND, Label.RIGHT_ARM}
    assert meaning.labels_of(Label.OBJECT_LEFT) == {Label.OBJECT_LEFT}
    assert Meaning.from_json(meaning.to_json()) == meaning


def test_sideless_labels_cover_sided_ones_in_a_meaning() -> None:
    wrist = MEANINGS["hand-wrist"]
    assert wrist.allows(Label.BACKGROUND, Label.RIGHT_ARM)
    assert wrist.allows(Label.BACKGROUND, Label.OBJECT_LEFT)
    assert not wrist.allows(Label.BACKGROUND, Label.RIGHT_HAND)
    assert not wrist.allows(Label.RIGHT_HAND, Label.RIGHT_ARM)
    assert MEANINGS["egohos"].allows(Label.RIGHT_HAND, Label.RIGHT_ARM)


def test_meaning_survives_json_and_bad_json_is_refused() -> None:
    for meaning in MEANINGS.values():
        assert Meaning.from_json(meaning.to_json()) == meaning
    with pytest.raises(ValueError, match="unknown label"):
        parse_sets({"background": ["sky"]})
    with pytest.raises(ValueError, match="empty"):
        parse_sets({"background": []})


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_class_stands_for_a_label_that_is_this_class_alone(task: Task) -> None:
    assert [task.sets[label] for label in task.labels] == [{number} for number in range(len(task.classes))]
    kinds = [
        next(kind for kind in ("arm", "object", "background", "hand") if kind in f"{name} hand")
        for name in task.classes
    ]
    assert [task.kind_of(number) for number in range(len(task.classes))] == kinds
    mirror = task.mirrored()
    assert [task.labels[number] for number in mirror] == [MIRROR.get(label, label) for label in task.labels]
    assert [mirror[number] for number in mirror] == list(range(len(task.classes)))
