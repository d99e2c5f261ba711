"""`hotrain eval`, `compare` and `calibrate`: parse, call, print."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hodata.cli_shards import exclude_option, where_option
from hodata.labels import EXTENTS, TASKS
from hodata.terminal import EXIT_SKIPPED, plain, print_json
from hotrain.config import ON_CORRUPT

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from hodata.shards.reader import ShardIndex
    from hotrain.loading.damage import Tally
    from hotrain.scoring.metrics import Report
    from hotrain.scoring.sample_counts import SampleCounts
    from hotrain.scoring.scored_model import ScoredModel

_shards = click.option(
    "--shards", multiple=True, required=True, metavar="SHARD|DIR|GLOB", help="May be repeated; quote a glob."
)
on_corrupt_option = click.option(
    "--on-corrupt",
    type=click.Choice(ON_CORRUPT),
    default="error",
    show_default=True,
    help="What a sample that cannot be read does: end the run, or be left out and named (exit 3).",
)
max_corrupt_option = click.option(
    "--max-corrupt", type=click.IntRange(0), default=100, show_default=True, help="So many may be left out."
)
_split = click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
_extent = click.option(
    "--extent", type=click.Choice(EXTENTS), default="wrist", show_default=True, help="Where a hand ends."
)
_batch_size = click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
_device = click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_tta = click.option("--tta", type=click.Choice(["flip"]), help="Answer the image and its mirror image together.")
_task = click.option("--task", type=click.Choice(sorted(TASKS)), help="Of masks; a run knows its own.")
_ids = click.option(
    "--ids", metavar="classes|labels|FILE", help="What masks' values are.  [default: legend.json beside them]"
)
_allow_missing = click.option("--allow-missing", is_flag=True, help="Score the samples that have a mask; exit 3.")


@click.command("eval")
@_shards
@where_option
@exclude_option
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A run (its best) or a checkpoint.")
@click.option("--predictions", type=click.Path(path_type=Path), help="Instead: a folder of masks of any model.")
@_task
@_ids
@_allow_missing
@_split
@_extent
@_tta
@click.option("--baseline", is_flag=True, help="Also score a colour histogram fitted on the split train.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page: scores, curves, worst and best samples.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a PNG: image | truth | prediction.")
@click.option("--sheet-samples", type=click.IntRange(1), default=16, show_default=True)
@_batch_size
@on_corrupt_option
@max_corrupt_option
@_device
@_json
def evaluate(
    shards: Sequence[str],
    where: str,
    exclude: Sequence[Path],
    checkpoint: Path | None,
    predictions: Path | None,
    task: str | None,
    ids: str | None,
    allow_missing: bool,
    split: str,
    extent: str,
    tta: str | None,
    baseline: bool,
    html: Path | None,
    sheet: Path | None,
    sheet_samples: int,
    batch_size: int,
    on_corrupt: str,
    max_corrupt: int,
    device: str,
    as_json: bool,
) -> None:
    """Score a run, or masks of any model, at the images' own resolution, every sample once.

    A source is scored at the wanted extent if its masks decide it, else at the other one; the table says which.
    """
    if (checkpoint is None) == (predictions is None):
        raise click.UsageError("give one of --checkpoint and --predictions")
    if checkpoint is not None and task is not None:
        raise click.UsageError("--task is for --predictions; a run knows its own")
    if predictions is not None and tta is not None:
        raise click.UsageError("--tta is for --checkpoint; masks are what they are")
    from hodata.shards.select import select_rows
    from hotrain.checkpoint import find
    from hotrain.distributed import is_main, under_torchrun
    from hotrain.loading.damage import Tally
    from hotrain.scoring.calibration import read_calibration
    from hotrain.scoring.report_page import write_page
    from hotrain.scoring.scorecard import document, scorecard
    from hotrain.scoring.scored_model import ScoredModel, ScoredSamples

    opened = find(checkpoint) if checkpoint is not None else None
    chosen = ScoredSamples.open(shards, where, exclude, split)
    index, rows = chosen.index, chosen.rows
    train = select_rows(index, chosen.selector, "train").rows if baseline else None
    tally = Tally(max_corrupt) if on_corrupt == "skip" else None
    with _device_group(device) as place:
        if opened is not None:
            model = ScoredModel.of_run(opened, str(checkpoint), rows, tta, place)
        else:
            assert predictions is not None
            model = ScoredModel.of_masks(predictions, index, rows, task, ids, allow_missing)
        found = _score(model, index, extent, batch_size, tally)
        by_color = _baseline(model, index, train, extent, batch_size, tally) if train is not None else None
        if not is_main():
            return
    card = scorecard(_details(found))
    for note in chosen.notes + model.notes + _not_scored(found):
        click.echo(plain(note), err=True)
    # The figures first: pictures may fail, and cost no evaluation then.
    if as_json:
        whole = {**document(found, card), **chosen.to_json()}
        if by_color is not None:
            whole["baseline"] = by_color.to_json()
        if model.missing:
            whole["missing"] = model.missing
        if tally is not None:
            whole["damaged"] = tally.found
        print_json(whole)
    else:
        from hotrain.scoring.eval_tables import print_scores

        print_scores(found, card, by_color, split)
    if sheet is not None:
        _write_sheet(model, index, sheet, split, sheet_samples, found.extents, skip_damaged=tally is not None)
    if html is not None:
        write_page(
            html,
            f"{model.name} on {split}",
            found,
            card,
            index,
            model.predictor,
            notes=chosen.notes + model.notes,
            run=opened.path.parent.parent if opened else None,
            calibration=read_calibration(opened) if opened else None,
        )
        click.echo(f"page: {html}", err=True)
    damaged = tally.found if tally is not None else {}
    for what in damaged.values():
        click.echo(f"left out: {plain(what)}", err=True)
    if (model.missing or damaged) and not under_torchrun():  # to which any code but 0 is a failure
        sys.exit(EXIT_SKIPPED)


@click.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@_shards
@where_option
@exclude_option
@_task
@_ids
@_allow_missing
@_split
@_extent
@_tta
@_batch_size
@_device
@_json
def compare(
    a: Path,
    b: Path,
    shards: Sequence[str],
    where: str,
    exclude: Sequence[Path],
    task: str | None,
    ids: str | None,
    allow_missing: bool,
    split: str,
    extent: str,
    tta: str | None,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Compare two runs, or folders of masks, on the same samples.

    Gives the difference B - A of every figure with its 95 % interval by a paired bootstrap over groups. Masks are read
    for the task of the other one's run.
    """
    import numpy as np

    from hotrain.distributed import is_main, under_torchrun
    from hotrain.errors import SelectionError
    from hotrain.scoring import comparison
    from hotrain.scoring.scored_model import ScoredModel, ScoredSamples, checkpoint_in

    chosen = ScoredSamples.open(shards, where, exclude, split)
    index, rows = chosen.index, chosen.rows
    with _device_group(device) as place:
        runs = [(path, checkpoint_in(path)) for path in (a, b)]
        task = task or next((opened.task.name for _, opened in runs if opened), None)
        models = [
            ScoredModel.of_run(opened, str(path), rows, tta, place)
            if opened
            else ScoredModel.of_masks(path, index, rows, task, ids, allow_missing)
            for path, opened in runs
        ]
        if models[0].task != models[1].task:
            raise SelectionError(
                f"{a} has the task {models[0].task.name}, {b} {models[1].task.name}: figures of one name would mean "
                "different things; compare runs of one task"
            )
        both = np.intersect1d(models[0].rows, models[1].rows)
        found = []
        for model in models:
            model.rows = both
            found.append(_score(model, index, extent, batch_size))
        if not is_main():
            return
    difference = comparison.compare(*map(_details, found))
    for note in [*chosen.notes, *models[0].notes, *models[1].notes, *_not_scored(found[0])]:
        click.echo(plain(note), err=True)
    if as_json:
        whole = {"a": models[0].name, "b": models[1].name, "split": split, **difference.to_json()}
        print_json({**whole, "extent": found[0].pooled.extent, **chosen.to_json()})
    else:
        from hotrain.scoring.eval_tables import print_comparison

        print_comparison(difference, (models[0].name, models[1].name), split)
    if len(both) < len(rows) and not under_torchrun():
        sys.exit(EXIT_SKIPPED)


