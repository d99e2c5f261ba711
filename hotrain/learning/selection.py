"""The samples of a run: the shards' own splits, checked before anything is trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Meaning, Task
from hodata.shards.reader import ShardIndex
from hodata.shards.select import Selector, select_rows
from hotrain.config import FitConfig
from hotrain.errors import SelectionError
from hotrain.learning import guards
from hotrain.learning.open_labels import training_tables
from hotrain.scoring.metrics import source_extent


@dataclass(frozen=True)
class Selection:
    """What a run trains and validates on.

    Args:
        index: the shards.
        rows: source -> its training rows.
        val_rows: validation rows, at most the limit; empty where the shards have no such split.
        data_hash: of the training rows.
        tables: uint8 [M, 256], stored id -> set of classes, as training reads it (`open_labels.training_tables`).
        notes: for people: what is selected, and what to be careful of.
    """

    index: ShardIndex
    rows: Mapping[str, NDArray[np.int64]]
    val_rows: NDArray[np.int64]
    data_hash: str
    tables: NDArray[np.uint8]
    notes: list[str]

    @property
    def train_rows(self) -> NDArray[np.int64]:
        """int64 [N]: the training rows of all sources."""
        return np.concatenate(list(self.rows.values()))


def select(config: FitConfig, task: Task) -> Selection:
    """Open the shards of a run.

    Raises:
        ShardError: shards are missing, damaged, or hold a key twice.
        SelectionError: no training sample, a group on both sides of a split, or a class that could answer everything.
    """
    selector = Selector(config.where, frozenset(config.exclude))
    index = ShardIndex.open(config.shards)
    selected = select_rows(index, selector)
    chosen = selected.rows
    train, val = (np.intersect1d(chosen, index.select(split=split)) for split in ("train", "val"))
    if not len(train):
        raise SelectionError(
            f"{', '.join(config.shards)}: {len(chosen)} of {len(index)} samples are selected, none of them in the "
            "split train; training needs shards named <name>-train-*.tar"
        )
    warnings = selected.notes + guards.refuse_leaks(index, chosen)
    guards.refuse_illegal_ids(index, train)
    tables = training_tables(index, train, task, config.open_labels)
    guards.refuse_free_answers(index, train, task, tables)
    sources = index.column("source")
    rows = {str(name): train[sources[train] == name] for name in sorted(set(sources[train]))}
    judges = np.array([index.meanings[name].scored for name in index.column("meaning")[val]], dtype=bool)
    val_rows = _fixed_subset(index, val[judges], config.val_limit)
    if selector:
        warnings.append(f"selected: {len(chosen):,} of {len(index):,} samples, {len(train):,} of them to train on")
    notes = warnings + _notes(index, rows, val_rows, task, config, tables)
    return Selection(index, rows, val_rows, index.data_hash(train), tables, notes)


def select_to_score(index: ShardIndex, selector: Selector, split: str) -> tuple[NDArray[np.int64], list[str]]:
    """The rows of a split that a selector allows, and notes for people.

    Raises:
        EmptySelectionError: there is none; says how many rows each part of the request left.
        SelectionError: a group of these shards is on both sides of a split.
    """
    selected = select_rows(index, selector, split)
    if split == "train":
        return selected.rows, selected.notes
    chosen, groups = select_rows(index, selector).rows, index.arrow("group").indices.to_numpy()
    same_groups = chosen[np.isin(groups[chosen], groups[selected.rows])]
    return selected.rows, selected.notes + guards.refuse_leaks(index, same_groups)


def meanings_of(index: ShardIndex, rows: NDArray[np.int64]) -> list[Meaning]:
    """The meanings that some rows have, by name."""
    return [index.meanings[name] for name in sorted(set(index.column("meaning")[rows]))]


def _fixed_subset(index: ShardIndex, rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` rows, those whose keys hash lowest: the same ones in every run on these shards."""
    if len(rows) <= limit:
        return rows
    hashes = [hashlib.sha256(key.encode()).digest() for key in index.column("key")[rows]]
    chosen = sorted(range(len(rows)), key=lambda place: hashes[place])[:limit]
    return np.sort(rows[chosen])


def _notes(
    index: ShardIndex,
    rows: Mapping[str, NDArray[np.int64]],
    val_rows: NDArray[np.int64],
    task: Task,
    config: FitConfig,
    tables: NDArray[np.uint8],
) -> list[str]:
    notes = []
    groups = index.column("group")
    for name, own in rows.items():
        meanings = meanings_of(index, own)
        notes.append(
            f"{name}: {len(own)} training samples of {len(set(groups[own]))} groups, meaning "
            f"{', '.join(meaning.name for meaning in meanings)}, hands scored at extent "
            f"{source_extent(meanings, task, config.extent)}"
        )
    train = np.concatenate(list(rows.values()))
    notes += [
        f"warning: no pixel of the training samples is sure to be {name!r}; the model cannot learn it"
        for name in guards.missing_classes(index, train, task, tables)
    ]
    drawn = guards.set_pixels(index, train, task)
    if guards.idle_arms(drawn, task):
        notes.append(
            "warning: no training mask tells hands from arms; the model will call both hand: judge it with --extent arm"
        )
    if config.open_labels == "ignore":
        left_out = (guards.set_pixels(index, train, task, tables)[-1] - drawn[-1]) / max(drawn.sum(), 1)
        notes.append(f"open labels are ignored: {left_out:.0%} of the training pixels teach nothing")
    if config.open_labels == "as-drawn":
        notes.append("open labels are taken as drawn: objects and arms are what each mask happens to call them")
    if len(val_rows):
        notes.append(f"validation: {len(val_rows)} samples of {len(set(groups[val_rows]))} groups")
    else:
        notes.append("warning: the shards have no split val: nothing is scored, and the last checkpoint is the best")
    return notes
