"""The `hodata` command: parse, call, print. Nothing is decided here, and only here do people get answers."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hodata.errors import HodataError

if TYPE_CHECKING:
    from hodata.build import BuildPlan, BuildReport

EXIT_SKIPPED = 3
EXIT_INTERRUPTED = 75
_SHOWN = 12  # how many skipped items the screen lists; the manifest lists all

MEANINGS = (
    "exact",
    "egohos",
    "hand-wrist",
    "hand-rendered",
    "hand-arm",
    "hand-object-wrist",
    "object-amodal",
    "hand-object-arm",
)
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
    from hodata.build import default_workers
    from hodata.synth.miniatures import write_miniatures

    every = not sources or "all" in sources
    names = tuple(name for name in SYNTH_SOURCES if every or name in sources)
    with _progress("drawing", "pictures") as progress:
        facts = write_miniatures(out, names, frames, seed, workers or default_workers(), progress)
    if as_json:
        _print_json(facts)
        return
    for name in names:
        click.echo(f"{out / name}: {_use_of(name, out)}")


def _use_of(name: str, out: Path) -> str:
    """What to do with a miniature."""
    if name in ("mano", "ycb"):
        return f"goes with  hodata build --source ho3d ... --{name} {out / name}"
    models = f" --mano {out / 'mano'} --ycb {out / 'ycb'}" if name.startswith("ho3d") else ""
    source = "ho3d" if name.startswith("ho3d") else name
    return f"build it with  hodata build --source {source} --root {out / name}{models} --out shards/"


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
        _print_json(
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
@click.option("--name", help="File prefix and name in every table.  [default: the source's name]")
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
    from hodata.build import BuildOptions, default_workers, make_plan
    from hodata.build import build as run_build
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
        workers=workers or default_workers(),
    )
    with _progress("reading tables", "MB") as progress:
        plan = make_plan(dataset, options, progress)
    if dry_run:
        _print_plan(plan, out, as_json)
        return
    try:
        with _progress(f"building {options.name}", "samples") as progress:
            report = run_build(dataset, out, options, plan=plan, progress=progress)
    except KeyboardInterrupt:
        click.echo("\ninterrupted: finished shards are kept; run the same command again to go on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if as_json:
        _print_json(report.to_json())
    else:
        _print_report(report)
    if report.left_out:
        sys.exit(EXIT_SKIPPED)


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
@click.argument("shards", nargs=-1, required=True)
@_where
@_exclude
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Write a contact sheet (PNG).")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a self-contained page.")
@click.option("--worst", type=click.IntRange(1), help="Put the N worst samples on the sheet, worst first; see --by.")
@click.option(
    "--by",
    type=click.Choice(["joints", "corners", "silhouette", "seg"]),
    help="What --worst goes by: mm of hand joints or object corners, IoU with shipped masks or segmentation.",
)
def inspect(
    shards: Sequence[str],
    where: str,
    exclude: Sequence[Path],
    as_json: bool,
    sheet: Path | None,
    html: Path | None,
    worst: int | None,
    by: str | None,
) -> None:
    """Show what is in SHARDS: files, folders or quoted globs.

    \b
    hodata inspect shards/ --sheet sheet.png --html shards.html
    hodata inspect shards/ --where "split = 'test' and pixels_hand < 2000" --sheet small-hands.png
    hodata inspect shards/ --worst 50 --by joints --sheet worst.png
    """
    if (worst is None) != (by is None):
        raise click.UsageError("--worst N and --by go together")
    from hodata.report import contact_sheet, html_page, inspect_summary, inspect_tables, worst_rows, worst_sheet
    from hodata.shards.reader import ShardIndex
    from hodata.shards.select import Selector, select_rows

    selector = Selector.of(where, exclude)
    index = ShardIndex.open(shards)
    selected = select_rows(index, selector) if selector else None
    rows = selected.rows if selected else None
    for note in selected.notes if selected else ():
        click.echo(f"note: {_plain(note)}", err=True)
    summary = inspect_summary(index, rows)
    if as_json:
        _print_json(summary)
    else:
        from rich.console import Console

        console = Console()
        for table in inspect_tables(summary):
            console.print(table)
    for name in index.incomplete:
        click.echo(f"note: the build {name!r} is not complete (no {name}.manifest.json); run it again", err=True)
    if worst is not None and by is not None:
        found, values = worst_rows(index, by, worst, rows)
        if not as_json:
            keys = index.column("key")[found]
            for key, value in zip(keys, values, strict=True):
                click.echo(f"{value:10.4f}  {key}")
    if sheet:
        if worst is not None and by is not None:
            worst_sheet(index, by, worst, sheet, rows=rows)
        else:
            contact_sheet(index, rows, sheet)
        click.echo(f"contact sheet: {sheet}", err=True)
    if html:
        html_page(index, html, rows=rows)
        click.echo(f"page: {html}", err=True)


@cli.command()
@click.argument("shards", nargs=-1, required=True)
@click.option("--full", is_flag=True, help="Every byte, every image decoded, every label id.")
@_where
@_exclude
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes.  [default: processors]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(
    shards: Sequence[str], full: bool, where: str, exclude: Sequence[Path], workers: int | None, as_json: bool
) -> None:
    """Check SHARDS against their index and manifest; exit 1 if anything is wrong.

    Without --full it promises file sizes, the index and the table of members, and no more. With --full, --where and
    --exclude choose which samples are decoded; every byte is still read.
    """
    from hodata.build import default_workers
    from hodata.shards.select import Selector
    from hodata.shards.verify import verify as run_verify

    selector = Selector.of(where, exclude)
    if selector and not full:
        raise click.UsageError("--where and --exclude choose what --full decodes; without it nothing is")
    with _progress("verifying", "MB" if full else "shards") as show:
        result = run_verify(
            shards,
            full=full,
            workers=workers or default_workers(),
            selector=selector,
            progress=_in_megabytes(show) if full else show,
        )
    for note in result.notes:
        click.echo(f"note: {_plain(note)}", err=True)
    if as_json:
        _print_json(result.to_json())
    else:
        for problem in result.problems:
            place = " ".join(
                part
                for part in (problem.shard, problem.key, f"at {problem.offset}" if problem.offset >= 0 else "")
                if part
            )
            click.echo(_plain(f"{place}: {problem.what}"))
        checked = "sizes, index and member table (--full checks the rest)"
        if full:
            of = "every image and label id" if not selector else f"images and label ids of {result.decoded:,} samples"
            checked = f"every byte, {of}"
        verdict = "ok" if result.ok else f"{len(result.problems)} problems"
        click.echo(f"{verdict}: {result.samples:,} samples; checked {checked}")
        if result.foreign:
            what = f"{result.foreign:,} of {result.shards:,} tars are of other programs and have no manifest"
            click.echo(f"{what}: checked against what `hodata index` recorded")
    if not result.ok:
        sys.exit(1)


@cli.command("index")
@click.argument("tars", nargs=-1, required=True)
@click.option(
    "--meaning", required=True, type=click.Choice(MEANINGS), help="What the masks mean, see docs/meanings.md."
)
@click.option("--mask-suffix", default="mask.png", show_default=True, help="A mask's name, after key and dot.")
@click.option(
    "--image-suffix",
    multiple=True,
    help="An image's name, after key and dot; may be repeated.  [default: jpg, jpeg, png]",
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="[default: the word in each tar's name]")
@click.option(
    "--group-pattern",
    default="",
    metavar="REGEX",
    help="On the key: its (...) name the recording, which stands on one side of a split.  [default: each tar is one]",
)
@click.option("--name", default="", help="The source's name in every table.  [default: from the tars' names]")
@click.option("--mask-origin", default="", help="human, polygon, chroma, rendered or model:<which>.")
@click.option("--prefix-keys", is_flag=True, help="Put the tar's name before keys: for tars that number anew.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the indexes; later commands find them there with HODATA_CACHE set to it.  "
    "[default: beside the tars; where that is read-only, $HODATA_CACHE or ~/.cache/hodata]",
)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes.  [default: processors]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def index_command(
    tars: Sequence[str], image_suffix: Sequence[str], workers: int | None, as_json: bool, **options: Any
) -> None:
    """Index TARS that other programs wrote, so that they are read like shards. They are not changed.

    A sample is an image and a mask with one key, as webdataset groups them. Masks hold the label ids of the format
    (shards/README.md). Samples that cannot be used are listed (exit 3).

    \b
    hodata index 'data/*.tar' --meaning hand-wrist --mask-suffix seg.png --split train --group-pattern '^([^/]+)/'
    """
    from hodata.build import default_workers
    from hodata.shards.foreign import ForeignOptions, index_tars

    if image_suffix:
        options["image_suffixes"] = tuple(suffix.lower() for suffix in image_suffix)
    options["split"] = options["split"] or ""
    with _progress("indexing", "MB") as show:
        found = index_tars(
            tars, ForeignOptions(**options), workers=workers or default_workers(), progress=_in_megabytes(show)
        )
    left_out = [item for tar in found for item in tar.left_out]
    samples = sum(tar.samples for tar in found)
    if as_json:
        _print_json({"samples": samples, "left_out": len(left_out), "shards": [tar.to_json() for tar in found]})
    else:
        click.echo(f"{len(found):,} tars: {samples:,} samples indexed, {len(left_out):,} left out")
        for folder in sorted({str(Path(tar.index).parent) for tar in found}):
            click.echo(f"indexes in {_plain(folder)}", err=True)
        _print_left_out([_Item(**item) for item in left_out], (), "the indexes list all")
    if left_out:
        sys.exit(EXIT_SKIPPED)


@dataclass(frozen=True)
class _Item:
    what: str
    why: str


def _in_megabytes(show: Callable[[int, int], None]) -> Callable[[int, int], None]:
    return lambda done, total: show(done // 1_000_000, -(-total // 1_000_000))


def _print_plan(plan: BuildPlan, out: Path, as_json: bool) -> None:
    if as_json:
        listed = [{"shard": s.shard, "split": s.split, "samples": len(s.records)} for s in plan.shards]
        _print_json({"plan": plan.description, "shards": listed, "leaks": plan.leaks, "notes": plan.notes})
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
    _print_left_out(plan.left_out, plan.notes, "")


def _print_report(report: BuildReport) -> None:
    parts = ", ".join(f"{split} {count:,} ({report.groups[split]:,} groups)" for split, count in report.samples.items())
    reused = f", {report.reused_shards} of them already there" if report.reused_shards else ""
    click.echo(f"{report.name}: {parts}; {report.shards} shards, {report.bytes / 1e6:,.1f} MB{reused}")
    _print_left_out(report.left_out, report.notes, f"{report.folder}/{report.name}.manifest.json lists all")
    click.echo(f"next: hodata inspect '{report.folder}/{report.name}-*.tar' --sheet sheet.png", err=True)


def _print_left_out(left_out: Sequence[Any], notes: Sequence[str], rest: str) -> None:
    for note in notes:
        click.echo(f"note: {_plain(note)}", err=True)
    if left_out:
        click.echo(f"left out: {len(left_out):,}", err=True)
        for item in left_out[:_SHOWN]:
            what = _plain(item.what).replace("\n", "?")
            click.echo(f"  {what}: {_plain(item.why)}", err=True)
        if len(left_out) > _SHOWN:
            click.echo(f"  ... and {len(left_out) - _SHOWN:,} more {f'({rest})' if rest else ''}", err=True)


def _plain(text: str) -> str:
    """File names are anybody's words: nothing in them moves a cursor or sets a colour."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left on a terminal; plain lines otherwise. Both on stderr."""
    import time

    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{unit}  {{task.fields[rate]}}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=None, rate="")
            start, first = time.monotonic(), -1

            def show(done: int, total: int) -> None:
                nonlocal first
                first = done if first < 0 else first
                seconds = time.monotonic() - start
                rate = f"{(done - first) / seconds:,.0f}/s" if seconds > 0.5 and done > first else ""
                bar.update(task, completed=done, total=total, rate=rate)

            yield show
        return
    start, last, first = time.monotonic(), time.monotonic(), -1

    def line(done: int, total: int) -> None:
        nonlocal last, first
        first = done if first < 0 else first
        now = time.monotonic()
        if now - last < 10 and done < total:
            return
        last = now
        rate = (done - first) / max(now - start, 1e-9)
        left = f", {(total - done) / rate:,.0f} s left" if rate > 0 and done < total else ""
        click.echo(f"{what}: {done:,} of {total:,} {unit}, {rate:,.0f}/s{left}", err=True)

    yield line


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
        click.echo(f"error: {_plain(str(error))}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
