"""Train every row: first what needs no tuning, then the reference at the learning rate that validation chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compare.rows import CPU, RATES, Run, Setting, best_rate, fit_arguments, reference, tuned_runs
from compare.runs import CompareError, Job, train
from hodata.shards.reader import ShardIndex
from hodata.splits import SPLITS
from hotrain.checkpoint import best_score


@dataclass(frozen=True)
class Course:
    """What all runs of a comparison share.

    Args:
        index: the shards.
        shards: the glob of them.
        out: the runs are in `<out>/runs`.
        images: that each run sees.
        jobs: runs at a time.
        setting: what they train, and on what.
        extent: where hands end in what is scored, and so where validation looks.
    """

    index: ShardIndex
    shards: str
    out: Path
    images: int
    jobs: int
    setting: Setting = CPU
    extent: str = "wrist"

    @classmethod
    def open(
        cls, shards: str, out: Path, images: int, jobs: int, setting: Setting = CPU, extent: str = "wrist"
    ) -> Course:
        """Open shards, and refuse before any training those that cannot be trained, chosen and scored on.

        Raises:
            CompareError: one of the splits train, val and test is empty.
            HodataError: there are no shards, or they are damaged.
        """
        index = ShardIndex.open(shards)
        empty = [split for split in SPLITS if not len(index.select(split=split))]
        if empty:
            raise CompareError(
                f"{shards}: nothing in split {', '.join(empty)}; a comparison trains on train, chooses on val and "
                "scores on test: build the shards with another --split-policy"
            )
        return cls(index, shards, out, images, jobs, setting, extent)

    def folder(self, run: Run) -> Path:
        return self.out / "runs" / run.name

    def train_tuned(self, first: Sequence[Run], seeds: int, task: str, say: Callable[[str], None]) -> dict[str, float]:
        """Train `first`, which holds the reference at each of `RATES` with seed 0, and then the tuned row.

        Returns:
            learning rate of the reference -> Jaccard of its best checkpoint on validation; `best_rate` chose of these.

        Raises:
            CompareError: a run failed.
        """
        self.train(first, task, say)
        tuning = {rate: jaccard(self.folder(Run(reference(rate), 0))) for rate in RATES}
        best = best_rate(tuning)
        say(f"the reference's best learning rate on validation is {best}")
        self.train(tuned_runs(best, seeds), task, say)
        return tuning

    def train(self, runs: Sequence[Run], task: str, say: Callable[[str], None]) -> None:
        """Train what is not trained yet.

        Raises:
            CompareError: a run failed.
        """
        sizes = self._sizes()
        data = self.index.data_hash(np.concatenate([self.index.select(split=split) for split in ("train", "val")]))
        jobs = []
        for run in runs:
            folder = self.folder(run)
            arguments = fit_arguments(run, self.shards, folder, self.images, sizes, task, self.setting, self.extent)
            jobs.append(Job(run.name, folder, arguments, self.setting.run_images(self.images), data))
        train(jobs, self.jobs, say)

    def _sizes(self) -> Mapping[str, int]:
        sources = self.index.column("source")[self.index.select(split="train")].tolist()
        return {name: sources.count(name) for name in sorted(set(sources))}


def jaccard(run: Path) -> float:
    """Mean IoU of what the task knows, of a run's best checkpoint on validation; 0 where it answers nothing of it.

    Raises:
        CompareError: the run was never validated.
    """
    score = best_score(run)
    if score is None:
        raise CompareError(f"{run}: has no best checkpoint to compare; remove the folder, and it is trained again")
    return 0.0 if score["jaccard"] is None else float(score["jaccard"])
