"""compare/report.md: the verdict and the tables, aligned, and results.json with every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compare.goals import Goal, shown
from compare.paired import Estimate
from compare.results import (
    ARMS,
    AS_DRAWN,
    FLOOD,
    FLOOD_OBJECT,
    FLOOD_TRUTH,
    FLOOD_WRONG,
    FLOODING,
    HAND_ARM,
    HAND_IOU,
    HAND_WRIST,
    IGNORE,
    OBJECT_IOU,
    OBJECT_TRUTH,
    OURS,
    PUBLISHED,
    SCORES,
    TIPS,
    TUNED,
    Measure,
    Results,
)
from compare.rows import best_rate


def report(
    results: Results, verdict: Sequence[Goal], tuning: Mapping[str, float], best: str, conditions: Sequence[str]
) -> str:
    """The page.

    Args:
        results: of every row, or of ours alone.
        verdict: of `goals`.
        tuning: learning rate of the reference -> Jaccard on validation; empty for ours alone.
        best: the rate of the tuned row; empty for ours alone.
        conditions: sentences: what ran on what.
    """
    titles = {PUBLISHED: "reference, as published", TUNED: f"reference, lr tuned: {best}", OURS: "ours"}
    all_rows = {**titles, AS_DRAWN: "ours, as-drawn", IGNORE: "ours, ignore"}
    missed = sum(not goal.met for goal in verdict)
    sources = ", ".join(f"{n} {results.samples[n]} ({results.groups[n]} recordings)" for n in results.sources)
    seeds = len(next(iter(results.scores.values())))
    over = "recordings and seeds" if seeds > 1 else "recordings alone, of one seed"
    parts = [
        "# The reference project's recipe and ours" if tuning else "# Our recipe, by what open labels teach",
        " ".join(conditions),
        f"Test pictures: {sources}. Figures are per cent over all test pixels, means over seeds; in brackets 95 % "
        f"intervals over {over}. Hand and object IoU, boundary and fingertips are against the stored "
        "masks, each source at the extent that they decide; what names an extent is against the miniatures' full "
        "truth.",
        f"## Goals: {'all met' if not missed else f'{missed} of {len(verdict)} missed'}\n\n{goal_table(verdict)}",
        *(
            _beside_reference(results, titles, tuning)
            if tuning
            else ["## Ours\n\n" + _of_rows(results, titles, SCORES)]
        ),
        "## Hand-only sources: what their background teaches\n\nOur recipe but for `--open-labels`.\n\n"
        + _of_rows(
            results,
            {AS_DRAWN: "background", IGNORE: "nothing", OURS: "background, arm or object (ours)"},
            (OBJECT_IOU, HAND_IOU, FLOOD_OBJECT),
        ),
        *(
            f"{what} IoU against the full truth, of each source:\n\n" + _of_sources(results, all_rows, measure)
            for what, measure in (("Object", OBJECT_TRUTH), ("Hand", HAND_WRIST))
        ),
        "## Arms\n\nThe same runs by what an EgoHOS arm teaches; they also differ in what the backgrounds of hand-only "
        "masks teach, as above.\n\n"
        + _of_rows(
            results,
            {AS_DRAWN: "hand (merged)", IGNORE: "nothing (EgoHOS hands dropped)", OURS: "hand or arm (ours)"},
            (HAND_WRIST, HAND_ARM, TIPS, ARMS),
        ),
        "## Flooding\n\nHand-only pictures, of the pixels that their masks draw as background.\n\n"
        + _of_rows(
            results,
            all_rows,
            (FLOOD, FLOOD_TRUTH, FLOOD_WRONG, FLOOD_OBJECT),
        ),
        *(
            f"{name} alone:\n\n" + _of_rows(results, all_rows, [replace(one, source=name) for one in FLOODING])
            for name in results.hand_only
        ),
        "## Pictures\n\n![figures with intervals; image, truth, two rows' answers](compare.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _beside_reference(results: Results, titles: Mapping[str, str], tuning: Mapping[str, float]) -> list[str]:
    return [
        "## Reference and ours\n\n" + _of_rows(results, titles, SCORES),
        "Ours - tuned reference, in points:\n\n"
        + table(
            ["", *(measure.title for measure in SCORES)],
            [["difference", *(shown(results.difference(TUNED, OURS, measure)) for measure in SCORES)]],
        ),
        rate_words(tuning, "the mean IoU of hand and object"),
    ]


def _of_rows(results: Results, titles: Mapping[str, str], measures: Sequence[Measure]) -> str:
    lines = [
        [title, *(percent(results.value(row, measure)) for measure in measures)]
        for row, title in titles.items()
        if row in results.scores
    ]
    return table(["", *(measure.title for measure in measures)], lines)


def _of_sources(results: Results, titles: Mapping[str, str], measure: Measure) -> str:
    """A figure over all pictures and of each source, and how far ours is ahead."""
    of_each = [measure, *(replace(measure, source=name) for name in results.sources)]
    lines = [
        [
            title,
            *(percent(results.value(row, one)) for one in of_each),
            "" if row == OURS else shown(results.difference(row, OURS, measure)),
        ]
        for row, title in titles.items()
        if row in results.scores
    ]
    return table(["", "all", *results.sources, "ours - this one"], lines)


def goal_table(verdict: Sequence[Goal]) -> str:
    """Every goal with what was measured."""
    lines = [[goal.what, goal.needed, goal.measured, "met" if goal.met else "**missed**"] for goal in verdict]
    return table(["goal", "needed", "measured", ""], lines)


def rate_words(tuning: Mapping[str, float], figure: str) -> str:
    """What each learning rate of the reference scored on validation."""
    scored = ", ".join(f"{rate}: {100 * value:.1f}" for rate, value in tuning.items())
    best = best_rate(tuning)
    edge = (
        f" The best is at the edge of those tried, {best}."
        if best in (min(tuning, key=float), max(tuning, key=float))
        else ""
    )
    return f"The reference's learning rate, by {figure} on validation, seed 0: {scored}.{edge}"


def percent(found: Estimate) -> str:
    """A figure in per cent with its interval."""
    if found.value is None:
        return "n/a"
    limits = f" ({100 * found.interval[0]:.1f} to {100 * found.interval[1]:.1f})" if found.interval else ""
    return f"{100 * found.value:.1f}{limits}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned in a terminal too."""
    cells = [list(head), *(list(line) for line in lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    shown_lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([shown_lines[0], rule, *shown_lines[1:]])
