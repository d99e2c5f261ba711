"""The `hotrain` command: parse, call, print. Nothing is decided here, and only here do people get answers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hodata.errors import HodataError
from hodata.labels import EXTENTS, TASKS
from hotrain.annotate.cli import annotate, export, review
from hotrain.config import ON_CORRUPT
from hotrain.errors import EXIT_INTERRUPTED, EXIT_SKIPPED, Interrupted
from hotrain.order import ORDERS

if TYPE_CHECKING:
    from hotrain.metrics import Report

# Also in hotrain.model, which imports torch; a test keeps the two equal.
MODELS = (
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="hodata")
def cli() -> None:
    """Train and evaluate hand and object segmentation on hodata shards.

    \b
    Stage 1, hands, from COCO weights; stage 2, hands and objects, from stage 1:
      hotrain fit  --shards 'shards/*.tar' --out runs/hands
      hotrain fit  --shards 'shards/*.tar' --out runs/objects --task hand-object --init runs/hands
      hotrain eval --shards 'shards/*.tar' --checkpoint runs/objects
    """


_on_corrupt = click.option(
    "--on-corrupt",
    type=click.Choice(ON_CORRUPT),
    default="error",
    show_default=True,
    help="What a sample that cannot be read does: end the run, or be left out and named (exit 3).",
)
_max_corrupt = click.option(
    "--max-corrupt", type=click.IntRange(0), default=100, show_default=True, help="So many may be left out."
)
for _command in (annotate, export, review):
    cli.add_command(_command)

_shards = click.option(
    "--shards", "shards", multiple=True, metavar="SHARD|DIR|GLOB", help="May be repeated; quote a glob. Required."
)

_where = click.option(
    "--where", default="", metavar="EXPRESSION", help="Only samples for which this holds: \"source = 'ho3d' and held\"."
)
_exclude = click.option(
    "--exclude",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A text file of keys to leave out, one a line; may be repeated.",
)


@cli.command()
@_shards
@_where
@_exclude
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/<date-time>]")
@click.option("--task", type=click.Choice(sorted(TASKS)), default="hand", show_default=True)
@click.option("--init", type=click.Path(path_type=Path), help="Start from another run; only last layers are new.")
@click.option("--config", "recipe", type=click.Path(path_type=Path), help="Options from a TOML file; those given win.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; its own options hold unless given again.")
@click.option("--model", type=click.Choice(MODELS), default=MODELS[0], help="[default: that of --init, else resnet50]")
@click.option("--weights", default="coco", show_default=True, metavar="coco|none|FILE", help="What to start from.")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), default=30, show_default=True)
@click.option("--samples-per-epoch", type=click.IntRange(1), help="[default: as many as there are]")
@click.option("--crop", type=click.IntRange(32), default=480, show_default=True, help="Pixels, side of a crop.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Over all processes.")
@click.option("--accumulation", type=click.IntRange(1), default=1, show_default=True, help="Passes per step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Peak, of the head.  [default: by the start]")
@click.option("--body-factor", type=click.FloatRange(0), help="Backbone's --lr, relative.  [default: by the start]")
@click.option("--jitter", type=click.FloatRange(0), default=1.0, show_default=True, help="Of zoom and colours.")
@click.option("--balance", type=click.FloatRange(0, 1), default=0.25, show_default=True, help="Of rare classes.")
@click.option("--prior", type=click.FloatRange(0), default=0.1, show_default=True, help="Toward background.")
@click.option("--source-weight", multiple=True, metavar="NAME=W", help="Share of a source's samples; may be repeated.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Loading processes per GPU.")
@click.option(
    "--order",
    type=click.Choice(ORDERS),
    default="shuffle",
    show_default=True,
    help="Mix all samples of a source, or those of 8 shards at a time, for slow storage.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    metavar="MINUTES",
    help="Within an epoch.",
)
@_on_corrupt
@_max_corrupt
@click.option("--extent", type=click.Choice(EXTENTS), default="wrist", show_default=True, help="Of validation.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N")
@click.pass_context
def fit(context: click.Context, **options: Any) -> None:
    """Train on the split train, score on the split val after each epoch, keep the best and the last.

    Writes RUN/checkpoints, best.json, log.jsonl, tensorboard/, previews/ and curves.png, and prints RUN. Without
    torchrun it starts one process per visible GPU. SIGTERM or SIGINT saves and exits 75; --resume goes on.
    """
    from hodata.shards.select import read_keys
    from hotrain.checkpoint import find
    from hotrain.config import FitConfig, read_recipe

    resume, recipe = options.pop("resume"), options.pop("recipe")
    given = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    for values in (options, given):
        if "source_weight" in values:
            values["source_weights"] = _weights(values.pop("source_weight"))
        if "exclude" in values:
            values["exclude"] = tuple(sorted({key for path in values["exclude"] for key in read_keys(path)}))
        for name in ("out", "init"):
            if values.get(name) is not None:
                values[name] = str(values[name])
    if recipe is not None:
        given = {**read_recipe(recipe), **given}
        options |= given
    if resume:
        if "out" not in given:
            raise click.UsageError("--resume needs --out, the folder of the run to go on with")
        stored = FitConfig.from_json(find(Path(given["out"]), which="last").facts["config"])
        config = replace(stored, **given)
    else:
        if not options["shards"]:
            raise click.UsageError("Missing option '--shards'")
        if options["out"] is None:
            options["out"] = f"runs/{datetime.now():%Y%m%d-%H%M%S}"
        if options["init"] is not None and "model" not in given:
            options["model"] = find(Path(options["init"])).facts["model"]
        config = FitConfig(**options)

    from hotrain.distributed import is_main, launch, processes_wanted
    from hotrain.fit import fit as run_fit

    try:
        launch(run_fit, (config, resume), processes_wanted(config.device))
    except Interrupted as stopped:
        if is_main():
            click.echo(f"stopped; saved in {stopped.checkpoint}; go on with --resume --out {config.out}", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if is_main():
        click.echo(config.out)
        if find(Path(config.out), which="last").facts.get("damaged"):
            sys.exit(EXIT_SKIPPED)


@cli.command("eval")
@_shards
@_where
@_exclude
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="A run (its best) or a checkpoint.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--extent", type=click.Choice(EXTENTS), default="wrist", show_default=True, help="Where a hand ends.")
@click.option("--baseline", is_flag=True, help="Also score a colour histogram fitted on the split train.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a PNG: image | truth | prediction.")
@click.option("--sheet-samples", type=click.IntRange(1), default=16, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@_on_corrupt
@_max_corrupt
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def evaluate(
    shards: Sequence[str],
    where: str,
    exclude: Sequence[Path],
    checkpoint: Path,
    split: str,
    extent: str,
    baseline: bool,
    sheet: Path | None,
    sheet_samples: int,
    batch_size: int,
    on_corrupt: str,
    max_corrupt: int,
    device: str,
    as_json: bool,
) -> None:
    """Score a run at the images' own resolution, every sample once.

    A source is scored at the wanted extent if its masks decide it, else at the other one; the table says which.
    """
    if not shards:
        raise click.UsageError("Missing option '--shards'")
    from hodata.shards.reader import ShardIndex
    from hodata.shards.select import Selector, select_rows
    from hotrain.baseline import fit_color_histogram
    from hotrain.checkpoint import find
    from hotrain.damage import Tally
    from hotrain.distributed import is_main, join_group, leave_group, world_size
    from hotrain.evaluate import evaluate as run_evaluate
    from hotrain.pictures import save_picture
    from hotrain.predict import load_predictor
    from hotrain.progress import progress
    from hotrain.selection import select_to_score
    from hotrain.sheets import example_sheet, spread_rows

    selector = Selector.of(where, exclude)
    opened = find(checkpoint)
    index = ShardIndex.open(shards)
    rows, notes = select_to_score(index, selector, split)
    tally = Tally(max_corrupt)
    noted = tally if on_corrupt == "skip" else None
    place = join_group(device)
    try:
        for note in notes if is_main() else ():
            click.echo(note, err=True)
        predictor = load_predictor(opened, place)
        with progress("eval", len(rows), main=is_main()) as bar:
            found = run_evaluate(
                index,
                rows,
                opened.task,
                predictor,
                extent=extent,
                batch_size=batch_size,
                tally=noted,
                on_batch=lambda samples: bar.advance(samples * world_size()),
            )
        by_color: Report | None = None
        if baseline:
            train = select_rows(index, selector, "train").rows
            with progress("colour histogram", min(len(train), 2000), main=is_main()) as bar:
                histogram = fit_color_histogram(
                    index, train, opened.task, extent=extent, tally=noted, on_sample=lambda: bar.advance(1)
                )
            by_color = run_evaluate(
                index, rows, opened.task, histogram, extent=extent, batch_size=batch_size, tally=noted
            )
        if not is_main():
            return
        if sheet is not None:
            title = f"{checkpoint} on {split}: image | truth | prediction"
            chosen = spread_rows(index, rows, sheet_samples)
            picture = example_sheet(index, chosen, predictor, opened.task, title, skip_damaged=noted is not None)
            save_picture(picture, sheet)
            click.echo(f"prediction sheet: {sheet}", err=True)
    finally:
        leave_group()
    if as_json:
        document = found.to_json()
        if selector:
            document["selection"] = {"where": selector.where, "exclude": sorted(selector.exclude)}
        if by_color is not None:
            document["baseline"] = by_color.to_json()
        if noted is not None:
            document["damaged"] = tally.found
        click.echo(json.dumps(document, indent=1))
    else:
        _print_table(found, by_color, split)
    for what in tally.found.values():
        click.echo(f"left out: {what}", err=True)
    if tally.found:
        sys.exit(EXIT_SKIPPED)


def _print_table(found: Report, by_color: Report | None, split: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"split {split}")
    for name in ("source", "samples", "extent of hands"):
        table.add_column(name)
    for name in ("hand IoU", "object IoU", "accuracy"):
        table.add_column(name, justify="right")
    rows = [*found.by_source.items(), ("all", found.pooled)]
    for name, scores in rows:
        kinds = [_figure(scores.kinds.get(kind)) for kind in ("hand", "object")]
        table.add_row(name, str(scores.samples), scores.extent, *kinds, _figure(scores.accuracy))
        if by_color is not None:
            other = by_color.pooled if scores is found.pooled else by_color.by_source[name]
            kinds = [_figure(other.kinds.get(kind)) for kind in ("hand", "object")]
            table.add_row("  colour histogram", "", other.extent, *kinds, _figure(other.accuracy), style="dim")
    Console(width=100 if not sys.stdout.isatty() else None).print(table)


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _weights(texts: Sequence[str]) -> dict[str, float]:
    weights = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER", param_hint="--source-weight")
    return weights


def main(run: Callable[..., Any] = cli) -> None:
    """Run the command; what a user can cure is printed without a traceback."""
    # OpenMP's threads spin while they wait for each other. Where loading processes or other jobs share the cores, each
    # spinning thread holds up the one it waits for, and a step takes several times as long. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        run()
    except HodataError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
