"""Hands of real pictures: the reference's recipe with its learning rate tuned against ours, scored with their arms."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compare import figure
from compare.course import Course
from compare.goals import Goal
from compare.report import goal_table, rate_words, table
from compare.rows import OURS_ANYWHERE, RATES, Run, best_rate, reference
from compare.score import answers_of_run, count, read_images
from hodata.labels import TASKS
from hotrain.evaluate import StoredTruth
from hotrain.pictures import save_picture
from hotrain.scoring.figures import Figures
from hotrain.sheets import spread_rows

TASK = TASKS["hand"]
MEASURES = {"hand IoU": "kinds.hand", "hand boundary": "boundary_iou.hand", "accuracy": "accuracy"}
MUST_WIN = ("hand IoU", "hand boundary")


def compare_real(course: Course, seeds: int, conditions: Sequence[str], say: Callable[[str], None]) -> list[Goal]:
    """Train and score both rows; writes report.md, results.json, compare.png and, without pictures, answers.png.

    Raises:
        CompareError: a run failed.
    """
    first = [Run(reference(rate), 0) for rate in RATES] + [Run(OURS_ANYWHERE, seed) for seed in range(seeds)]
    tuning = course.train_tuned(first, seeds, "hand", say)
    best = best_rate(tuning)
    rows = course.index.select(split="test")
    device = course.setting.device
    answers: dict[str, list[dict[int, NDArray[np.uint8]]]] = {}
    for title, recipe in ((f"reference, lr tuned: {best}", reference(best)), ("ours", OURS_ANYWHERE)):
        folders = [course.folder(Run(recipe, seed)) for seed in range(seeds)]
        answers[title] = [answers_of_run(course.index, rows, folder, "arm", device) for folder in folders]
        say(f"answered: {title}")
    scores = {title: [count(course.index, rows, TASK, maps, "arm") for maps in own] for title, own in answers.items()}
    found = {title: _values(own) for title, own in scores.items()}
    verdict = goals(*found.values())
    groups = course.index.column("group")[rows]
    by_group = {
        title: {group: _values([each[groups == group] for each in own]) for group in sorted(set(groups.tolist()))}
        for title, own in scores.items()
    }
    (course.out / "report.md").write_text(report(found, by_group, verdict, tuning, conditions))
    whole = {"tuning": tuning, "best_rate": best, "rows": found, "by_group": by_group}
    whole["goals"] = [goal.to_json() for goal in verdict]
    (course.out / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    shown = spread_rows(course.index, rows, figure.PICTURES)
    of_rows = {title: [own[0][row] for row in shown] for title, own in answers.items()}
    truth = StoredTruth(course.index)
    pictures = figure.sheet(read_images(course.index, shown), [truth.mask(row) for row in shown], of_rows, TASK)
    save_picture(pictures, course.out / "compare.png")
    places = [rows.tolist().index(row) for row in shown]
    values = {title: [_values([own[0][[place]]])["hand IoU"][0] for place in places] for title, own in scores.items()}
    save_picture(figure.silhouettes(of_rows, values), course.out / "answers.png")
    return verdict


def goals(reference_row: Mapping[str, Sequence[float]], ours: Mapping[str, Sequence[float]]) -> list[Goal]:
    """Ours must be above the reference by more than the values of either row lie apart over its seeds.

    Args:
        reference_row, ours: measure -> value of each seed.
    """
    verdict = []
    for measure in MUST_WIN:
        ahead = float(np.mean(ours[measure]) - np.mean(reference_row[measure]))
        spread = max(float(np.ptp(row[measure])) for row in (reference_row, ours))
        what = f"{measure}, ours - tuned reference"
        verdict.append(Goal(what, f"more than {100 * spread:.1f}, the spread", f"{100 * ahead:+.1f}", ahead > spread))
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
        "Per cent over all test pixels, hands with their arms: mean over seeds, in brackets each of them.",
        goal_table(verdict),
        table(["", *MEASURES], [[title, *(_shown(row[m]) for m in MEASURES)] for title, row in found.items()]),
        rate_words(tuning, "hand IoU"),
        "Hand IoU of each recording:\n\n" + table(["", *recordings], lines),
        "![image, truth, tuned reference, ours](compare.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _shown(values: Sequence[float]) -> str:
    return f"{100 * float(np.mean(values)):.1f} ({', '.join(f'{100 * value:.1f}' for value in values)})"


def _values(counts: Sequence[NDArray[np.int64]]) -> dict[str, list[float]]:
    """Measure -> value of each seed, of counts int64 [N, F, 3]."""
    figures = Figures(TASK)
    values = [dict(zip(figures.names, figures.values(each.sum(0)).tolist(), strict=True)) for each in counts]
    return {title: [each[name] for each in values] for title, name in MEASURES.items()}
