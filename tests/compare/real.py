"""Hands of real pictures: the reference's recipe with its learning rate tuned against ours, scored with their arms."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compare import figure
from compare.course import Course
from compare.goals import Goal
from compare.report import goal_table, rate_words, table
from compare.rows import OURS_ANYWHERE, RATES, Run, best_rate, reference
from compare.score import answers_of_run, count, read_images
from hodata.labels import TASKS
from hotrain.evaluate import StoredTruth, scored_rows, source_extents
from hotrain.pictures import save_picture
from hotrain.scoring.figures import Figures
from hotrain.sheets import spread_rows

TASK = TASKS["hand"]
EXTENT = "arm"
MEASURES = {"hand IoU": "kinds.hand", "hand boundary": "boundary_iou.hand", "accuracy": "accuracy"}
MUST_WIN = ("hand IoU", "hand boundary")


def compare_real(course: Course, seeds: int, conditions: Sequence[str], say: Callable[[str], None]) -> list[Goal]:
    """Train and score both rows; writes report.md, results.json, compare.png and, without pictures, answers.png.

    Raises:
        CompareError: a run failed.
    """
    first = [Run(reference(rate), 0) for rate in RATES] + [Run(OURS_ANYWHERE, seed) for seed in range(seeds)]
    truth = StoredTruth(course.index)
    rows, left_out = scored_rows(course.index, course.index.select(split="test"), truth)
    for source, samples in left_out.items():
        say(f"{source}: {samples} test pictures have no ground truth to score against and are left out")
    tuning = course.train_tuned(first, seeds, "hand", say)
    best = best_rate(tuning)
    shown = spread_rows(course.index, rows, figure.PICTURES)
    scores: dict[str, list[NDArray[np.int64]]] = {}
    of_rows: dict[str, list[NDArray[np.uint8]]] = {}  # of seed 0
    for title, recipe in ((f"reference, lr tuned: {best}", reference(best)), ("ours", OURS_ANYWHERE)):
        scores[title] = []
        for seed in range(seeds):
            folder = course.folder(Run(recipe, seed))
            answers = answers_of_run(course.index, rows, folder, EXTENT, course.setting.device)
            scores[title].append(count(course.index, rows, TASK, answers, EXTENT))
            of_rows.setdefault(title, [answers[row] for row in shown])
        say(f"scored: {title}")
    extents = source_extents(course.index, rows, TASK, truth, EXTENT)
    conditions = [*conditions, f"Hands end at: {', '.join(f'{name} {extent}' for name, extent in extents.items())}."]
    found = {title: _values(own) for title, own in scores.items()}
    verdict = goals(*found.values())
    groups = course.index.column("group")[rows]
    by_group = {
        title: {group: _values([each[groups == group] for each in own]) for group in sorted(set(groups.tolist()))}
        for title, own in scores.items()
    }
    (course.out / "report.md").write_text(report(found, by_group, verdict, tuning, conditions))
    whole: dict[str, Any] = {"tuning": tuning, "best_rate": best, "rows": found, "by_group": by_group}
    whole["goals"] = [goal.to_json() for goal in verdict]
    (course.out / "results.json").write_text(json.dumps(_without_nan(whole), indent=1, allow_nan=False) + "\n")
    pictures = figure.sheet(read_images(course.index, shown), [truth.mask(row) for row in shown], of_rows, TASK)
    save_picture(pictures, course.out / "compare.png")
    places = [rows.tolist().index(row) for row in shown]
    values = {title: [_values([own[0][[place]]])["hand IoU"][0] for place in places] for title, own in scores.items()}
    save_picture(figure.silhouettes(of_rows, values), course.out / "answers.png")
    return verdict


def goals(reference_row: Mapping[str, Sequence[float]], ours: Mapping[str, Sequence[float]]) -> list[Goal]:
    """Ours must be above the reference by more than the values of either row lie apart over its seeds, two or more.

    Args:
        reference_row, ours: measure -> value of each seed.
    """
    verdict = []
    for measure in MUST_WIN:
        ahead = float(np.mean(ours[measure]) - np.mean(reference_row[measure]))
        spread = max(float(np.ptp(row[measure])) for row in (reference_row, ours))
        what = f"{measure}, ours - tuned reference"
        known = len(ours[measure]) > 1
        needed = f"more than {100 * spread:.1f}, the spread" if known else "more than the spread of two seeds or more"
        verdict.append(Goal(what, needed, f"{100 * ahead:+.1f}", known and ahead > spread))
    return verdict


def report(
    found: Mapping[str, Mapping[str, Sequence[float]]],
    by_group: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    verdict: Sequence[Goal],
    tuning: Mapping[str, float],
    conditions: Sequence[str],
) -> str:
    """The page: row -> measure -> values over seeds, and the same for each recording."""
    recordings = list(next(iter(by_group.values())))
    lines = [[title, *(_shown(by_group[title][group]["hand IoU"]) for group in recordings)] for title in by_group]
    parts = [
        "# The reference project's recipe and ours on real pictures",
        " ".join(conditions),
        "Per cent over all test pixels, hands with their arms where the masks tell: mean over seeds, in brackets each "
        "of them.",
        goal_table(verdict),
        table(["", *MEASURES], [[title, *(_shown(row[m]) for m in MEASURES)] for title, row in found.items()]),
        rate_words(tuning, "hand IoU"),
        "Hand IoU of each recording:\n\n" + table(["", *recordings], lines),
        "![image, truth, tuned reference, ours](compare.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _without_nan(found: Any) -> Any:
    """JSON has no NaN; what a recording does not show is null."""
    if isinstance(found, dict):
        return {name: _without_nan(value) for name, value in found.items()}
    if isinstance(found, list):
        return [_without_nan(value) for value in found]
    return None if isinstance(found, float) and np.isnan(found) else found


def _shown(values: Sequence[float]) -> str:
    if np.isnan(values).all():
        return "n/a"
    return f"{100 * float(np.mean(values)):.1f} ({', '.join(f'{100 * value:.1f}' for value in values)})"


def _values(counts: Sequence[NDArray[np.int64]]) -> dict[str, list[float]]:
    """Measure -> value of each seed, of counts int64 [N, F, 3]."""
    figures = Figures(TASK)
    values = [dict(zip(figures.names, figures.values(each.sum(0)).tolist(), strict=True)) for each in counts]
    return {title: [each[name] for each in values] for title, name in MEASURES.items()}
