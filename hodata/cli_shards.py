"""`hodata inspect`, `verify` and `index`: the commands that read shards. Parse, call, print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from hodata.terminal import EXIT_SKIPPED, plain, print_json, print_left_out, progress

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

where_option = click.option(
    "--where",
    default="",
    metavar="EXPRESSION",
    help="Only samples for which this holds: \"source = 'ho3d_v3' and held\".",
)
exclude_option = click.option(
    "--exclude",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A text file of keys to leave out, one a line; may be repeated.",
)


@click.command()
@click.argument("shards", nargs=-1, required=True)
@where_option
@exclude_option
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
        click.echo(f"note: {plain(note)}", err=True)
    summary = inspect_summary(index, rows)
    if as_json:
        print_json(summary)
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


@click.command()
@click.argument("shards", nargs=-1, required=True)
@click.option("--full", is_flag=True, help="Every byte, every image decoded, every label id.")
@where_option
@exclude_option
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes.  [default: processors]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(
    shards: Sequence[str], full: bool, where: str, exclude: Sequence[Path], workers: int | None, as_json: bool
) -> None:
    """Check SHARDS against their index and manifest; exit 1 if anything is wrong.

    Without --full it promises file sizes, the index and the table of members, and no more. With --full, --where and
    --exclude choose which samples are decoded; every byte is still read.
    """
    from hodata.processes import processors
    from hodata.shards.select import Selector
    from hodata.shards.verify import verify as run_verify

    selector = Selector.of(where, exclude)
    if selector and not full:
        raise click.UsageError("--where and --exclude choose what --full decodes; without it nothing is")
    with progress("verifying", "MB" if full else "shards") as show:
        result = run_verify(
            shards,
            full=full,
            workers=workers or processors(),
            selector=selector,
            progress=_in_megabytes(show) if full else show,
        )
    for note in result.notes:
        click.echo(f"note: {plain(note)}", err=True)
    if as_json:
        print_json(result.to_json())
    else:
        for problem in result.problems:
            place = " ".join(
                part
                for part in (problem.shard, problem.key, f"at {problem.offset}" if problem.offset >= 0 else "")
                if part
            )
            click.echo(plain(f"{place}: {problem.what}"))
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


@click.command("index")
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
    from hodata.processes import processors
    from hodata.shards.foreign import ForeignOptions, index_tars

    if image_suffix:
        options["image_suffixes"] = tuple(suffix.lower() for suffix in image_suffix)
    options["split"] = options["split"] or ""
    with progress("indexing", "MB") as show:
        found = index_tars(
            tars, ForeignOptions(**options), workers=workers or processors(), progress=_in_megabytes(show)
        )
    left_out = [item for tar in found for item in tar.left_out]
    samples = sum(tar.samples for tar in found)
    if as_json:
        print_json({"samples": samples, "left_out": len(left_out), "shards": [tar.to_json() for tar in found]})
    else:
        click.echo(f"{len(found):,} tars: {samples:,} samples indexed, {len(left_out):,} left out")
        for folder in sorted({str(Path(tar.index).parent) for tar in found}):
            click.echo(f"indexes in {plain(folder)}", err=True)
        print_left_out([(item["what"], item["why"]) for item in left_out], (), "the indexes list all")
    if left_out:
        sys.exit(EXIT_SKIPPED)


def _in_megabytes(show: Callable[[int, int], None]) -> Callable[[int, int], None]:
    return lambda done, total: show(done // 1_000_000, -(-total // 1_000_000))
