"""The `hotrain` command and its `fit`: parse, call, print. `cli_eval` and `annotate.cli` have the other commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hodata.cli_shards import exclude_option, where_option
from hodata.labels import EXTENTS, TASKS
from hodata.terminal import EXIT_INTERRUPTED, EXIT_SKIPPED, plain
from hotrain.annotate.cli import annotate, export, review
from hotrain.cli_eval import (
    calibrate,
    compare,
    evaluate,
    max_corrupt_option,
    on_corrupt_option,
)
from hotrain.config import MODELS, OPEN_LABELS, PRECISIONS
from hotrain.errors import Interrupted, in_words
from hotrain.input_rule import KINDS as INPUT_RULES
from hotrain.learning.optimizer import OPTIMIZERS, SCHEDULES
from hotrain.order import ORDERS


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


for _command in (evaluate, compare, calibrate, annotate, export, review):
    cli.add_command(_command)


def share_option(name: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that says to how many of the crops something is done."""
    return click.option(
        name, type=click.FloatRange(0, 1), default=0, show_default=True, metavar="SHARE", help=f"Of crops: {what}."
    )


@cli.command()
@click.option(
    "--shards", "shards", multiple=True, metavar="SHARD|DIR|GLOB", help="May be repeated; quote a glob. Required."
)
@where_option
@exclude_option
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/<date-time>]")
@click.option("--task", type=click.Choice(sorted(TASKS)), default="hand", show_default=True)
@click.option("--init", type=click.Path(path_type=Path), help="Start from another run; only last layers are new.")
@click.option(
    "--config",
    "recipe",
    type=click.Path(path_type=Path),
    metavar="FILE|NAME",
    help="Options from a TOML file, or a recipe's name: reference, default, cpu, freihand, egohos, egohands, ho3d. "
    "Options given here win.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out; its own options hold unless given again.")