@click.command("calibrate")
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="A run (its best) or a checkpoint.")
@_shards
@where_option
@exclude_option
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="val", show_default=True)
@_extent
@click.option("--samples", type=click.IntRange(1), default=400, show_default=True, help="At most so many.")
@click.option("--pixels", type=click.IntRange(1), default=1000, show_default=True, help="Of each sample.")
@_device
@_json
def calibrate(
    checkpoint: Path,
    shards: Sequence[str],
    where: str,
    exclude: Sequence[Path],
    split: str,
    extent: str,
    samples: int,
    pixels: int,
    device: str,
    as_json: bool,
) -> None:
    """Find the temperature that makes a run as sure as it is right, and store it beside the weights.

    Writes calibration.json into the checkpoint: the temperature and a table of confidence against truth. The weights
    and the answers stay as they are.
    """
    from dataclasses import replace

    from hotrain.checkpoint import find
    from hotrain.distributed import is_main
    from hotrain.predict import load_predictor
    from hotrain.progress import progress
    from hotrain.scoring.calibrate import calibrate as run_calibrate
    from hotrain.scoring.calibration import write_calibration
    from hotrain.scoring.scored_model import ScoredSamples

    opened = find(checkpoint)
    chosen = ScoredSamples.open(shards, where, exclude, split)
    index, rows = chosen.index, chosen.rows
    for note in chosen.notes:
        click.echo(plain(note), err=True)
    with _device_group(device) as place, progress("calibrate", min(len(rows), samples)) as bar:
        found = run_calibrate(
            index,
            rows,
            opened.task,
            load_predictor(opened, place),
            extent=extent,
            samples=samples,
            pixels=pixels,
            on_sample=lambda: bar.advance(1),
        )
    if not is_main():  # under torchrun every process has found the same
        return
    found = replace(found, facts={"split": split, **found.facts})
    path = write_calibration(opened.path, found)
    if as_json:
        print_json(found.to_json())
    else:
        from hotrain.scoring.eval_tables import print_calibration

        print_calibration(found, str(path))


