"""What training takes a pixel for whose mask leaves several classes open: the tables that the loss reads.

`sets` is the project's own way (`hotrain.learning.loss`); the two others are what people did before, kept so that they
can be compared on the same samples. Evaluation knows none of this: it always reads the meanings.

Shapes: M meanings of an index, sorted by name; K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.labels import MEANINGS, Task, fold_sets, task_table
from hotrain.learning import guards

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex


def training_tables(index: ShardIndex, rows: NDArray[np.int64], task: Task, how: str) -> NDArray[np.uint8]:
    """Stored id -> set of classes, of every meaning, as a run on these rows is to read it.

    An arm class that no pixel of the rows tells from its hand is taken out: nothing could teach it.

    Args:
        index: the shards.
        rows: int64 [N] that are trained on.
        task: its classes.
        how: one of `hotrain.config.OPEN_LABELS`.

    Returns:
        uint8 [M, 256], see `hodata.labels.task_table`.
    """
    tables = guards.task_tables(index, task)
    if how == "as-drawn":
        return as_drawn(tables, task)
    idle = guards.idle_arms(guards.set_pixels(index, rows, task, tables), task)
    tables = guards.without_classes(idle, len(task.classes))[tables]
    return ignored(tables, task) if how == "ignore" else tables


def ignored(tables: NDArray[np.uint8], task: Task) -> NDArray[np.uint8]:
    """Void wherever a table leaves open which public class a pixel is, arms counted as background.

    FreiHAND's backgrounds, which may hold objects, and EgoHOS's hands, which may be arms, are never trained on; an
    HO-3D background is background whether or not an arm lies there.

    Args:
        tables: uint8 [..., 256], sets of K classes.
        task: its classes.

    Returns:
        uint8 of the same shape.
    """
    public = fold_sets(task.fold("wrist"))[tables]
    open_to_several = (public & (public - np.uint8(tables > 0))) > 0  # more than one bit
    return np.where(open_to_several, _void(task), tables).astype(np.uint8)


def as_drawn(tables: NDArray[np.uint8], task: Task) -> NDArray[np.uint8]:
    """Every stored id taken at its word, whatever its meaning says: 0 is background, a hand or arm id is hand.

    As the reference project trained: hand-only sources teach that a held object is background, and EgoHOS that an arm
    is hand.

    Args:
        tables: uint8 [..., 256]; their shape is kept.
        task: its classes; void stays void.

    Returns:
        uint8 of the same shape, without arm classes.
    """
    drawn = task_table(MEANINGS["exact"], task)
    merged = np.where(drawn == _void(task), drawn, fold_sets(task.fold("arm"))[drawn])
    return np.broadcast_to(merged, tables.shape).astype(np.uint8)


def _void(task: Task) -> np.uint8:
    """The set of all classes: costs nothing."""
    return np.uint8((1 << len(task.classes)) - 1)
