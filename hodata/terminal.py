"""What both halves of the command line print with: one JSON document, names made harmless, progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

EXIT_SKIPPED = 3  # done, but some input was left out
EXIT_INTERRUPTED = 75  # stopped; what is finished is kept, and the same command (of `fit` with --resume) goes on
_SHOWN = 12  # how many skipped items the screen lists; the manifest lists all


def plain(text: str) -> str:
    """File names are anybody's words: nothing in them moves a cursor or sets a colour."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def print_json(value: object) -> None:
    """In ASCII: any terminal and any pipe takes it, and nothing in a name moves a cursor."""
    click.echo(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


def print_left_out(left_out: Sequence[tuple[str, str]], notes: Sequence[str], rest: str) -> None:
    """Notes, and the first of what was left out with its reason; `rest` says where the others are listed."""
    for note in notes:
        click.echo(f"note: {plain(note)}", err=True)
    if left_out:
        click.echo(f"left out: {len(left_out):,}", err=True)
        for name, why in left_out[:_SHOWN]:
            what = plain(name).replace("\n", "?")
            click.echo(f"  {what}: {plain(why)}", err=True)
        if len(left_out) > _SHOWN:
            click.echo(f"  ... and {len(left_out) - _SHOWN:,} more {f'({rest})' if rest else ''}", err=True)


@contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
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
