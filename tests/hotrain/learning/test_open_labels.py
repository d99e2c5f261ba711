"""What training takes open pixels for, against twins written label by label, and the guards that must see the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_shards import Spec, write
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hodata.labels import ARMS, HANDS, LABELS, MEANINGS, OBJECTS, TASKS, Label, Task, task_table
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.config import FitConfig
from hotrain.errors import SelectionError
from hotrain.fit import fit
from hotrain.learning import guards
from hotrain.learning.loss import class_sets, set_loss, set_weights
from hotrain.learning.open_labels import as_drawn, ignored, training_tables
from hotrain.learning.selection import select

HAND_OBJECT = TASKS["hand-object"]
VOID = 0b1111


def stacked(task: Task) -> np.ndarray:
    return np.stack([task_table(MEANINGS[name], task) for name in sorted(MEANINGS)])


def members(bits: int, task: Task) -> set[int]:
    return {c for c in range(len(task.classes)) if bits >> c & 1}


def test_as_drawn_is_the_reference_project_s_three_classes() -> None:
    expected = dict.fromkeys(LABELS, VOID)  # second-order objects are void in this task
    expected |= {Label.BACKGROUND: 0b001} | dict.fromkeys(HANDS | ARMS, 0b010) | dict.fromkeys(OBJECTS, 0b100)
    tables = as_drawn(stacked(HAND_OBJECT), HAND_OBJECT)
    assert tables.shape == (len(MEANINGS), 256) and tables.dtype == np.uint8
    for table in tables:
        assert {label: int(table[label]) for label in LABELS} == expected
    assert not tables[:, ~np.isin(np.arange(256), LABELS)].any()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_ignored_is_void_where_a_public_class_is_open_and_nothing_else_changes(task: Task) -> None:
    void = (1 << len(task.classes)) - 1
    tables = stacked(task)
    found = ignored(tables, task)
    for before, after in zip(tables.ravel().tolist(), found.ravel().tolist(), strict=True):
        public = {0 if c in task.arm_to_hand else c for c in members(before, task)}
        assert after == (void if len(public) > 1 else before)
    np.testing.assert_array_equal(ignored(found, task), found)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_as_drawn_leaves_no_arms_and_depends_on_no_meaning(task: Task) -> None:
    void = (1 << len(task.classes)) - 1
    tables = as_drawn(stacked(task), task)
    assert (tables == tables[0]).all()
    arms = sum(1 << arm for arm in task.arm_to_hand)
    assert not (tables[tables != void] & arms).any()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_loss_as_drawn_is_mean_cross_entropy(seed: int) -> None:
    """Balance 0, prior 0: what the reference project minimised, on any meaning; class arm is an idle fourth logit."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([0, 1, 2, 3, 5, 9, 10, 12, 255], dtype=torch.uint8)
    classes = torch.tensor([0, 1, 1, 2, 2, 1, 2, 1, -100])
    chosen = torch.randint(0, len(ids), (2, 4, 5), generator=generator)
    chosen[0, 0, 0] = 0  # at least one pixel is decided
    logits = torch.randn(2, 4, 4, 5, generator=generator) * 3
    tables = torch.from_numpy(as_drawn(stacked(HAND_OBJECT), HAND_OBJECT))
    meaning = torch.randint(0, len(tables), (2,), generator=generator).short()
    sets = class_sets(ids[chosen], meaning, tables)
    counts = torch.bincount(sets.reshape(-1), minlength=16)
    weights = set_weights(counts.numpy(), 0.0)
    mean = set_loss(logits, sets, weights, 0.0) / float(counts.double() @ weights.double())
    expected = functional.cross_entropy(logits, classes[chosen], ignore_index=-100)
    assert float(mean) == pytest.approx(float(expected), rel=1e-4)