@contextmanager
def _device_group(device: str) -> Iterator[torch.device]:
    from hotrain.distributed import process_group

    with process_group(device) as place:
        yield place


def _score(model: ScoredModel, index: ShardIndex, extent: str, batch_size: int, tally: Tally | None = None) -> Report:
    from hotrain.distributed import is_main, world_size
    from hotrain.evaluate import evaluate as run_evaluate
    from hotrain.progress import progress

    with progress("eval", len(model.rows), main=is_main()) as bar:
        return run_evaluate(
            index,
            model.rows,
            model.task,
            model.predictor,
            extent=extent,
            batch_size=batch_size,
            tally=tally,
            details=True,
            on_batch=lambda samples: bar.advance(samples * world_size()),
        )


def _baseline(
    model: ScoredModel, index: ShardIndex, train: NDArray[np.int64], extent: str, batch_size: int, tally: Tally | None
) -> Report:
    from hotrain.distributed import is_main
    from hotrain.evaluate import evaluate as run_evaluate
    from hotrain.progress import progress
    from hotrain.scoring.baseline import MOST, fit_color_histogram

    with progress("colour histogram", min(len(train), MOST), main=is_main()) as bar:
        histogram = fit_color_histogram(
            index, train, model.task, extent=extent, tally=tally, on_sample=lambda: bar.advance(1)
        )
    return run_evaluate(index, model.rows, model.task, histogram, extent=extent, batch_size=batch_size, tally=tally)


def _details(found: Report) -> SampleCounts:
    assert found.details is not None
    return found.details


def _not_scored(found: Report) -> list[str]:
    return [
        f"{name}: {count} samples have no ground truth to score against and were left out"
        for name, count in found.not_scored.items()
    ]


def _write_sheet(
    model: ScoredModel,
    index: ShardIndex,
    sheet: Path,
    split: str,
    samples: int,
    extents: Mapping[str, str],
    skip_damaged: bool,
) -> None:
    from hotrain.pictures import save_picture
    from hotrain.sheets import example_sheet, spread_rows

    title = f"{model.name} on {split}: image | truth | prediction"
    rows = spread_rows(index, model.rows, samples)
    picture = example_sheet(index, rows, model.predictor, model.task, title, extents, skip_damaged=skip_damaged)
    save_picture(picture, sheet)
    click.echo(f"prediction sheet: {sheet}", err=True)
