"""What a selection of samples must hold before anything is trained on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.labels import LABELS, Task, task_table
from hotrain.columns import coded, present
from hotrain.errors import SelectionError, TrainingError

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex


def refuse_leaks(index: ShardIndex, rows: NDArray[np.int64] | None = None) -> list[str]:
    """Raise SelectionError where, among some rows (None: all), a group is in train here and in val or test there.

    Groups are global names, so two versions of one recording in two builds are found too. A build made with
    `--split-policy official` may leak into itself, as its authors published it: that becomes a warning.

    Returns:
        warnings for people.
    """
    import pyarrow as pa

    table = pa.table({name: index.arrow(name) for name in ("group", "split", "source")})
    places = (table if rows is None else table.take(rows)).group_by(table.column_names).aggregate([])
    found: dict[str, dict[str, set[str]]] = {}
    for group, split, source in zip(*(column.to_pylist() for column in places.columns), strict=True):
        found.setdefault(group, {}).setdefault(split, set()).add(source)
    published: dict[str, int] = {}
    leaks: dict[str, tuple[str, str, str]] = {}
    for group, by_split in found.items():
        for split in ("test", "val"):
            for here in sorted(by_split.get("train", ())):
                for there in sorted(by_split.get(split, ())):
                    if here == there and index.plans[here].get("options", {}).get("split_policy") == "official":
                        published[here] = published.get(here, 0) + 1
                    else:
                        leaks.setdefault(group, (here, split, there))
    if leaks:
        group, (here, split, there) = min(leaks.items())
        raise SelectionError(
            f"{len(leaks)} groups stand on both sides of a split; the first: {group!r} is in train in {here!r} and in "
            f"{split} in {there!r}. The score would be of frames that training saw: build both with the same "
            "--split-policy, or leave one out (--where, --exclude)"
        )
    return [
        f"warning: {name} has its published splits, and {count} of its recordings that train are also in val or test: "
        "its scores are of frames much like those that training saw"
        for name, count in sorted(published.items())
    ]


def refuse_illegal_ids(index: ShardIndex, rows: NDArray[np.int64]) -> None:
    """Raise ShardError where masks hold an id that is no label: the counts per label then miss pixels."""
    counted = label_pixels(index, rows).sum(1)
    area = index.column("width")[rows].astype(np.int64) * index.column("height")[rows]
    wrong = np.flatnonzero(counted != area)
    if len(wrong):
        first = wrong[0]
        raise ShardError(
            f"{index.column('key')[rows[first]]}: {area[first] - counted[first]} of its pixels hold an id that is no "
            f"label ({len(wrong)} such samples); build the shards again"
        )


def refuse_free_answers(
    index: ShardIndex, rows: NDArray[np.int64], task: Task, tables: NDArray[np.uint8] | None = None
) -> None:
    """Raise SelectionError where one class is allowed for every pixel of every sample.

    The model could answer that class everywhere at no cost, and would learn to.

    Args:
        index: the shards.
        rows: int64 [N] that are trained on.
        task: its classes.
        tables: uint8 [M, 256] that training reads; None: `task_tables`.
    """
    allowed = (1 << len(task.classes)) - 1
    for sets, _ in _present_sets(index, rows, task, tables):
        allowed &= int(np.bitwise_and.reduce(sets))
    if allowed:
        names = ", ".join(name for c, name in enumerate(task.classes) if allowed >> c & 1)
        meanings = ", ".join(present(index, "meaning", rows))
        raise SelectionError(
            f"every pixel of every selected sample may be {names} (meanings: {meanings}), so answering {names} "
            f"everywhere would cost nothing and the task {task.name!r} would teach nothing. Add a source whose masks "
            "decide it, or check the meaning in labels.toml"
        )


def missing_classes(
    index: ShardIndex, rows: NDArray[np.int64], task: Task, tables: NDArray[np.uint8] | None = None
) -> list[str]:
    """Public classes that no pixel of the selection can be told to be, for people to be warned of.

    A class counts as taught where a pixel's set holds nothing else but it and the arm that belongs to it; any arm
    belongs to the background, which it is at extent wrist. Arguments as of `refuse_free_answers`.
    """
    taught = set()
    for sets, _ in _present_sets(index, rows, task, tables):
        for c in range(task.public):
            own = (1 << c) | sum(1 << arm for arm, hand in task.arm_to_hand.items() if c in (0, hand))
            if (((sets & ~np.uint8(own)) == 0) & (sets >> c & 1).astype(bool)).any():
                taught.add(c)
    return [name for c, name in enumerate(task.public_classes) if c not in taught]


def task_tables(index: ShardIndex, task: Task) -> NDArray[np.uint8]:
    """uint8 [M, 256]: `task_table` of each of `index.meaning_names`; `data.meaning_numbers` counts them."""
    return np.stack([task_table(index.meanings[name], task) for name in index.meaning_names])


def set_pixels(
    index: ShardIndex, rows: NDArray[np.int64], task: Task, tables: NDArray[np.uint8] | None = None
) -> NDArray[np.int64]:
    """int64 [2**K]: pixels of each set of classes in the masks of some rows, read by `tables` (None: `task_tables`)."""
    counts = np.zeros(1 << len(task.classes), dtype=np.int64)
    for sets, pixels in _present_sets(index, rows, task, tables):
        np.add.at(counts, sets, pixels)
    return counts


def idle_arms(pixels: NDArray[np.int64], task: Task) -> list[int]:
    """Internal arm classes that no pixel tells from their hand: one is possible wherever the other is.

    Args:
        pixels: int64 [2**K], pixels of each set (`set_pixels`).
    """
    full = len(pixels) - 1
    present = [members for members in np.flatnonzero(pixels).tolist() if members != full]
    return [
        arm
        for arm, hand in sorted(task.arm_to_hand.items())
        if any(members >> arm & 1 for members in present)
        and all(members >> arm & 1 == members >> hand & 1 for members in present)
    ]


def without_classes(classes: list[int], count: int) -> NDArray[np.uint8]:
    """uint8 [2**K]: each set of `count` = K classes without these; the set of all of them stays whole."""
    members = np.arange(1 << count)
    for class_id in classes:
        members[:-1] &= ~(1 << class_id)
    return members.astype(np.uint8)


def label_pixels(index: ShardIndex, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [rows, labels]: pixels per label, in the order of `hodata.labels.LABELS`."""
    columns = [index.column(f"pixels_{label.label_name}")[rows] for label in LABELS]
    return np.stack(columns, 1).astype(np.int64)


