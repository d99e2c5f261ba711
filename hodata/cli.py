"""The `hodata` command: parse, call, print. Nothing is decided here, and only here do people get answers."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hodata.cli_shards import index_command, inspect, verify
from hodata.errors import HodataError
from hodata.terminal import EXIT_INTERRUPTED, EXIT_SKIPPED, plain, print_json, print_left_out, progress

if TYPE_CHECKING:
    from hodata.build import BuildPlan, BuildReport

SOURCES = ("freihand", "ho3d", "egohos", "egohands", "folder", "coco")
SYNTH_SOURCES = ("freihand", "egohos", "egohands", "ho3d", "ho3d_v2", "mano", "ycb")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="hodata")
def cli() -> None:
    """Hand and object segmentation datasets, as their authors ship them, into one kind of WebDataset shard.

    \b
    A first round, without any download:
      hodata synth   --out demo/raw
      hodata build   --source egohos --root demo/raw/egohos --out demo/shards
      hodata inspect demo/shards --sheet sheet.png
    """


@cli.command()
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the miniatures; made if missing."
)
@click.option(
    "--source",
    "sources",
    type=click.Choice([*SYNTH_SOURCES, "all"]),
    multiple=True,
    help="Which dataset to write a miniature of; may be repeated.  [default: all]",
)
@click.option("--frames", type=click.IntRange(1), default=600, show_default=True, help="Pictures per dataset, about.")
@click.option("--seed", type=int, default=0, show_default=True, help="Other pictures, same layouts.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes.  [default: processors]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def synth(out: Path, sources: Sequence[str], frames: int, seed: int, workers: int | None, as_json: bool) -> None:
    """Write miniature datasets in their native layouts, drawn by a program.

    They have the folders, file names and label ids of the real ones, so everything can be tried before a download
    has finished. Nothing in them comes from the real datasets.
    """
    from hodata.processes import processors
    from hodata.synth.miniatures import write_miniatures

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's stop is as good as Ctrl-C
    every = not sources or "all" in sources
    names = tuple(name for name in SYNTH_SOURCES if every or name in sources)
    with progress("drawing", "pictures") as show:
        facts = write_miniatures(out, names, frames, seed, workers or processors(), show)
    if as_json:
        print_json(facts)
        return
    for name in names:
        click.echo(f"{out / name}: {_use_of(name, out)}")


def _use_of(name: str, out: Path) -> str:
    """What to do with a miniature, in commands that work as they stand."""
    path = {part: shlex.quote(str(out / part)) for part in (name, "mano", "ycb")}
    if name in ("mano", "ycb"):
        return f"goes with  hodata build --source ho3d ... --{name} {path[name]}"
    if not name.startswith("ho3d"):
        return f"build it with  hodata build --source {name} --root {path[name]} --out shards/"
    missing = "".join(f" --source {part}" for part in ("mano", "ycb") if not (out / part).is_dir())
    first = f"hodata synth --out {shlex.quote(str(out))}{missing} && " if missing else ""
    models = f"--mano {path['mano']} --ycb {path['ycb']}"
    return f"build it with  {first}hodata build --source ho3d --root {path[name]} {models} --out shards/"


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def detect(path: Path, as_json: bool) -> None:
    """Say which dataset a folder holds, and for every other format why it is not that one."""
    from hodata.sources import detect_all, folders_in

    if not path.is_dir():
        raise HodataError(f"{path}: {'is not a folder' if path.exists() else 'does not exist'}")
    found = detect_all(path)
    if as_json:
        print_json(
            {name: {"matched": d.matched, "reason": d.reason, "version": d.version} for name, d in found.items()}
        )
    else:
        for name, detection in sorted(found.items(), key=lambda item: not item[1].matched):
            click.echo(f"{'yes' if detection.matched else 'no ':3}  {name:9} {detection.reason}")
    if not any(detection.matched for detection in found.values()):
        near = {folder: detect_all(folder) for folder in (*folders_in(path), path.resolve().parent)}
        matches = [f"{folder} is {name}" for folder, each in near.items() for name, d in each.items() if d.matched]
        if matches:
            raise HodataError(f"{path}: holds no known dataset itself, but {', '.join(matches)}")
        raise HodataError(f"{path}: holds no known dataset; give the folder that the archive unpacked to")


@cli.command()
@click.option("--source", required=True, type=click.Choice(SOURCES), help="Which dataset; ask `hodata detect`.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the shards; made if missing.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="The raw dataset.  [default: $HODATA_ROOT/<source>, then ./datasets/<source>]",
)
@click.option(
    "--mano",
    type=click.Path(path_type=Path),
    help="FreiHAND, HO-3D: MANO_RIGHT.pkl or its folder.  [default: mano in $HODATA_ROOT, beside the root, in "
    "./datasets]",
)
@click.option(
    "--ycb",
    type=click.Path(path_type=Path),
    help="HO-3D: folder of the YCB-Video models.  [default: ycb in $HODATA_ROOT, beside the root, in ./datasets]",
)
@click.option(
    "--masks",
    type=click.Choice(["shipped", "rendered", "agree"]),
    default=None,
    help="FreiHAND: the authors' masks; drawn from the vertices, over held objects too; or void where these two "
    "differ.  [default: shipped]",
)
@click.option(
    "--wrist-void",
    type=click.Choice(["auto", "off"]),
    default=None,
    help="HO-3D, FreiHAND with rendered masks: leave the pixels undecided where the hand model is cut open at the "
    "wrist.  [default: auto]",
)
@click.option(
    "--name", help="File prefix and name in every table.  [default: by the source, such as ho3d_v3 or freihand_agree]"
)
@click.option(
    "--split-policy",
    type=click.Choice(["clean", "official", "group"]),
    default="clean",
    show_default=True,
    help="clean: official test recordings, nothing of them in training. official: as published, leaks and all. "
    "group: drawn by recording.",
)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes.  [default: processors]")
@click.option(
    "--samples-per-shard", type=click.IntRange(1), default=1000, show_default=True, help="Samples of one tar."
)
@click.option("--limit", type=click.IntRange(1), default=None, help="At most so many samples, spread over the dataset.")
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option(
    "--on-error",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do with a sample that cannot be converted: stop, or list it and go on (exit 3).",
)
@click.option("--max-errors", type=click.IntRange(0), default=None, help="With skip: stop after more errors than this.")
@click.option("--overwrite", is_flag=True, help="Replace a build of this name that another plan made.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def build(
    source: str,
    out: Path,
    root: Path | None,
    mano: Path | None,
    ycb: Path | None,
    masks: str | None,
    wrist_void: str | None,
    name: str | None,
    split_policy: str,
    workers: int | None,
    samples_per_shard: int,
    limit: int | None,
    dry_run: bool,
    on_error: str,
    max_errors: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert one raw dataset into shards. A build that was stopped goes on when the same command is run again.

    \b
    hodata build --source egohos --root ~/data/egohos --out shards/
    """
    from hodata.build import BuildOptions, make_plan
    from hodata.build import build as run_build
    from hodata.processes import processors
    from hodata.sources import find_root, source_class

    if max_errors is not None and on_error != "skip":
        raise click.UsageError("--max-errors goes with --on-error skip")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's stop is as good as Ctrl-C
    kind = source_class(source)
    given = {"mano": mano, "ycb": ycb, "masks": masks, "wrist_void": wrist_void}
    chosen: dict[str, Any] = {option: value for option, value in given.items() if value is not None}
    for option in chosen.keys() - kind.option_names:
        raise click.UsageError(f"--{option.replace('_', '-')} does not go with --source {source}")
    dataset = kind(find_root(source, root), **chosen)
    options = BuildOptions(
        name=name or dataset.default_name,
        split_policy=split_policy,
        samples_per_shard=samples_per_shard,
        limit=limit or 0,
        on_error=on_error,
        max_errors=-1 if max_errors is None else max_errors,
        overwrite=overwrite,
        workers=workers or processors(),
    )
    with progress("reading tables", "MB") as show:
        plan = make_plan(dataset, options, show)
    if dry_run:
        _print_plan(plan, out, as_json)
        return
    try:
        with progress(f"building {options.name}", "samples") as show:
            report = run_build(dataset, out, options, plan=plan, progress=show)
    except KeyboardInterrupt:
        click.echo("\ninterrupted: finished shards are kept; run the same command again to go on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)
    if report.left_out:
        sys.exit(EXIT_SKIPPED)


def _print_plan(plan: BuildPlan, out: Path, as_json: bool) -> None:
    if as_json:
        listed = [{"shard": s.shard, "split": s.split, "samples": len(s.records)} for s in plan.shards]
        print_json({"plan": plan.description, "shards": listed, "leaks": plan.leaks, "notes": plan.notes})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"plan for {out / plan.name}-*.tar (nothing was written)")
    for column, justify in (("split", "left"), ("samples", "right"), ("groups", "right"), ("shards", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for split in ("train", "val", "test"):
        shards = [shard for shard in plan.shards if shard.split == split]
        groups = {record.group for shard in shards for record in shard.records}
        table.add_row(split, f"{sum(len(s.records) for s in shards):,}", f"{len(groups):,}", f"{len(shards):,}")
    Console().print(table)
    print_left_out([(item.what, item.why) for item in plan.left_out], plan.notes, "")


def _print_report(report: BuildReport) -> None:
    parts = ", ".join(f"{split} {count:,} ({report.groups[split]:,} groups)" for split, count in report.samples.items())
    reused = f", {report.reused_shards} of them already there" if report.reused_shards else ""
    click.echo(f"{report.name}: {parts}; {report.shards} shards, {report.bytes / 1e6:,.1f} MB{reused}")
    print_left_out(
        [(item.what, item.why) for item in report.left_out],
        report.notes,
        f"{report.folder}/{report.name}.manifest.json lists all",
    )
    click.echo(f"next: hodata inspect '{report.folder}/{report.name}-*.tar' --sheet sheet.png", err=True)


for _command in (inspect, verify, index_command):
    cli.add_command(_command)


def main() -> None:
    """Entry point: errors that a user can cure are printed without a traceback, exit 1."""
    try:
        cli.main(prog_name="hodata", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HodataError as error:
        click.echo(f"error: {plain(str(error))}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
