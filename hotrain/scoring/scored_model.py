"""What an evaluation is about: the samples, and the model: a run's network, or a folder of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hodata.labels import TASKS, Task
from hodata.shards.reader import ShardIndex
from hodata.shards.select import Selector
from hotrain.checkpoint import Checkpoint, find
from hotrain.errors import PredictionError
from hotrain.evaluate import RowPredictor
from hotrain.learning.selection import select_to_score
from hotrain.predict import Predictor, load_predictor
from hotrain.scoring.flipped import FlippedPredictor
from hotrain.scoring.mask_folder import open_masks


@dataclass(frozen=True)
class ScoredSamples:
    """The samples that an evaluation is about, and what to say of them."""

    index: ShardIndex
    selector: Selector
    rows: NDArray[np.int64]
    notes: list[str]

    @classmethod
    def open(cls, shards: Sequence[str], where: str, exclude: Sequence[Path], split: str) -> ScoredSamples:
        """Open shards; raises as `ShardIndex.open`, `Selector.of` and `select_to_score`."""
        selector = Selector.of(where, exclude)
        index = ShardIndex.open(shards)
        return cls(index, selector, *select_to_score(index, selector, split))

    def to_json(self) -> dict[str, Any]:
        """{selection: {where, exclude}}, empty where all samples of the split were taken."""
        if not self.selector:
            return {}
        return {"selection": {"where": self.selector.where, "exclude": sorted(self.selector.exclude)}}


@dataclass
class ScoredModel:
    """A model and the rows that it answers.

    Args:
        name: for people.
        task: whose classes it answers with.
        predictor: gives the answers.
        rows: int64 [N], those that are scored.
        notes: for people.
        missing: keys of the samples that have no mask.
    """

    name: str
    task: Task
    predictor: Predictor | RowPredictor
    rows: NDArray[np.int64]
    notes: list[str]
    missing: list[str]

    @classmethod
    def of_run(
        cls, opened: Checkpoint, name: str, rows: NDArray[np.int64], tta: str | None, device: torch.device
    ) -> ScoredModel:
        """A run's network; `tta` is None or `flip`."""
        network = load_predictor(opened, device)
        if tta is None:
            return cls(name, opened.task, network, rows, [], [])
        return cls(f"{name} with flips", opened.task, FlippedPredictor(network, opened.task), rows, [], [])

    @classmethod
    def of_masks(
        cls,
        path: Path,
        index: ShardIndex,
        rows: NDArray[np.int64],
        task: str | None,
        ids: str | None,
        allow_missing: bool,
    ) -> ScoredModel:
        """A folder of masks, see `mask_folder.open_masks`."""
        if task is None:
            raise PredictionError(
                f"{path}: holds no checkpoint, and if it is a folder of masks, say with --task which classes they tell "
                f"apart: {', '.join(sorted(TASKS))}"
            )
        masks, matched, extent = open_masks(path, index, rows, TASKS[task], ids, allow_missing)
        notes = []
        if matched.missing:
            notes.append(f"{path}: {len(matched.missing)} of {len(rows)} samples have no mask and are not scored")
        if matched.extra:
            notes.append(f"{path}: {len(matched.extra)} masks belong to no sample of the selection")
        if extent:
            notes.append(f"{path}: its legend says that hands end at extent {extent}")
        kept = np.array(sorted(matched.files), dtype=np.int64)
        return cls(str(path), TASKS[task], masks, kept, notes, matched.missing)


def checkpoint_in(path: Path) -> Checkpoint | None:
    """The checkpoint that a folder is or holds; None where it looks like neither.

    Raises:
        CheckpointError: it is damaged.
    """
    if (path / "run.json").is_file() or (path / "checkpoints").is_dir():
        return find(path)
    return None
