"""Hands of real pictures: the reference's recipe with its learning rate tuned against ours, scored with their arms."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from compare import figure
from compare.course import Course
from compare.goals import Goal
from compare.report import table
from compare.rows import OURS_ANYWHERE, RATES, Recipe, Run, best_rate, reference
from compare.score import Answers, answer_rows, read_images
from hodata.labels import TASKS
from hotrain.checkpoint import find
from hotrain.evaluate import StoredTruth, evaluate
from hotrain.pictures import save_picture
from hotrain.predict import load_predictor
from hotrain.scoring.figures import Figures
from hotrain.sheets import spread_rows

if TYPE_CHECKING:
    from PIL.Image import Image

    from hodata.shards.reader import ShardIndex

TASK = TASKS["hand"]
MEASURES = {"hand IoU": "kinds.hand", "hand boundary": "boundary_iou.hand", "accuracy": "accuracy"}
MUST_WIN = ("hand IoU", "hand boundary")
_PICTURES = 8


def compare_real(course: Course, seeds: int, conditions: Sequence[str], say: Callable[[str], None]) -> list[Goal]:
    """Train and score both rows; writes report.md, results.json, compare.png and, without pictures, answers.png.

    Raises:
        CompareError: a run failed.
    """
    first = [Run(reference(rate), 0) for rate in RATES] + [Run(OURS_ANYWHERE, seed) for seed in range(seeds)]
    tuning = course.train_tuned(first, seeds, "hand", say)
    best = best_rate(tuning)
    rows = course.index.select(split="test")
    answers: dict[str, list[dict[int, NDArray[np.uint8]]]] = {}
    for title, recipe in ((f"reference, lr tuned: {best}", reference(best)), ("ours", OURS_ANYWHERE)):
        answers[title] = [_answers(course, recipe, seed, rows) for seed in range(seeds)]
        say(f"scored: {title}")
    scores = {title: [count(course.index, rows, maps) for maps in own] for title, own in answers.items()}
    found = {title: _values(own) for title, own in scores.items()}
    verdict = goals(*found.values())
    groups = course.index.column("group")[rows]
    by_group = {
        title: {group: _values([each[groups == group] for each in own]) for group in sorted(set(groups.tolist()))}
        for title, own in scores.items()
    }
    (course.out / "report.md").write_text(report(found, by_group, verdict, tuning, conditions))
    whole = {"tuning": tuning, "best_rate": best, "rows": found, "by_group": by_group}
    whole["goals"] = [asdict(goal) for goal in verdict]
    (course.out / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    shown = spread_rows(course.index, rows, _PICTURES)
    of_rows = {title: [own[0][row] for row in shown] for title, own in answers.items()}
    truth = StoredTruth(course.index)
    pictures = figure.sheet(read_images(course.index, shown), [truth.mask(row) for row in shown], of_rows, TASK)
    save_picture(pictures, course.out / "compare.png")
    places = [rows.tolist().index(row) for row in shown]
    values = {title: [_values([own[0][[place]]])["hand IoU"][0] for place in places] for title, own in scores.items()}
    save_picture(silhouettes(of_rows, values), course.out / "answers.png")
    return verdict


def count(index: ShardIndex, rows: NDArray[np.int64], maps: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.int64]:
    """int64 [N, F, 3] of `Figures`, of answers (row -> class ids uint8 [H, W]) against the stored masks; with arms."""
    details = evaluate(
        index, rows, TASK, Answers(dict(maps)), extent="arm", truth=StoredTruth(index), details=True
    ).details
    assert details is not None and np.array_equal(details.rows, rows)
    return details.values


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


def silhouettes(answers: Mapping[str, Sequence[NDArray[np.uint8]]], values: Mapping[str, Sequence[float]]) -> Image:
    """What the models answer without the pictures, which often may not be passed on: a line for each model.

    Args:
        answers: title -> class ids uint8 [H, W] of the same pictures.
        values: title -> IoU of each.
    """
    from PIL import Image, ImageDraw, ImageFont

    small, gap, side = ImageFont.load_default(12), 6, figure.HEIGHT
    height = side + 44
    lines = [
        [Image.fromarray(np.where(answer > 0, 235, 60).astype(np.uint8)) for answer in own] for own in answers.values()
    ]
    wide = max(round(one.width * side / one.height) for line in lines for one in line)
    picture = Image.new("RGB", (gap + (wide + gap) * len(lines[0]), height * len(lines)), figure.PAPER)
    draw = ImageDraw.Draw(picture)
    for number, (title, line) in enumerate(zip(answers, lines, strict=True)):
        draw.text((gap, height * number + 4), title, figure.INK, small)
        for place, (one, value) in enumerate(zip(line, values[title], strict=True)):
            x, y = gap + (wide + gap) * place, height * number + 22
            picture.paste(one.resize((round(one.width * side / one.height), side)), (x, y))
            draw.text((x, y + side + 2), f"IoU {100 * value:.0f}", figure.INK, small)
    return picture


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
        table(["goal", "needed", "measured", ""], [[*_goal(goal)] for goal in verdict]),
        table(["", *MEASURES], [[title, *(_shown(row[m]) for m in MEASURES)] for title, row in found.items()]),
        "The reference's learning rate, by hand IoU on validation, seed 0: "
        + ", ".join(f"{rate}: {100 * value:.1f}" for rate, value in tuning.items())
        + ".",
        "Hand IoU of each recording:\n\n" + table(["", *recordings], lines),
        "![image, truth, tuned reference, ours](compare.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _goal(goal: Goal) -> tuple[str, str, str, str]:
    return goal.what, goal.needed, goal.measured, "met" if goal.met else "**missed**"


def _shown(values: Sequence[float]) -> str:
    return f"{100 * float(np.mean(values)):.1f} ({', '.join(f'{100 * value:.1f}' for value in values)})"


def _values(counts: Sequence[NDArray[np.int64]]) -> dict[str, list[float]]:
    """Measure -> value of each seed, of counts int64 [N, F, 3]."""
    figures = Figures(TASK)
    values = [dict(zip(figures.names, figures.values(each.sum(0)).tolist(), strict=True)) for each in counts]
    return {title: [each[name] for each in values] for title, name in MEASURES.items()}


def _answers(course: Course, recipe: Recipe, seed: int, rows: NDArray[np.int64]) -> dict[int, NDArray[np.uint8]]:
    predictor = load_predictor(find(course.folder(Run(recipe, seed))), torch.device("cpu"))
    return answer_rows(course.index, rows, predictor)
