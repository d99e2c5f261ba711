"""The full truth of the miniatures, which their native layouts hide: arms and objects in hand-only pictures too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.labels import MEANINGS, Meaning, Task, task_table
from hotrain.scoring.metrics import confusion

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex


class FullTruth:
    """Masks of `hodata synth`'s folders `truth`, in which every id is what it says (`hotrain.evaluate.Truth`).

    Args:
        index: of shards that were built from miniatures.
        raw: where those lie: `<raw>/<source>/truth/`.
    """

    def __init__(self, index: ShardIndex, raw: Path) -> None:
        self._reader, self._raw = index.reader(), raw
        names = index.column("source")
        self._folder: Mapping[str, str] = {name: index.plans[name]["source"] for name in set(names)}
        self._source = names

    def meaning(self, row: int) -> Meaning:
        return MEANINGS["exact"]

    def path(self, row: int) -> Path:
        """The file of one row: the original picture's path, below `truth`."""
        original = PurePosixPath(self._reader.json(row)["original_file"]).with_suffix(".png")
        return self._raw / self._folder[self._source[row]] / "truth" / original

    def mask(self, row: int) -> NDArray[np.uint8]:
        from PIL import Image

        path = self.path(row)
        try:
            with Image.open(path) as picture:
                return np.asarray(picture)
        except OSError as error:
            raise ShardError(f"{path}: no truth of this picture ({error}); are the shards made of --raw?") from error


def kinds_seen(
    truth: NDArray[np.uint8], drawn: NDArray[np.uint8], meaning: Meaning, answer: NDArray[np.uint8], task: Task
) -> NDArray[np.int64]:
    """Pixels of one picture by what they truly are and what was answered: everywhere, and where background is drawn.

    Args:
        truth: uint8 [H, W], exact label ids.
        drawn: uint8 [H, W], label ids of the stored mask.
        meaning: of the stored mask.
        answer: uint8 [H, W], class ids of the task.
        task: K classes.

    Returns:
        int64 [2, 2**K, K]: confusion matrices (`hotrain.scoring.metrics.confusion`).
    """
    classes = len(task.classes)
    sets = task_table(MEANINGS["exact"], task)[truth]
    # Background is drawn where the mask allows it and does not leave everything open.
    table = task_table(meaning, task)
    background = ((table & 1) > 0) & (table != (1 << classes) - 1)
    behind = background[drawn]
    return np.stack([confusion(sets, answer, classes), confusion(sets[behind], answer[behind], classes)])