def test_egohos_hands_are_ignored_beside_masks_that_end_at_the_wrist(opened: Callable[..., ShardIndex]) -> None:
    """An EgoHOS hand may be arm once something tells the two apart; alone, its hands are hands."""
    ego = Spec("ego", meaning="egohos", hand=Label.LEFT_HAND, item=Label.OBJECT_LEFT)
    index = opened(ego, Spec("wrist", meaning="hand-wrist", item=Label.BACKGROUND))
    place = sorted(index.meanings).index("egohos")
    both = training_tables(index, index.select(), HAND_OBJECT, "ignore")
    alone = training_tables(index, index.select(source="ego"), HAND_OBJECT, "ignore")
    hand = 1 << HAND_OBJECT.classes.index("hand")
    assert both[place, Label.LEFT_HAND] == VOID and both[place, Label.OBJECT_LEFT] == 0b100
    assert alone[place, Label.LEFT_HAND] == hand
    wrist = both[sorted(index.meanings).index("hand-wrist")]
    assert wrist[Label.HAND] == hand and wrist[Label.BACKGROUND] == VOID


def test_sets_are_the_task_s_tables_but_for_idle_arms(opened: Callable[..., ShardIndex]) -> None:
    index = opened(Spec("wrist", meaning="hand-wrist", item=Label.BACKGROUND), Spec("all"))
    found = training_tables(index, index.select(), HAND_OBJECT, "sets")
    np.testing.assert_array_equal(found, guards.task_tables(index, HAND_OBJECT))


def test_the_guards_look_at_what_training_reads(opened: Callable[..., ShardIndex], tmp_path: Path) -> None:
    """Hand-only masks: a background that is ignored leaves hand as a free answer; as drawn it contradicts."""
    index = opened(Spec("wrist", meaning="hand-wrist", item=Label.BACKGROUND))

    def chosen(how: str) -> list[str]:
        return select(FitConfig((str(tmp_path / "shards"),), "x", open_labels=how), HAND_OBJECT).notes

    with pytest.raises(SelectionError, match="may be hand"):
        chosen("ignore")
    assert any("sure to be 'object'" in note for note in chosen("sets"))
    drawn = chosen("as-drawn")
    assert not any("sure to be 'background'" in note for note in drawn) and any("as drawn" in note for note in drawn)
    # Pixels of the sets that training reads, one by one.
    rows, tables = index.select(), training_tables(index, index.select(), HAND_OBJECT, "as-drawn")
    table = tables[sorted(index.meanings).index("hand-wrist")]
    expected = sum(np.bincount(table[index.reader().mask(row)].ravel(), minlength=16) for row in rows.tolist())
    np.testing.assert_array_equal(guards.set_pixels(index, rows, HAND_OBJECT, tables), expected)


def test_a_run_learns_from_what_was_drawn(tmp_path: Path) -> None:
    """As drawn, the same masks teach the same whatever they are said to mean; as sets they do not."""
    torch.set_num_threads(1)

    def weights(meaning: str, how: str) -> dict[str, torch.Tensor]:
        folder = write(tmp_path / f"{meaning}-shards", [Spec("a", meaning=meaning), Spec("b")])
        run = tmp_path / f"{meaning}-{how}"
        options: dict[str, Any] = {"model": "lraspp_mobilenet_v3_large", "weights": "none", "input_rule": "squash"}
        options |= {"epochs": 1, "samples_per_epoch": 4, "crop": 32, "batch_size": 4, "workers": 0, "device": "cpu"}
        fit(FitConfig((str(folder),), str(run), task="hand-object", open_labels=how, **options))
        opened = checkpoint.find(run)
        assert opened.facts["input_rule"] == {"kind": "squash", "size": 32}
        return opened.weights()

    drawn = weights("hand-wrist", "as-drawn")
    for other, same in ((weights("exact", "as-drawn"), True), (weights("hand-wrist", "sets"), False)):
        assert all(torch.equal(value, other[name]) for name, value in drawn.items()) == same
