"""Groups and leak-free splits: which samples train, which validate, which test, and why.

A group is one recording (or whatever else must not stand on both sides). Groups are drawn in the order of
sha256(salt | group), which is the same for any listing order; other recordings change nothing but where the draw stops,
since that goes by frames.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hodata.errors import SourceError
from hodata.sample import Record
from hodata.sources.base import LeftOut, SplitRules

POLICIES = ("clean", "official", "group")
SPLITS = ("train", "val", "test")
_SALT = "hodata-split-1"
_SHARE = 0.10  # a drawn split stops at this share of the frames it is drawn from
_LIMIT = 0.15  # a group that would push it past this is skipped
_OFFICIAL_TEST = "official test recording"
_FALLBACK_LIMIT = 0.34  # with few, large groups: the smallest may be taken up to this share


@dataclass
class SplitPlan:
    """The outcome of `assign_splits`.

    Args:
        split_of: record key -> train, val or test.
        groups: group -> {"split": ..., "reason": ..., "samples": n}; a group on both sides (only under `official`)
            has split `train+test`.
        left_out: records that belong nowhere without a leak, one entry a group.
        notes: for people.
    """

    split_of: dict[str, str] = field(default_factory=dict)
    groups: dict[str, dict[str, object]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def assign_splits(records: Sequence[Record], rules: SplitRules, policy: str) -> SplitPlan:
    """Give every record a split.

    Args:
        records: any order.
        rules: the dataset's own subsets.
        policy: `clean` keeps official test recordings and removes what leaks into them, and keeps validation
            recordings where `rules` name them; `official` is the published protocol, leaks and all; `group` ignores
            official splits and draws everything.

    Raises:
        SourceError: unknown policy, or a subset that the rules do not know.
    """
    if policy not in POLICIES:
        raise SourceError(f"unknown split policy {policy!r}; choose one of {', '.join(POLICIES)}")
    if policy == "official":
        return _official(records, rules)
    plan = SplitPlan()
    test: set[str] = set()
    if policy == "clean":
        test = {record.group for record in records if record.subset in rules.clean_test}
        for group in test:
            _enter(plan, group, "test", _OFFICIAL_TEST)
    pool = [record for record in records if record.group not in test]
    val: set[str] = set()
    if policy == "clean":
        named = Counter(record.group for record in pool if record.subset in rules.clean_val)
        sizes = Counter(record.group for record in pool)
        val = {group for group, count in named.items() if count == sizes[group]}
        for group in val:
            _enter(plan, group, "val", "official validation recording")
        if mixed := {group: count for group, count in named.items() if group not in val}:
            plan.notes.append(
                f"{sum(mixed.values()):,} samples of the official validation set do not validate: their {len(mixed)} "
                "recordings also train"
            )
    if pool and (policy == "group" or not test or rules.redraw_test):
        for group in _draw([record for record in pool if record.group not in val], "test", plan):
            _enter(plan, group, "test", "drawn by hash")
            test.add(group)
        pool = [record for record in pool if record.group not in test]
    if not val:
        val = set(_draw(pool, "val", plan))
        for group in val:
            _enter(plan, group, "val", "drawn by hash")
    for group in {record.group for record in pool} - val:
        _enter(plan, group, "train", "not drawn")
    _assign(plan, records, rules, policy)
    return plan


def leak_report(records: Iterable[Record], split_of: Mapping[str, str]) -> dict[str, int]:
    """How much a split leaks: groups that stand in several splits, and test and val samples whose group trains.

    Returns:
        {"groups_shared": n, "test_samples": n, "test_leaked": n, "val_samples": n, "val_leaked": n}
    """
    splits: dict[str, set[str]] = defaultdict(set)
    kept = [record for record in records if record.key in split_of]
    for record in kept:
        splits[record.group].add(split_of[record.key])
    report = {"groups_shared": sum(len(found) > 1 for found in splits.values())}
    for split in ("test", "val"):
        members = [record for record in kept if split_of[record.key] == split]
        report[f"{split}_samples"] = len(members)
        report[f"{split}_leaked"] = sum("train" in splits[record.group] for record in members)
    return report


def group_order(groups: Iterable[str]) -> list[str]:
    """Groups in the order in which they are drawn: by sha256(salt | group)."""
    return sorted(groups, key=lambda group: hashlib.sha256(f"{_SALT}|{group}".encode()).digest())


def _official(records: Sequence[Record], rules: SplitRules) -> SplitPlan:
    plan = SplitPlan()
    split_of_group: dict[str, set[str]] = defaultdict(set)
    for record in records:
        split = rules.official.get(record.subset)
        if split is None:
            raise SourceError(
                f"{record.image}: subset {record.subset!r} has no official split "
                f"(known: {', '.join(sorted(rules.official)) or 'none'}); use --split-policy clean or group"
            )
        plan.split_of[record.key] = split
        split_of_group[record.group].add(split)
    sizes = Counter(record.group for record in records)
    for group in sorted(split_of_group):
        splits = [split for split in SPLITS if split in split_of_group[group]]
        plan.groups[group] = {
            "split": "+".join(splits),
            "reason": "published protocol",
            "samples": sizes[group],
        }
    leaks = leak_report(records, plan.split_of)
    for split in ("test", "val"):
        if leaks[f"{split}_leaked"]:
            plan.notes.append(
                f"the published protocol leaks: {leaks[f'{split}_leaked']:,} of {leaks[f'{split}_samples']:,} {split} "
                "samples come from recordings that also train; --split-policy clean does not"
            )
    return plan


def _draw(pool: Sequence[Record], split: str, plan: SplitPlan) -> list[str]:
    sizes = Counter(record.group for record in pool)
    if len(sizes) < 2:
        if pool:
            plan.notes.append(f"no {split} split: all {len(pool):,} samples are one group")
        return []
    # Masks that a model made may train, but never judge a model.
    barred = {record.group for record in pool if split == "test" and record.mask_origin.startswith("model")}
    tags_of: dict[str, set[str]] = defaultdict(set)
    for record in pool:
        tags_of[record.group].update(record.tags)
    groups_with = Counter(tag for tags in tags_of.values() for tag in tags)  # among the groups not drawn
    drawn: list[str] = []
    held = 0

    def may_go(group: str, limit: float) -> bool:
        if group in barred or held + sizes[group] > limit * len(pool) or len(sizes) - len(drawn) < 2:
            return False
        return all(groups_with[tag] > 1 for tag in tags_of[group])

    for group in group_order(sizes):
        if held >= _SHARE * len(pool):
            break
        if may_go(group, _LIMIT):
            drawn.append(group)
            groups_with.subtract(tags_of[group])
            held += sizes[group]
    if not drawn:
        for group in sorted(group_order(sizes), key=lambda group: sizes[group]):
            if may_go(group, _FALLBACK_LIMIT):
                return [group]
        plan.notes.append(
            f"no {split} split: none of the {len(sizes)} groups can be spared "
            "(each is too large, or the last with its object, or its masks were made by a model)"
        )
    return drawn


def _enter(plan: SplitPlan, group: str, split: str, reason: str) -> None:
    plan.groups[group] = {"split": split, "reason": reason, "samples": 0}


def _assign(plan: SplitPlan, records: Sequence[Record], rules: SplitRules, policy: str) -> None:
    dropped: Counter[tuple[str, str]] = Counter()
    for record in records:
        entry = plan.groups[record.group]
        leaks_into_official = (
            policy == "clean" and entry["reason"] == _OFFICIAL_TEST and record.subset not in rules.clean_test
        )
        if leaks_into_official:
            dropped[record.group, record.subset] += 1
            continue
        plan.split_of[record.key] = str(entry["split"])
        entry["samples"] = int(str(entry["samples"])) + 1
    plan.groups = dict(sorted(plan.groups.items()))
    for (group, subset), count in sorted(dropped.items()):
        plan.left_out.append(
            LeftOut(
                f"{group} ({subset or 'no subset'}: {count} samples)",
                "its recording is also in the official test set",
            )
        )
    if dropped:
        plan.notes.append(
            f"{sum(dropped.values()):,} samples of {len({group for group, _ in dropped})} groups are left out, because "
            "their recordings are also in the official test set (listed in the manifest)"
        )
