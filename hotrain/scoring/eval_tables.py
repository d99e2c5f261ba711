"""Evaluations as text: tables that fit into 100 columns."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hodata.report.tables import plain
from hodata.terminal import plain as plain_line
from hotrain.scoring.figures import FINGERTIPS, WITHOUT_WRIST
from hotrain.scoring.intervals import LEAST_GROUPS, Spread
from hotrain.scoring.metrics import figure_text

if TYPE_CHECKING:
    from rich.console import Console

    from hotrain.scoring.calibration import Calibration
    from hotrain.scoring.comparison import Comparison, Difference
    from hotrain.scoring.metrics import Report, Scores
    from hotrain.scoring.scorecard import Scorecard

COLUMNS = {
    "kinds.hand": "hand IoU",
    "kinds.object": "object IoU",
    "accuracy": "accuracy",
    "boundary_iou.hand": "hand boundary",
    "boundary_iou.object": "object boundary",
    FINGERTIPS: "finger tips",
    WITHOUT_WRIST: "hand no wrist",
}
_LISTED = ("kinds.hand", "kinds.object")


def print_scores(report: Report, card: Scorecard, by_color: Report | None, split: str) -> None:
    """A line of figures for each source, and the intervals below it; figures that no source has are left out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=f"split {split}", box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("source", overflow="fold")
    shown = [name for name in COLUMNS if card.pooled.value.get(name) is not None]
    for name in shown:
        table.add_column(COLUMNS[name], justify="right", width=9)
    lines = [*((name, scores, card.by_source[name]) for name, scores in report.by_source.items())]
    lines.append(("all", report.pooled, card.pooled))
    for name, scores, spread in lines:
        table.add_row(plain(name), *(figure_text(spread.value[one]) for one in shown))
        groups = "1 group" if spread.groups == 1 else f"{spread.groups} groups"
        about = f"  {scores.samples} images, {groups}, {scores.extent}"
        table.add_row(about, *(_interval(spread.interval.get(one)) for one in shown), style="dim")
        if by_color is not None:
            other = by_color.pooled if scores is report.pooled else by_color.by_source[name]
            table.add_row("  colour histogram", *(_of_scores(other, one) for one in shown), style="dim")
    console = _console()
    console.print(table)
    console.print(
        "below each figure: 95 % interval over groups; extent: where a hand ends; n/a: the truth has none", style="dim"
    )
    for name, _, spread in lines[:-1]:
        for line in _by_group(name, spread):
            console.print(plain_line(line), highlight=False, markup=False)


def print_comparison(found: Comparison, names: tuple[str, str], split: str) -> None:
    """A line for each source and figure: both values, and the difference with its interval."""
    from rich.table import Table

    table = Table(title=f"A: {plain(names[0])}\nB: {plain(names[1])}\nsplit {split}", title_justify="left")
    for name in ("source", "figure"):
        table.add_column(name, overflow="fold")
    for name in ("A", "B", "B - A", "95 % interval"):
        table.add_column(name, justify="right")
    groups: list[tuple[str, Mapping[str, Difference]]] = [*found.by_source.items()]
    if len(groups) > 1:
        groups.append(("all", found.pooled))
    for source, figures in groups:
        shown = plain(source)
        for name, one in figures.items():
            same = name.startswith("kinds.") and f"iou.{name[6:]}" in figures
            if one.difference is None or same:
                continue
            interval = "too few groups" if one.interval is None else "{:+.3f} to {:+.3f}".format(*one.interval)
            sure = one.interval is not None and (one.interval[0] > 0 or one.interval[1] < 0)
            row = (figure_text(one.a), figure_text(one.b), f"{one.difference:+.3f}", interval)
            table.add_row(shown, name, *row, style="bold" if sure else None)
            shown = ""
        table.add_section()
    console = _console()
    console.print(table)
    console.print(
        f"{found.samples} samples in {found.groups} groups; paired bootstrap over groups; bold: interval without 0",
        style="dim",
        highlight=False,
    )


def print_calibration(found: Calibration, place: str) -> None:
    """The temperature, what it did, and the reliability table."""
    from rich.table import Table

    table = Table(title=f"temperature {found.temperature:.4f}")
    for name in ("confidence", "pixels", "right at temperature 1", "pixels", "right when calibrated"):
        table.add_column(name, justify="right")
    for before, after in zip(found.before.bins, found.after.bins, strict=True):
        if before.pixels or after.pixels:
            cells = [f"{before.low:.2f} - {before.high:.2f}"]
            for one in (before, after):
                cells += [f"{one.pixels:,}", f"{one.accuracy:.3f}" if one.pixels else "-"]
            table.add_row(*cells)
    console = _console()
    console.print(table)
    console.print(
        f"calibration error (ECE) {100 * found.before.ece:.2f} % -> {100 * found.after.ece:.2f} %, negative log "
        f"likelihood {found.before.nll:.4f} -> {found.after.nll:.4f}; stored in {place}",
        highlight=False,
        markup=False,
    )


def _by_group(source: str, spread: Spread) -> list[str]:
    lines = []
    for name in _LISTED:
        if values := spread.by_group.get(name):
            listed = ", ".join(f"{group} {value:.3f}" for group, value in values.items())
            lines.append(f"{source}, {COLUMNS[name]} of each group (fewer than {LEAST_GROUPS}): {listed}")
    return lines


def _of_scores(scores: Scores, name: str) -> str:
    if name == "accuracy":
        return figure_text(scores.accuracy)
    kind = name.removeprefix("kinds.")
    return figure_text(scores.kinds.get(kind)) if kind != name else ""


def _interval(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else "{:.2f}-{:.2f}".format(*limits)


def _console() -> Console:
    from rich.console import Console

    return Console(width=100 if not sys.stdout.isatty() else None)
