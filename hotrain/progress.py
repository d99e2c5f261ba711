"""What a run tells while it runs: a bar on a terminal, plain lines elsewhere, log.jsonl and TensorBoard.

Only the main process has these; the others get the silent ones, so no caller asks which it has.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hodata.files import replacing
from hodata.terminal import plain
from hotrain.errors import TrainingError
from hotrain.scoring.metrics import figure_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch.utils.tensorboard.writer import SummaryWriter


class Progress:
    """Silent. Counts samples towards a total.

    Use as a context manager; `advance` after each batch, with figures worth seeing.
    """

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def advance(self, samples: int, **figures: float | None) -> None:
        """`samples` more are done; figures replace those of the same name."""

    def say(self, text: str) -> None:
        """One message for people."""


class PlainProgress(Progress):
    """One line on stderr every few seconds.

    Args:
        title: begins each line.
        total: samples of the whole.
        done: samples that were done before, when resuming.
        every: seconds between lines.
    """

    def __init__(self, title: str, total: int, done: int = 0, every: float = 10.0) -> None:
        self._title, self._total, self._first, self._done, self._every = title, total, done, done, every
        self._figures: dict[str, float | None] = {}
        self._begun = self._shown = time.monotonic()

    def advance(self, samples: int, **figures: float | None) -> None:
        self._done += samples
        self._figures.update(figures)
        now = time.monotonic()
        if now - self._shown < self._every and self._done < self._total:
            return
        self._shown = now
        rate = (self._done - self._first) / max(now - self._begun, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        share = 100 * self._done / max(self._total, 1)
        self.say(
            f"{self._title} {self._done}/{self._total} ({share:.0f} %)  {rate:.1f} images/s  "
            f"{_figures(self._figures)}  {_clock(left)} left"
        )

    def say(self, text: str) -> None:
        print(plain(text), file=sys.stderr, flush=True)


class TerminalProgress(Progress):
    """A bar on the terminal; arguments as of `PlainProgress`."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f} images/s"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, rate=0.0, figures="")
        self._figures: dict[str, float | None] = {}
        self._begun, self._count = time.monotonic(), 0

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def advance(self, samples: int, **figures: float | None) -> None:
        self._count += samples
        self._figures.update(figures)
        rate = self._count / max(time.monotonic() - self._begun, 1e-9)
        self._bar.update(self._task, advance=samples, rate=rate, figures=_figures(self._figures))

    def say(self, text: str) -> None:
        self._console.print(plain(text), highlight=False, markup=False)


def progress(title: str, total: int, done: int = 0, *, main: bool = True) -> Progress:
    """The right kind for this process: a bar on a terminal, lines elsewhere, nothing unless it is the main one."""
    if not main:
        return Progress()
    return TerminalProgress(title, total, done) if sys.stderr.isatty() else PlainProgress(title, total, done)


class RunLog:
    """Silent. Figures and pictures of a run by position."""

    def scalars(self, position: int, kind: str, figures: Mapping[str, float | None]) -> None:
        """Write figures of one kind (`train`, `val`); a None is left out of charts."""

    def picture(self, position: int, name: str, image: NDArray[np.uint8]) -> None:
        """Show uint8 [H, W, 3] in TensorBoard."""

    def close(self) -> None:
        pass


class FileLog(RunLog):
    """Writes RUN/log.jsonl, one object per line, and RUN/tensorboard.

    A resumed run first drops the lines that lie behind its checkpoint: they are about to be written again.

    Raises:
        TrainingError: they cannot be written. The methods raise OSError.
    """

    def __init__(self, run: Path, start: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter as Board

        self._path = run / "log.jsonl"
        kept = [entry for entry in read_log(run) if entry["position"] <= start] if start else []
        try:
            run.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:  # a full disk leaves what was there
                temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
            self._board: SummaryWriter | None = Board(str(run / "tensorboard"), purge_step=start or None)
        except OSError as error:
            again = "go on with --resume" if start else "start again"
            why = f"the log cannot be written ({error.strerror or error}); is the disk full?"
            raise TrainingError(f"{run}: {why} Make room, and {again}") from error
        self._torn = False

    def scalars(self, position: int, kind: str, figures: Mapping[str, float | None]) -> None:
        entry: dict[str, Any] = {"position": position, "kind": kind, **figures}
        line = "\n" * self._torn + json.dumps(entry) + "\n"  # half of one may stand there
        self._torn = True
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
        self._torn = False
        with self._on_board() as board:
            for name, value in figures.items():
                if board is not None and value is not None:
                    board.add_scalar(f"{kind}/{name}", value, position)

    def picture(self, position: int, name: str, image: NDArray[np.uint8]) -> None:
        with self._on_board() as board:
            if board is not None:
                board.add_image(name, image, position, dataformats="HWC")

    def close(self) -> None:
        with suppress(OSError), self._on_board() as board:  # a disk that is full: who wrote last was told
            if board is not None:
                board.close()

    @contextmanager
    def _on_board(self) -> Iterator[SummaryWriter | None]:
        """TensorBoard's writer, until it fails: its thread would raise the same error ever after."""
        try:
            yield self._board
        except OSError:
            self._board = None
            raise


def read_log(run: Path) -> list[dict[str, Any]]:
    """The entries of RUN/log.jsonl in order; a line that a killed run left half-written is skipped."""
    entries = []
    path = run / "log.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def _figures(figures: Mapping[str, float | None]) -> str:
    return "  ".join(f"{name} {figure_text(value)}" for name, value in figures.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
