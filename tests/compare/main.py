"""The comparison from end to end: data, runs, tuning, scores, report."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from compare import figure
from compare.course import Course
from compare.data import Drawn, make, make_further
from compare.goals import Goal, label_goals, reference_goals
from compare.real import EXTENT, compare_real
from compare.report import report
from compare.results import AS_DRAWN, IGNORE, OURS, PUBLISHED, TUNED, Pictures, Results
from compare.rows import (
    CPU,
    EPOCHS,
    OUR_RECIPES,
    Run,
    Setting,
    best_rate,
    first_runs,
    our_runs,
    reference,
)
from compare.rows import PUBLISHED as PUBLISHED_RECIPE
from compare.runs import CompareError
from compare.score import TASK, answers_of_run, read_images, read_scores, score_run
from compare.stages import compare_stages
from compare.truth import FullTruth
from hodata.errors import HodataError
from hodata.lock import only_one
from hodata.shards.reader import ShardIndex
from hotrain.model import MODELS
from hotrain.pictures import save_picture
from hotrain.sheets import spread_rows

if TYPE_CHECKING:
    from PIL.Image import Image


def main(arguments: Sequence[str]) -> int:
    """0: every goal is met; 1: one is missed, or something failed; 130: interrupted, to be gone on with."""
    parser = argparse.ArgumentParser(prog="python tests/compare", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("compare"), help="default: compare/")
    parser.add_argument("--images", type=int, default=8_000, help="that each run sees (8000)")
    parser.add_argument("--seeds", type=int, default=3, help="of each row (3)")
    parser.add_argument(
        "--jobs", type=int, default=min(os.cpu_count() or 1, 2), help="runs at a time, which share the cores"
    )
    parser.add_argument(
        "--raw", type=Path, help="miniatures that are there already, with --shards; no others are drawn"
    )
    parser.add_argument("--shards", help="a glob of the shards made of them")
    parser.add_argument("--real", help="a glob of shards of real pictures, in place of miniatures: hands alone")
    parser.add_argument(
        "--ours-alone", action="store_true", help="without the reference: what hand-only masks and arms teach ours"
    )
    parser.add_argument(
        "--stages",
        action="store_true",
        help="whether hands fall when objects are learnt, in two stages",
    )
    parser.add_argument("--model", choices=MODELS, default=CPU.model, help="of all rows (MobileNet)")
    parser.add_argument("--side", type=int, default=CPU.side, help="of images as the model sees them (160)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=CPU.device, help="cuda: the first GPU (cpu)")
    parser.add_argument("--workers", type=int, default=CPU.workers, help="loading processes of a run (0)")
    parser.add_argument("--batch", type=int, default=CPU.batch, help="images of a step (8)")
    options = parser.parse_args(arguments)
    setting = Setting(options.model, options.side, options.device, options.workers, options.batch)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA GPU here")
    if (options.raw is None) != (options.shards is None):
        parser.error("--raw and --shards belong together")
    if options.real is not None and (options.raw is not None or options.stages or options.ours_alone):
        parser.error("--real is in place of miniatures: without --raw, --shards, --stages and --ours-alone")
    if options.stages and options.ours_alone:
        parser.error("--stages and --ours-alone are two comparisons; give one of them")
    if min(options.images, options.seeds, options.jobs, options.batch) < 1:
        parser.error("--images, --seeds, --jobs and --batch are 1 or more")
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends its runs
    busy = CompareError(f"{options.out}: another comparison is at work there; wait for it, or give another --out")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with only_one(options.out / ".lock", busy):
            verdict = _compare(options, setting)
    except HodataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    for goal in verdict:
        _say(f"{'met   ' if goal.met else 'MISSED'} {goal.what}: {goal.measured}; needed {goal.needed}")
    minutes = (time.monotonic() - began) / 60
    _say(f"{options.out}: pages and pictures; {minutes:.0f} min in this call")
    return 0 if all(goal.met for goal in verdict) else 1


def _compare(options: argparse.Namespace, setting: Setting) -> list[Goal]:
    if options.real is not None:
        course = Course.open(options.real, options.out, options.images, options.jobs, setting, EXTENT)
        return compare_real(course, options.seeds, _conditions(course, options.seeds, "real pictures"), _say)
    if options.stages:
        course = Course.open(_miniatures(options).shards, options.out, options.images // 2, options.jobs, setting)
        return compare_stages(course, options.seeds, _conditions(course, options.seeds, "miniatures"), _say)
    return _of_miniatures(options, setting)


def _conditions(course: Course, seeds: int, pictures: str) -> list[str]:
    setting = course.setting
    where = torch.cuda.get_device_name() if setting.device == "cuda" else "CPU"
    return [
        f"{setting.run_images(course.images):,} images of {pictures} a run, {setting.model} from random weights at "
        f"{setting.side} pixels in {setting.precision} on {where}, batches of {setting.batch}, paired seeds: {seeds}, "
        f"the best of {EPOCHS} validations.",
        f"{os.cpu_count()} processors, {course.jobs} runs at a time, torch {torch.__version__}.",
    ]


def _miniatures(options: argparse.Namespace) -> Drawn:
    return make(options.out, _say) if options.raw is None else Drawn("", options.raw, options.shards)


def _of_miniatures(options: argparse.Namespace, setting: Setting) -> list[Goal]:
    out, seeds, jobs = options.out, options.seeds, options.jobs
    drawn = _miniatures(options)
    # Whoever brings miniatures has chosen what to score on.
    sets = [drawn] if options.raw is not None else [drawn, *make_further(out, _say)]
    course = Course.open(drawn.shards, out, options.images, jobs, setting)
    recipes = {AS_DRAWN: OUR_RECIPES["as-drawn"], IGNORE: OUR_RECIPES["ignore"], OURS: OUR_RECIPES["sets"]}
    tuning: dict[str, float] = {}
    best = ""
    if options.ours_alone:
        course.train(our_runs(seeds), "hand-object", _say)
    else:
        tuning = course.train_tuned(first_runs(seeds), seeds, "hand-object", _say)
        best = best_rate(tuning)
        recipes = {PUBLISHED: PUBLISHED_RECIPE, TUNED: reference(best), **recipes}

    folders = {row: [course.folder(Run(recipe, seed)) for seed in range(seeds)] for row, recipe in recipes.items()}
    _score(sorted({folder for own in folders.values() for folder in own}), sets, jobs, setting.device)
    scores = {row: [read_scores(folder, sets) for folder in own] for row, own in folders.items()}
    results = Results(Pictures.of({one.name: ShardIndex.open(one.shards) for one in sets}), scores)

    verdict = [*([] if options.ours_alone else reference_goals(results)), *label_goals(results)]
    conditions = [*_conditions(course, seeds, "miniatures"), f"Scored on the split test of {len(sets)} sets of them."]
    (out / "report.md").write_text(report(results, verdict, tuning, best, conditions))
    whole = {
        "images": setting.run_images(options.images),
        "seeds": seeds,
        "tuning": tuning,
        "best_rate": best,
    }
    whole |= {"goals": [goal.to_json() for goal in verdict], **results.to_json()}
    (out / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    beside = ("arms merged", AS_DRAWN) if options.ours_alone else ("reference, tuned", TUNED)
    shown = {beside[0]: folders[beside[1]][0], "ours": folders[OURS][0]}
    answers = _sheet(course.index, shown, drawn.raw, setting.device)
    save_picture(figure.below(figure.charts(results), answers), out / "compare.png")
    return verdict


def _score(folders: Sequence[Path], sets: Sequence[Drawn], jobs: int, device: str) -> None:
    os.environ["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // jobs, 1))  # for the processes below
    todo = [(folder, drawn, device) for folder in folders for drawn in sets]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for number, path in enumerate(pool.map(score_run, *zip(*todo, strict=True))):
            _say(f"scored {number + 1} of {len(todo)}: {path.parent.name}")


def _sheet(index: ShardIndex, runs: Mapping[str, Path], raw: Path, device: str) -> Image:
    rows = spread_rows(index, index.select(split="test"), figure.PICTURES)
    truth = FullTruth(index, raw)
    answers = {}
    for title, run in runs.items():
        maps = answers_of_run(index, np.array(rows), run, "wrist", device)
        answers[title] = [maps[row] for row in rows]
    return figure.sheet(read_images(index, rows), [truth.mask(row) for row in rows], answers, TASK)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
