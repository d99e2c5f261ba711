"""One HTML file about an evaluation: scores with intervals, curves, calibration, the worst and the best samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.errors import HodataError
from hodata.files import replacing
from hodata.labels import LABELS, Task
from hodata.report.draw import decode_image as decode_small
from hodata.report.draw import overlay, resize_mask
from hodata.report.html import chip, head, jpeg, png, resource, table
from hotrain.evaluate import RowPredictor
from hotrain.loading.data import decode_image
from hotrain.pictures import class_colors
from hotrain.predict import Predictor
from hotrain.scoring.calibration import Calibration, Reliability
from hotrain.scoring.figures import FINGERTIPS, WITHOUT_WRIST
from hotrain.scoring.intervals import LEAST_GROUPS, Spread
from hotrain.scoring.metrics import Report, figure_text
from hotrain.scoring.scorecard import BOOTSTRAP, Scorecard
from hotrain.scoring.worst import worst_and_best
from hotrain.sheets import answer_of, training_curves

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

WORST, BEST = 12, 6
_WIDTH = 300  # of a picture, pixels
_MAIN = {
    "kinds.hand": "hand IoU",
    "kinds.object": "object IoU",
    "jaccard": "Jaccard",
    "accuracy": "accuracy",
    "boundary_iou.hand": "hand Boundary IoU",
    "boundary_iou.object": "object Boundary IoU",
    FINGERTIPS: "fingertip recall",
    WITHOUT_WRIST: "hand IoU without wrist",
}


def write_page(
    path: Path,
    title: str,
    report: Report,
    card: Scorecard,
    index: ShardIndex,
    predictor: Predictor | RowPredictor,
    *,
    notes: Sequence[str] = (),
    run: Path | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Write one self-contained page.

    Args:
        path: the HTML file; it appears when complete.
        title: heading.
        report: with details.
        card: of the report.
        index: the shards.
        predictor: that was scored; answers the shown samples again.
        notes: sentences for people, below the heading.
        run: whose curves are shown, if it has a log.
        calibration: whose reliability is shown.

    Raises:
        HodataError: the file cannot be written, or a shown sample is damaged.
    """
    parts = [
        head(title, resource("page.css", "hodata.report") + resource("report_page.css", "hotrain.scoring")),
        f"<header><h1>{escape(title)}</h1>",
        *(f"<p>{escape(note)}</p>" for note in [_lead(report, card), *notes]),
        "</header>\n<main>\n",
        *_tables(report, card),
        *_curves(run),
        *_calibration(calibration),
        *_samples(report, index, predictor),
        "</main>\n</html>\n",
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text("".join(parts), encoding="utf-8")
    except OSError as error:
        raise HodataError(f"{path}: cannot be written ({error.strerror or error})") from error


def _lead(report: Report, card: Scorecard) -> str:
    left = "".join(
        f" {count:,} of {name} have no ground truth and were not scored." for name, count in report.not_scored.items()
    )
    return (
        f"{report.pooled.samples:,} samples in {card.pooled.groups:,} groups of {len(report.by_source):,} sources."
        f"{left} In brackets: 95 % intervals by a bootstrap over groups ({BOOTSTRAP['draws']:,} draws), where at least "
        f"{LEAST_GROUPS} groups show the figure."
    )


def _tables(report: Report, card: Scorecard) -> Iterator[str]:
    lines = [*((name, scores, card.by_source[name]) for name, scores in report.by_source.items())]
    if len(lines) > 1:
        lines.append(("all", report.pooled, card.pooled))
    main = [name for name in _MAIN if card.pooled.value.get(name) is not None]
    yield table(
        "Scores",
        "pixels of all samples together; hands end where the extent says",
        ("source", "samples", "groups", "extent", *(_MAIN[name] for name in main)),
        [
            (name, f"{scores.samples:,}", f"{spread.groups:,}", scores.extent, *(_cell(spread, one) for one in main))
            for name, scores, spread in lines
        ],
    )
    classes = [name[4:] for name in card.pooled.value if name.startswith("iou.")]
    yield table(
        "Classes",
        "IoU",
        ("source", *classes),
        [(name, *(_cell(spread, f"iou.{one}") for one in classes)) for name, _, spread in lines],
    )
    for name, _, spread in lines:
        few = [one for one in main if spread.by_group.get(one)]
        groups = sorted({group for one in few for group in spread.by_group[one]})
        if groups and name != "all":
            yield table(
                f"Groups of {name}",
                f"fewer than {LEAST_GROUPS} show these figures, so each is listed",
                ("group", *(_MAIN[one] for one in few)),
                [(group, *(figure_text(spread.by_group[one].get(group)) for one in few)) for group in groups],
            )


def _cell(spread: Spread, name: str) -> str:
    text = figure_text(spread.value[name])
    if name in spread.interval:
        low, high = spread.interval[name]
        text += f" ({low:.3f} – {high:.3f})"
    return text


def _curves(run: Path | None) -> Iterator[str]:
    if run is not None and (run / "log.jsonl").is_file():
        picture = png(np.asarray(training_curves(run)))
        yield f'<h2>Training</h2><img class="picture-wide" src="{picture}" alt="loss and IoU by samples">\n'


def _calibration(calibration: Calibration | None) -> Iterator[str]:
    if calibration is None:
        return
    facts = {name: escape(str(calibration.facts.get(name, "?"))) for name in ("pixels", "samples", "split")}
    yield f'<h2>Calibration</h2><p class="note">Temperature {calibration.temperature:.3f}, found on '
    yield "{pixels} pixels of {samples} samples of the split {split}. ".format(**facts)
    yield 'Bars on the dashed line: as sure as right. Faint bars have few pixels.</p><div class="diagrams">'
    yield _diagram("at temperature 1", calibration.before)
    yield _diagram("calibrated", calibration.after)
    yield "</div>\n"


def _diagram(title: str, found: Reliability) -> str:
    """A reliability diagram: share of right answers by confidence; a faint bar has few pixels behind it."""
    side, left = 240, 34
    most = max(max(one.pixels for one in found.bins), 1)
    bars = "".join(
        f'<rect class="bar" x="{left + one.low * side:.1f}" y="{10 + (1 - one.accuracy) * side:.1f}" '
        f'width="{(one.high - one.low) * side - 1:.1f}" height="{one.accuracy * side:.1f}" '
        f'opacity="{0.25 + 0.75 * (one.pixels / most) ** 0.5:.2f}"><title>{one.pixels:,} pixels, confidence '
        f"{one.confidence:.3f}, right {one.accuracy:.3f}</title></rect>"
        for one in found.bins
        if one.pixels
    )
    ticks = "".join(
        f'<text x="{left - 5}" y="{14 + (1 - t) * side}" text-anchor="end">{t:g}</text>'
        f'<text x="{left + t * side}" y="{side + 26}" text-anchor="middle">{t:g}</text>'
        for t in (0, 0.5, 1)
    )
    return (
        f'<figure><svg width="{side + left + 12}" height="{side + 46}" role="img" aria-label="reliability, {title}">'
        f"{bars}"
        f'<path class="ideal" d="M{left} {10 + side}L{left + side} 10"/>'
        f'<path class="axis" d="M{left} 10V{10 + side}H{left + side}"/>{ticks}'
        f'<text x="{left + side / 2}" y="{side + 42}" text-anchor="middle">'
        f"confidence; height: share of right answers</text></svg>"
        f"<figcaption><b>{escape(title)}</b><span>calibration error (ECE) {100 * found.ece:.2f} %, negative log "
        f"likelihood {found.nll:.4f}</span></figcaption></figure>"
    )


def _samples(report: Report, index: ShardIndex, predictor: Predictor | RowPredictor) -> Iterator[str]:
    counts = report.details
    assert counts is not None
    task = counts.figures.task
    worst, best = worst_and_best(counts, WORST, BEST)
    values = counts.figures.values(counts.values)
    yield f'<p class="legend">{_legend(task, index, counts.rows[worst + best])}</p>'
    for title, places in (("Worst samples", worst), ("Best samples", best)):
        if places:
            yield f"<h2>{title}</h2><p class='note'>by the mean IoU of hand and object; at most two of a group</p>"
            yield '<section class="samples">'
            for place in places:
                figures = dict(zip(counts.figures.names, values[place].tolist(), strict=True))
                fold = task.fold(report.extents[counts.sources[place]])
                yield _sample(index, int(counts.rows[place]), predictor, task, fold, figures)
            yield "</section>\n"


def _sample(
    index: ShardIndex,
    row: int,
    predictor: Predictor | RowPredictor,
    task: Task,
    fold: NDArray[np.uint8],
    figures: Mapping[str, float],
) -> str:
    reader = index.reader()
    key, source, group, kind = (str(index.column(name)[row]) for name in ("key", "source", "group", "image_kind"))
    data = reader.image(row)
    answer = answer_of(predictor, row, decode_image(data, kind, key), fold)
    small = decode_small(data, (_WIDTH, 2 * _WIDTH))
    size = (small.shape[1], small.shape[0])
    truth = overlay(small, resize_mask(reader.mask(row), size))
    predicted = overlay(small, resize_mask(answer, size), colors=_color_table(task))
    pictures = "".join(
        f'<img src="{jpeg(picture)}" width="{size[0]}" height="{size[1]}" alt="{name} of {escape(key)}" loading="lazy">'
        for name, picture in (("image", small), ("truth", truth), ("prediction", predicted))
    )
    words = ", ".join(
        f"{_MAIN[name]} {figures[name]:.3f}"
        for name in ("kinds.hand", "kinds.object", "boundary_iou.hand", FINGERTIPS)
        if figures.get(name, np.nan) == figures.get(name, np.nan)
    )
    return (
        f'<figure><div class="triple">{pictures}<span>image</span><span>truth</span><span>prediction</span></div>'
        f"<figcaption><b>{escape(key)}</b><span>{escape(source)} · {escape(group)}</span><span>{escape(words)}</span>"
        "</figcaption></figure>\n"
    )


def _color_table(task: Task) -> NDArray[np.uint8]:
    """uint8 [256, 3]: colours of class ids."""
    colors = np.full((256, 3), 255, dtype=np.uint8)
    own = class_colors(task)
    colors[: len(own)] = own
    return colors


def _legend(task: Task, index: ShardIndex, rows: NDArray[np.int64]) -> str:
    """The colours of the labels in some masks and of the classes."""
    labels = [label for label in LABELS if label and (index.column(f"pixels_{label.label_name}")[rows] > 0).any()]
    names = dict.fromkeys([label.label_name for label in labels])
    names |= dict.fromkeys(label.label_name for label in task.labels[1:])
    return "".join(f"<span>{chip(name)}{escape(name)}</span>" for name in names)