def micro_batch(batch: int, ranks: int, accumulation: int) -> int:
    """Images of one forward pass of one rank.

    Raises:
        TrainingError: the parts are not equal, or smaller than 2 (the image-level branch of ASPP normalises over the
            batch alone).
    """
    parts = ranks * accumulation
    if batch % parts:
        raise TrainingError(
            f"a batch of {batch} cannot be divided among {ranks} processes x {accumulation} accumulation steps; "
            f"use --batch-size {max(batch // parts, 2) * parts}"
        )
    if batch // parts < 2:
        raise TrainingError(
            f"a batch of {batch} leaves each of {ranks} processes x {accumulation} accumulation steps {batch // parts} "
            "image at a time, and BatchNorm behind the image pooling of DeepLabv3 needs at least 2; use --batch-size "
            f"{2 * parts} or fewer accumulation steps"
        )
    return batch // parts


def _present_sets(
    index: ShardIndex, rows: NDArray[np.int64], task: Task, tables: NDArray[np.uint8] | None
) -> list[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """For each meaning among the rows: the sets of the labels that occur, and their pixels."""
    pixels = label_pixels(index, rows)
    tables = task_tables(index, task) if tables is None else tables
    numbers = {name: number for number, name in enumerate(index.meaning_names)}
    names, codes = coded(index, "meaning")
    found = []
    for code in np.unique(codes[rows]).tolist():
        total = pixels[codes[rows] == code].sum(0)
        occurring = np.flatnonzero(total)
        ids = np.array([int(LABELS[place]) for place in occurring])
        found.append((tables[numbers[names[code]], ids], total[occurring]))
    return found
