"""Splits never leak, do not depend on listing order, and keep official tests."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hodata.errors import SourceError
from hodata.sample import Record
from hodata.sources.base import SplitRules
from hodata.splits import SPLITS, assign_splits, group_order, leak_report

RULES = SplitRules(official={"training": "train", "evaluation": "test"}, clean_test=frozenset({"evaluation"}))
NONE = SplitRules(official={})


def records(sizes: dict[str, int], subset: str = "training", **options: object) -> list[Record]:
    return [
        Record(key=f"{subset}_{group}_{i}", group=group, subset=subset, image=f"{group}/{i}.jpg", **options)  # type: ignore[arg-type]
        for group, size in sizes.items()
        for i in range(size)
    ]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), st.integers(1, 30), min_size=1, max_size=40),
    tested=st.sets(st.text("abcdefgh", min_size=1, max_size=4), max_size=4),
    policy=st.sampled_from(["clean", "group"]),
    seed=st.integers(0, 99),
)
def test_no_group_is_split_and_order_does_not_matter(
    sizes: dict[str, int], tested: set[str], policy: str, seed: int
) -> None:
    all_records = records(sizes) + records(dict.fromkeys(tested, 3), "evaluation")
    plan = assign_splits(all_records, RULES, policy)
    seen: dict[str, set[str]] = {}
    for record in all_records:
        if record.key in plan.split_of:
            seen.setdefault(record.group, set()).add(plan.split_of[record.key])
    assert all(len(splits) == 1 for splits in seen.values())
    shuffled = random.Random(seed).sample(all_records, len(all_records))
    assert assign_splits(shuffled, RULES, policy) == plan
    left = sum(record.key not in plan.split_of for record in all_records)
    in_both = sum(count for group, count in sizes.items() if group in tested)
    assert left == (in_both if policy == "clean" else 0)
    report = leak_report(all_records, plan.split_of)
    assert report["test_leaked"] == report["val_leaked"] == report["groups_shared"] == 0


def test_drawn_splits_hold_a_tenth_and_never_more_than_their_limit() -> None:
    sizes = {f"r{i}": 5 + i % 7 for i in range(100)}
    plan = assign_splits(records(sizes), NONE, "clean")
    total = sum(sizes.values())
    counts = {split: sum(value == split for value in plan.split_of.values()) for split in SPLITS}
    assert 0.10 <= counts["test"] / total <= 0.15
    assert 0.10 <= counts["val"] / (total - counts["test"]) <= 0.15
    drawn = [group for group in group_order(sizes) if plan.groups[group]["split"] == "test"]
    assert drawn == group_order(sizes)[: len(drawn)]


def test_official_test_recordings_stay_and_their_training_frames_are_left_out() -> None:
    plan = assign_splits(
        records({"sb": 10, "abf": 20, "mc": 20, "bb": 3}) + records({"sb": 4, "ap": 5}, "evaluation"), RULES, "clean"
    )
    assert plan.groups["sb"]["split"] == plan.groups["ap"]["split"] == "test"
    assert plan.groups["sb"]["samples"] == 4
    assert [item.what for item in plan.left_out] == ["sb (training: 10 samples)"]
    assert "also in the official test set" in plan.left_out[0].why


OWN = SplitRules({"train": "train", "val": "val", "test": "test"}, frozenset({"test"}), frozenset({"val"}))


@pytest.mark.parametrize("test", ["test", ""])
def test_validation_of_one_s_own_stays_what_it_is(test: str) -> None:
    """And where nobody said what tests, it is drawn of what trains."""
    sizes = {f"t{number}": 5 for number in range(20)}
    own = records(sizes, "train") + records({"v1": 4, "v2": 4}, "val")
    plan = assign_splits(own + (records({"x": 9}, test) if test else []), OWN, "clean")
    split = {group: entry["split"] for group, entry in plan.groups.items()}
    assert {group for group, found in split.items() if found == "val"} == {"v1", "v2"}
    tests = {group for group, found in split.items() if found == "test"}
    assert tests == {"x"} if test else tests and tests <= set(sizes)
    assert not plan.left_out and not plan.notes


def test_validation_frames_drawn_from_every_recording_cost_no_training() -> None:
    """As annotation tools split: of each video some frames. Then recordings are drawn, and it is said."""
    sizes = {f"t{number}": 9 for number in range(10)}
    frames = records(sizes, "train") + records(dict.fromkeys(sizes, 1), "val")
    plan = assign_splits(frames, OWN, "clean")
    counts = Counter(str(entry["split"]) for entry in plan.groups.values())
    assert counts["train"] >= 7 and counts["val"] and counts["test"] and not plan.left_out
    assert plan.notes == ["10 samples of the official validation set do not validate: their 10 recordings also train"]


def test_redrawing_adds_in_domain_test_groups() -> None:
    rules = SplitRules(RULES.official, frozenset({"evaluation"}), redraw_test=True)
    plan = assign_splits(records({f"v{i}": 4 for i in range(40)}) + records({"you": 4}, "evaluation"), rules, "clean")
    tests = {group for group, entry in plan.groups.items() if entry["split"] == "test"}
    assert "you" in tests
    assert len(tests) == 5  # and a tenth of the 40


def test_the_last_training_group_of_an_object_is_never_taken() -> None:
    sizes = {f"r{i}": 4 for i in range(30)}
    for lonely in sizes:
        all_records = records({group: size for group, size in sizes.items() if group != lonely})
        all_records += records({lonely: 4}, tags=("drill",))
        assert assign_splits(all_records, NONE, "clean").groups[lonely]["split"] == "train"


def test_of_two_groups_of_an_object_only_one_is_taken() -> None:
    """Both would be the first ones drawn."""
    first, second, *others = group_order(f"r{i}" for i in range(30))
    plan = assign_splits(
        records(dict.fromkeys(others, 4)) + records({first: 4, second: 4}, tags=("drill",)), NONE, "clean"
    )
    assert (plan.groups[first]["split"], plan.groups[second]["split"]) == ("test", "train")


def test_masks_of_a_model_never_enter_a_test_split() -> None:
    all_records = records({f"r{i}": 4 for i in range(30)}, mask_origin="model:first")
    plan = assign_splits(all_records, NONE, "clean")
    assert "test" not in plan.split_of.values()
    assert "val" in plan.split_of.values()
    assert any("made by a model" in note for note in plan.notes)


def test_few_large_groups_still_get_a_validation_group() -> None:
    plan = assign_splits(records({"a": 40, "b": 41, "c": 42, "d": 43, "e": 44}), NONE, "clean")
    assert {entry["split"] for entry in plan.groups.values()} == {"train", "val", "test"}


def test_one_group_trains_and_says_so() -> None:
    plan = assign_splits(records({"only": 9}), NONE, "clean")
    assert set(plan.split_of.values()) == {"train"}
    assert any("one group" in note for note in plan.notes)


def test_official_policy_reports_its_leak() -> None:
    plan = assign_splits(records({"a": 8, "b": 2}) + records({"a": 3, "c": 1}, "evaluation"), RULES, "official")
    assert plan.groups["a"]["split"] == "train+test"
    assert "3 of 4 test" in plan.notes[0]
    with pytest.raises(SourceError, match="subset 'training' has no official split"):
        assign_splits(records({"a": 1}), NONE, "official")
    with pytest.raises(SourceError, match="unknown split policy"):
        assign_splits(records({"a": 1}), NONE, "random")
