"""Whether hands fall when objects are learnt: stage 2 with objects against the same stage 2 of hands alone.

Both go on from one stage 1 of the same seed, by the same recipe, and see the same number of images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compare.course import Course
from compare.goals import Goal, shown
from compare.paired import Counts, Estimate, differences, estimates
from compare.report import goal_table, percent, table
from compare.rows import OUR_SHARES, OURS, Recipe, Run
from compare.score import answers_of_run, count
from hodata.labels import TASKS
from hotrain.scoring.figures import FINGERTIPS, Figures

STAGE_1, HANDS, OBJECTS = "stage 1: hands", "stage 2: hands alone", "stage 2: hands and objects"
TASK_OF = {STAGE_1: "hand", HANDS: "hand", OBJECTS: "hand-object"}
MEASURES = {"hand IoU": "kinds.hand", "hand boundary": "boundary_iou.hand", "fingertip recall": FINGERTIPS}
_FIGURES = Figures(TASKS["hand"])


def compare_stages(course: Course, seeds: int, conditions: Sequence[str], say: Callable[[str], None]) -> list[Goal]:
    """Train and score the three rows; writes stages.md and stages.json.

    Args:
        course: whose images are those of one stage.
        seeds: of each row.
        conditions: sentences for the page.
        say: to people.

    Raises:
        CompareError: a run failed.
    """
    first = [Run(stage(STAGE_1, course, seed), seed) for seed in range(seeds)]
    course.train(first, "hand", say)
    for row in (HANDS, OBJECTS):
        course.train([Run(stage(row, course, seed), seed) for seed in range(seeds)], TASK_OF[row], say)
    rows = course.index.select(split="test")
    counts = {}
    for row in TASK_OF:
        counts[row] = [_counts(course, Run(stage(row, course, seed), seed), row, rows) for seed in range(seeds)]
        say(f"scored: {row}")
    groups = course.index.column("group")[rows]
    values = {row: _of_hands(estimates(_FIGURES, own, groups)) for row, own in counts.items()}
    ahead = {row: _of_hands(differences(_FIGURES, counts[row], counts[OBJECTS], groups)) for row in (STAGE_1, HANDS)}
    verdict = goals(ahead)
    (course.out / "stages.md").write_text(report(values, ahead, verdict, conditions))
    whole = {
        "rows": {row: {name: one.to_json() for name, one in found.items()} for row, found in values.items()},
        "differences": {
            f"{OBJECTS} - {row}": {name: one.to_json() for name, one in found.items()} for row, found in ahead.items()
        },
        "goals": [goal.to_json() for goal in verdict],
    }
    (course.out / "stages.json").write_text(json.dumps(whole, indent=1) + "\n")
    return verdict


def stage(row: str, course: Course, seed: int) -> Recipe:
    """The recipe of a row; stage 2 starts from stage 1 of the same seed."""
    if row == STAGE_1:
        return Recipe("hands-first", str(OURS), OUR_SHARES)
    start = course.folder(Run(stage(STAGE_1, course, seed), seed))
    return Recipe("hands" if row == HANDS else "objects", str(OURS), (*OUR_SHARES, "--init", str(start)))


def goals(ahead: Mapping[str, Mapping[str, Estimate]]) -> list[Goal]:
    """Hands must not fall below stage 1's, and not surely below those of a stage 2 that learnt nothing else."""
    verdict = []
    for measure in MEASURES:
        for row, found in ahead.items():
            one = found[measure]
            met = one.value is not None and one.value >= 0
            if row == HANDS and one.interval is not None:
                met = met or one.interval[1] >= 0
            needed = "not below 0" if row == STAGE_1 else "not surely below 0"
            verdict.append(Goal(f"{measure}: {OBJECTS} - {row}", needed, shown(one), met))
    return verdict


def report(
    values: Mapping[str, Mapping[str, Estimate]],
    ahead: Mapping[str, Mapping[str, Estimate]],
    verdict: Sequence[Goal],
    conditions: Sequence[str],
) -> str:
    """The page."""
    return (
        "\n\n".join(
            [
                "# Hands, when objects are learnt",
                " ".join(conditions),
                "Per cent over all test pixels, each source at the extent that its masks decide, means over seeds; in "
                "brackets 95 % intervals over recordings and seeds. Each row's checkpoint is the best on validation by "
                "what the row learns: hands, or hands and objects. Stage 1 begins with random weights, stage 2 with "
                "stage 1's.",
                goal_table(verdict),
                table(
                    ["", *MEASURES],
                    [
                        *([row, *(percent(found[m]) for m in MEASURES)] for row, found in values.items()),
                        *([f"with objects - {row}", *(shown(d[m]) for m in MEASURES)] for row, d in ahead.items()),
                    ],
                ),
            ]
        )
        + "\n"
    )


def _counts(course: Course, run: Run, row: str, rows: NDArray[np.int64]) -> Counts:
    """int64 [N, F, 3] of the figures of task `hand`, over the same pixels in every row: an object is no hand."""
    hand, learnt = TASKS["hand"], TASKS[TASK_OF[row]]
    maps = answers_of_run(course.index, rows, course.folder(run), "wrist", course.setting.device)
    class_ids = np.array([hand.classes.index(name) if name in hand.classes else 0 for name in learnt.classes])
    table = class_ids.astype(np.uint8)
    return count(course.index, rows, hand, {place: table[answer] for place, answer in maps.items()}, "wrist")


def _of_hands(found: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Those of `MEASURES`, by title: what `_FIGURES` has besides is not the same in every task."""
    return {title: found[name] for title, name in MEASURES.items()}
