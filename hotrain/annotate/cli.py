"""`hotrain annotate`: parse, call, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from hodata.labels import EXTENTS
from hodata.terminal import EXIT_INTERRUPTED, EXIT_SKIPPED, plain
from hotrain.decode import EXIF

FORMATS = ("png", "honnotate", "binary", "coco", "hold", "overlay", "confidence")  # a test keeps them those written


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="A run (its best), a checkpoint, or an .onnx file of `hotrain export` (needs no torch). Required.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write to.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="|".join(FORMATS),
    help="May be repeated or joined by commas.  [default: png]",
)
@click.option("--extent", type=click.Choice(EXTENTS), default="wrist", show_default=True, help="Where a hand ends.")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Of a video, every Nth frame.")
@click.option("--tta", type=click.Choice(["none", "flip"]), default="none", show_default=True, help="Ask twice.")
@click.option(
    "--refine",
    type=click.Choice(["auto", "crop", "none"]),
    default="auto",
    show_default=True,
    help="A closer look at hands: those seen under 96 pixels, all, none.",
)
@click.option("--keep-all", is_flag=True, help="honnotate: every part of a mask, not only those to trust.")
@click.option("--visualise", is_flag=True, help="honnotate: its pictures as well.")
@click.option(
    "--exif",
    type=click.Choice(EXIF),
    default="refuse",
    show_default=True,
    help="Pictures that viewers turn: skip them, turn them (as OpenCV does), or not (as Pillow does).",
)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N")
@click.option("--overwrite", is_flag=True, help="Begin anew where --out holds another model's annotation.")
@click.option(
    "--apply",
    "verdicts",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="REVIEW.JSON",
    help="Do what was decided on the page of `hotrain review`; no INPUT.",
)
@click.pass_context
def annotate(
    context: click.Context,
    inputs: Sequence[str],
    checkpoint: Path | None,
    out: Path,
    formats: Sequence[str],
    extent: str,
    every: int,
    tta: str,
    refine: str,
    keep_all: bool,
    visualise: bool,
    exif: str,
    batch_size: int,
    device: str,
    overwrite: bool,
    verdicts: Path | None,
) -> None:
    """Segment new recordings: images, folders, quoted globs, videos, HOnnotate or HO-3D trees, shards.

    Writes masks at the images' own size under their own names, and OUT/frames.jsonl: what is known of each frame. A
    stopped or killed run goes on when it is started again. Frames that cannot be read are listed; then the exit code
    is 3.

    --apply keeps accepted frames as a dataset in OUT/accepted, takes out rejected ones, and annotates the others again
    with --checkpoint, --tta and --refine.
    """
    if verdicts is not None:
        if inputs:
            raise click.UsageError("--apply takes no INPUT: the annotation in --out knows its frames")
        given = [
            context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE for name in ("tta", "refine")
        ]
        _apply(verdicts, out, checkpoint, device, tta if given[0] else "", refine if given[1] else "")
        return
    if checkpoint is None:
        raise click.UsageError("Missing option '--checkpoint'")
    if not inputs:
        raise click.UsageError("Missing argument 'INPUT...'")
    chosen = _formats(formats)
    from hotrain.annotate.inputs import find_frames
    from hotrain.annotate.pipeline import AnnotateConfig
    from hotrain.annotate.pipeline import annotate as run_annotate
    from hotrain.network import open_network

    config = AnnotateConfig(chosen, extent, batch_size, tta, refine, exif, keep_all, visualise)
    found = find_frames(inputs, every=every, out=out)
    summary = run_annotate(open_network(checkpoint, device), found, out, config, overwrite=overwrite)
    if summary.stopped:
        click.echo("stopped; what is finished is kept: run the same command again", err=True)
        sys.exit(EXIT_INTERRUPTED)
    flags = ", ".join(f"{name} {count:,}" for name, count in sorted(summary.flags.items()))
    click.echo(
        f"{summary.frames - summary.broken:,} frames annotated, {summary.broken:,} skipped"
        + (f"; to look at: {flags}" if flags else "")
        + f"; worst first: hotrain review {out}",
        err=True,
    )
    click.echo(out)
    if summary.broken:
        sys.exit(EXIT_SKIPPED)


def _apply(verdicts: Path, out: Path, checkpoint: Path | None, device: str, tta: str, refine: str) -> None:
    from hotrain.annotate.apply import apply_review
    from hotrain.annotate.review import read_review
    from hotrain.network import open_network

    network = open_network(checkpoint, device) if checkpoint is not None else None
    done = apply_review(out, read_review(verdicts), network, tta=tta, refine=refine)
    if done.stopped:
        click.echo("stopped; what is finished is kept: run the same command again", err=True)
        sys.exit(EXIT_INTERRUPTED)
    counts = f"{done.accepted:,} accepted, {done.rejected:,} rejected, {done.again:,} annotated again"
    if done.broken:
        counts += f", {done.broken:,} could not be read and stay as they were"
    click.echo(counts, err=True)
    if done.dataset is not None:
        click.echo(f"train on them: hodata build --source folder --root {done.dataset} --out shards/", err=True)
    click.echo(out)
    if done.broken:
        sys.exit(EXIT_SKIPPED)


def _formats(texts: Sequence[str]) -> tuple[str, ...]:
    names = [name.strip() for text in texts for name in text.split(",")] or ["png"]
    unknown = sorted(set(names) - set(FORMATS))
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}", param_hint="--format")
    return tuple(name for name in FORMATS if name in names)


@click.command()
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="A run (its best) or a checkpoint.")
@click.option("--format", "kind", type=click.Choice(["onnx"]), default="onnx", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file.  [default: RUN/model.onnx]")
def export(checkpoint: Path, kind: str, out: Path | None) -> None:
    """Write a run as one ONNX file and check that it answers the same.

    Any image size, normalisation inside, labels and input rule in the metadata; `hotrain annotate --checkpoint
    FILE.onnx` needs no torch.
    """
    from hotrain.checkpoint import find
    from hotrain.export import export_onnx

    path = out or checkpoint / "model.onnx"
    found = export_onnx(find(checkpoint), path)
    click.echo(
        f"against PyTorch: logits differ by at most {found.logits:.1e}, "
        f"{100 * found.equal:.3f} % of pixels have the same class",
        err=True,
    )
    click.echo(path)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--limit", type=click.IntRange(1), default=300, show_default=True, help="Frames on the page, worst first."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0: a free one.")
@click.option("--no-serve", is_flag=True, help="Only write DIR/review.html; opened as a file it offers a download.")
def review(folder: Path, limit: int, port: int, no_serve: bool) -> None:
    """Judge the frames of an annotation in a browser, the doubtful ones first; saves DIR/review.json.

    The page is served to this machine alone until Ctrl-C. `hotrain annotate --apply DIR/review.json --out DIR` does
    what was decided.
    """
    from hotrain.annotate.review import write_page
    from hotrain.annotate.serve import ReviewServer
    from hotrain.annotate.state import VERDICTS

    page = write_page(folder, limit, lambda text: click.echo(plain(text), err=True))
    if no_serve:
        click.echo(page)
        return
    with ReviewServer(folder, port, lambda count: click.echo(f"saved {count} verdicts", err=True)) as server:
        click.echo(server.address)
        click.echo("open this address; Ctrl-C ends", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            verdicts, next_step = folder / VERDICTS, "no verdict was given"
            if verdicts.is_file():
                next_step = f"do what was decided: hotrain annotate --apply {verdicts} --out {folder}"
            click.echo(next_step, err=True)
