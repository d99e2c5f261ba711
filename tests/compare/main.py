"""The comparison from end to end: data, runs, tuning, scores, report."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from compare import figure
from compare.data import make
from compare.goals import goals
from compare.report import report
from compare.results import AS_DRAWN, IGNORE, OURS, PUBLISHED, TUNED, Results
from compare.rows import (
    BATCH,
    EPOCHS,
    OUR_RECIPES,
    PRECISION,
    RATES,
    SIDE,
    Run,
    best_rate,
    epoch_images,
    first_runs,
    fit_arguments,
    reference,
    tuned_runs,
)
from compare.rows import PUBLISHED as PUBLISHED_RECIPE
from compare.runs import CompareError, Job, train
from compare.score import TASK, answer_rows, read_images, read_scores, score_run
from compare.truth import FullTruth
from hodata.errors import HodataError
from hodata.shards.reader import ShardIndex
from hotrain.checkpoint import best_score, find
from hotrain.pictures import save_picture
from hotrain.predict import load_predictor
from hotrain.sheets import spread_rows

if TYPE_CHECKING:
    from PIL.Image import Image

_PICTURES = 8


def main(arguments: Sequence[str]) -> int:
    """0: every goal is met; 1: one is missed, or something failed; 130: interrupted, to be gone on with."""
    parser = argparse.ArgumentParser(prog="python tests/compare", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("compare"), help="default: compare/")
    parser.add_argument("--images", type=int, default=8_000, help="that each run sees (8000)")
    parser.add_argument("--seeds", type=int, default=3, help="of each row (3)")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 2), help="runs at a time, one core each")
    parser.add_argument("--raw", type=Path, help="miniatures that are there already, with --shards")
    parser.add_argument("--shards", help="a glob of the shards made of them")
    options = parser.parse_args(arguments)
    if (options.raw is None) != (options.shards is None):
        parser.error("--raw and --shards belong together")
    if min(options.images, options.seeds, options.jobs) < 1:
        parser.error("--images, --seeds and --jobs are 1 or more")
    try:
        return _compare(options.out, options.images, options.seeds, options.jobs, options.raw, options.shards)
    except (CompareError, HodataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


def _compare(out: Path, images: int, seeds: int, jobs: int, raw: Path | None, shards: str | None) -> int:
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    if raw is None or shards is None:
        raw, shards = make(out, _say)
    index = ShardIndex.open(shards)
    sources = index.column("source")[index.select(split="train")].tolist()
    sizes = {name: sources.count(name) for name in sorted(set(sources))}

    def job(run: Run) -> Job:
        arguments = fit_arguments(run, shards, out / "runs" / run.name, images, sizes)
        return Job(run.name, out / "runs" / run.name, arguments, EPOCHS * epoch_images(images))

    train([job(run) for run in first_runs(seeds)], jobs, _say)
    tuning = {rate: _jaccard(out / "runs" / Run(reference(rate), 0).name) for rate in RATES}
    best = best_rate(tuning)
    _say(f"the reference's best learning rate on validation is {best}")
    train([job(run) for run in tuned_runs(best, seeds)], jobs, _say)

    recipes = {PUBLISHED: PUBLISHED_RECIPE, TUNED: reference(best), AS_DRAWN: OUR_RECIPES["as-drawn"]}
    recipes |= {IGNORE: OUR_RECIPES["ignore"], OURS: OUR_RECIPES["sets"]}
    folders = {row: [out / "runs" / Run(recipe, seed).name for seed in range(seeds)] for row, recipe in recipes.items()}
    _score(sorted({folder for own in folders.values() for folder in own}), shards, raw, jobs)
    scores = {row: [read_scores(folder) for folder in own] for row, own in folders.items()}
    results = Results(index, index.select(split="test"), scores)

    verdict = goals(results)
    conditions = [
        f"{EPOCHS * epoch_images(images):,} images of miniatures a run, DeepLabv3 MobileNet from random weights at "
        f"{SIDE} pixels in {PRECISION}, batches of {BATCH}, paired seeds: {seeds}, the best of {EPOCHS} validations.",
        f"{os.cpu_count()} processors, {jobs} runs at a time, torch {torch.__version__}.",
    ]
    (out / "report.md").write_text(report(results, verdict, tuning, best, conditions))
    whole = {"images": EPOCHS * epoch_images(images), "seeds": seeds, "tuning": tuning, "best_rate": best}
    whole |= {"goals": [goal.to_json() for goal in verdict], **results.to_json()}
    (out / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    shown = {"reference, tuned": folders[TUNED][0], "ours": folders[OURS][0]}
    save_picture(figure.below(figure.charts(results), _sheet(index, shown, raw)), out / "compare.png")

    for goal in verdict:
        _say(f"{'met   ' if goal.met else 'MISSED'} {goal.what}: {goal.measured}; needed {goal.needed}")
    _say(f"{out}/report.md, compare.png, results.json; {(time.monotonic() - began) / 60:.0f} min in this call")
    return 0 if all(goal.met for goal in verdict) else 1


def _jaccard(run: Path) -> float:
    """Mean IoU of hand and object of a run's best checkpoint on validation; 0 where it answers neither."""
    score = best_score(run)
    return float(score["jaccard"]) if score and score["jaccard"] is not None else 0.0


def _score(folders: Sequence[Path], shards: str, raw: Path, jobs: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // jobs, 1))  # for the processes below
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for number, folder in enumerate(pool.map(score_run, folders, [shards] * len(folders), [raw] * len(folders))):
            _say(f"scored {number + 1} of {len(folders)}: {folder.parent.name}")


def _sheet(index: ShardIndex, runs: Mapping[str, Path], raw: Path) -> Image:
    rows = spread_rows(index, index.select(split="test"), _PICTURES)
    truth, device = FullTruth(index, raw), torch.device("cpu")
    answers = {}
    for title, run in runs.items():
        maps = answer_rows(index, np.array(rows), load_predictor(find(run), device))
        answers[title] = [maps[row] for row in rows]
    return figure.sheet(read_images(index, rows), [truth.mask(row) for row in rows], answers, TASK)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