@click.option("--resume-if-any", is_flag=True, help="--resume if there is a checkpoint in --out, else start.")
@click.option("--model", type=click.Choice(MODELS), default=MODELS[0], help="[default: that of --init, else resnet50]")
@click.option("--weights", default="coco", show_default=True, metavar="coco|none|FILE", help="What to start from.")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), default=30, show_default=True)
@click.option("--samples-per-epoch", type=click.IntRange(1), help="[default: as many as there are]")
@click.option("--crop", type=click.IntRange(32), default=480, show_default=True, help="Pixels, side of a crop.")
@click.option("--size", type=click.IntRange(32), help="Short side of an image as the network sees it.  [default: crop]")
@click.option("--aim", type=click.FloatRange(0, 1), default=0, show_default=True, help="Share of crops over a hand.")
@click.option("--even", type=click.FloatRange(0, 1), default=0, show_default=True, help="Bring hands to one size.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Over all processes.")
@click.option("--accumulation", type=click.IntRange(1), default=1, show_default=True, help="Passes per step.")
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="adamw", show_default=True)
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    help="Peak learning rate of the head.  [default: 1e-3, from random weights 3e-3; sgd 1e-2, 5e-2]",
)
@click.option(
    "--body-factor",
    type=click.FloatRange(0),
    help="Backbone's rate relative to --lr.  [default: 0.1 from COCO or a file, 0.5 from --init, 1 from none]",
)
@click.option("--weight-decay", type=click.FloatRange(0), help="Of weights.  [default: 0.01, sgd 0.0001]")
@click.option("--schedule", type=click.Choice(SCHEDULES), default="poly", show_default=True, help="How the rate falls.")
@click.option(
    "--warmup",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of the steps over which the rate rises.",
)
@click.option(
    "--clip", type=click.FloatRange(0), default=0, show_default=True, help="Largest norm of the gradient; 0: any."
)
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="P",
    help="Share of the channels before the last layer that a step leaves out.  [default: 0.5; LR-ASPP has none]",
)
@click.option(
    "--ema",
    type=click.FloatRange(0, 1, max_open=True),
    default=0,
    show_default=True,
    metavar="DECAY",
    help="Score and save an average of the weights with this decay; 0: none.",
)
@click.option(
    "--jitter", type=click.FloatRange(0), default=1.0, show_default=True, help="Strength of random zoom and colours."
)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the crops.")
@share_option("--blur", "out of focus or moving")
@share_option("--noise", "with a sensor's noise")
@share_option("--jpeg", "compressed once more")
@share_option("--background", "another crop behind hand and object")
@share_option("--paste", "hand and object of another crop put on top")
@click.option(
    "--balance",
    type=click.FloatRange(0, 1),
    default=0.25,
    show_default=True,
    help="How far rare classes weigh more in the loss; 0: not.",
)
@click.option(
    "--prior",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="Pull toward background where a mask leaves a pixel open.",
)
@click.option("--dice", type=click.FloatRange(0), default=0, show_default=True, help="Weight of soft Dice; 0: none.")
@click.option(
    "--hard-pixels",
    type=click.FloatRange(0, 1, min_open=True),
    default=1,
    show_default=True,
    metavar="SHARE",
    help="Learn from the hardest pixels of each image alone; 1: from all.",
)
@click.option(
    "--input-rule",
    type=click.Choice(INPUT_RULES),
    default="short-side",
    show_default=True,
    help="Which side of an image becomes --size pixels long; squash: both.",
)
@click.option(
    "--open-labels",
    type=click.Choice(OPEN_LABELS),
    default="sets",
    show_default=True,
    help="What a pixel teaches that may be several classes: one of them, nothing, or what was drawn.",
)
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
    help="Save so often within an epoch too.",
)
@on_corrupt_option
@max_corrupt_option
@click.option(
    "--val-limit",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Score at most so many validation samples after an epoch.",
)
@click.option(
    "--extent",
    type=click.Choice(EXTENTS),
    default="wrist",
    show_default=True,
    help="Where hands end when the best is chosen.",
)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="auto: bf16 on CUDA."
)
@click.option("--compile/--no-compile", default=False, help="Translate the model by torch.compile.")
@click.option("--sync-batchnorm/--no-sync-batchnorm", default=False, help="BatchNorm over all GPUs.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N")
@click.option(
    "--preview-augment",
    "preview",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Draw what the run would see of some samples, and end.",
)
@click.pass_context
def fit(context: click.Context, **options: Any) -> None:
    """Train on the split train, score on the split val after each epoch, keep the best and the last.

    Writes RUN/checkpoints, best.json, log.jsonl, tensorboard/, previews/ and curves.png, and prints RUN. Without
    torchrun it starts one process per visible GPU. SIGTERM or SIGINT saves and exits 75; --resume goes on.
    """
    from hodata.shards.select import read_keys
    from hotrain.checkpoint import find, last_position
    from hotrain.config import FitConfig, read_recipe

    resume, resume_if_any = options.pop("resume"), options.pop("resume_if_any")
    recipe, preview = options.pop("recipe"), options.pop("preview")
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
    if (resume or resume_if_any) and "out" not in given:
        raise click.UsageError("--resume needs --out, the folder of the run to go on with")
    if resume or (resume_if_any and last_position(Path(given["out"])) is not None):
        resume = True
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
    if preview is not None:
        from hotrain.loading.augment_sheet import augment_sheet
        from hotrain.pictures import save_picture

        save_picture(augment_sheet(config), preview)
        click.echo(preview)
        return

    from hotrain.distributed import is_main, launch, processes_wanted, under_torchrun
    from hotrain.fit import fit as run_fit

    try:
        launch(run_fit, (config, resume), processes_wanted(config.device))
    except Interrupted as stopped:
        if is_main():
            click.echo(f"stopped; saved in {stopped.checkpoint}; go on with --resume --out {config.out}", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as ended:  # of several processes
        if ended.code != EXIT_INTERRUPTED:
            raise
        if last_position(Path(config.out)) is None:
            click.echo("stopped before anything was saved", err=True)
            sys.exit(1)
        click.echo(f"stopped; go on with --resume --out {config.out}", err=True)
        raise
    if is_main():
        click.echo(config.out)
        # A launcher takes every code but 0 for a failed process; what was left out has been said.
        if find(Path(config.out), which="last").facts.get("damaged") and not under_torchrun():
            sys.exit(EXIT_SKIPPED)


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
    # spinning thread holds up the one it waits for, and a step takes several times as long. A few microseconds are
    # enough to miss no work on a machine that is free (a quarter faster than none). Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        run()
    except Exception as error:
        words = in_words(error)
        if words is None:
            raise
        click.echo(f"error: {plain(words)}", err=True)
        sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    main()
