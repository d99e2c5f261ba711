"""A disk that is full is told in words by all that write a file, and leaves the old file and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hodata.errors import HodataError
from hodata.report import html_page, save_png
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.annotate.files import write_atomic
from hotrain.annotate.video import write_video
from hotrain.errors import AnnotateError, CheckpointError, TrainingError
from hotrain.learning import card_facts
from hotrain.pictures import save_picture
from hotrain.progress import FileLog, read_log
from hotrain.scoring.calibration import Calibration, Reliability, write_calibration

PICTURE = np.zeros((4, 4, 3), np.uint8)
CALIBRATION = Calibration(1.5, Reliability(1.0, 0.1, ()), Reliability(0.9, 0.05, ()), {})


def write_card(folder: Path) -> None:
    card_facts.write_card(checkpoint.Checkpoint(folder, {}), SimpleNamespace())  # type: ignore[arg-type]


WRITERS: dict[str, tuple[str, type[HodataError], Callable[[Path], object]]] = {
    "png": ("a.png", HodataError, lambda path: save_png(path, PICTURE)),
    "picture": ("a.png", HodataError, lambda path: save_picture(Image.fromarray(PICTURE), path)),
    "annotation": ("a.png", AnnotateError, lambda path: write_atomic(path, b"new")),
    "video": ("a.mp4", AnnotateError, lambda path: write_video(path, iter([PICTURE] * 3), Fraction(25))),
    "calibration": ("calibration.json", CheckpointError, lambda path: write_calibration(path.parent, CALIBRATION)),
    "best": ("best.json", CheckpointError, lambda path: checkpoint.mark_best(path.parent, path, {})),
    "card": ("MODEL_CARD.md", CheckpointError, lambda path: write_card(path.parent)),
    "log": ("log.jsonl", TrainingError, lambda path: FileLog(path.parent, 0)),
}


def refuse_renames(patch: pytest.MonkeyPatch) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(Path, "replace", full)


@pytest.mark.parametrize("writer", WRITERS)
def test_each_writer(tmp_path: Path, writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if writer == "video":
        pytest.importorskip("av")
    name, kind, write = WRITERS[writer]
    monkeypatch.setattr(card_facts, "card_facts", lambda *_: None)
    monkeypatch.setattr(card_facts, "model_card", lambda _: "new")
    (tmp_path / name).write_text("old\n")
    with monkeypatch.context() as patch:
        refuse_renames(patch)
        with pytest.raises(kind, match=r"cannot be written \(.*No space left"):
            write(tmp_path / name)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "old\n"}
    write(tmp_path / name)
    assert (tmp_path / name).read_bytes() != b"old\n"


def test_the_page_of_shards(mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")
    with monkeypatch.context() as patch:
        refuse_renames(patch)
        with pytest.raises(HodataError, match="cannot be written"):
            html_page(mixed, page, limit=2)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_line_of_the_log(tmp_path: Path) -> None:
    log = FileLog(tmp_path, 0)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):  # `fit` says it and goes on
        log.scalars(4, "train", {"loss": 1.0})
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").write_text('{"position": 4, "ki')  # what the disk had room for
    log.scalars(8, "train", {"loss": 0.5})
    assert [entry["position"] for entry in read_log(tmp_path)] == [8]
    log.close()


def test_a_board_that_fails_is_asked_no_more(tmp_path: Path) -> None:
    class Full:
        def add_scalar(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = FileLog(tmp_path, 0)
    log.close()
    log._board = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        log.scalars(4, "train", {"loss": 1.0})
    log.scalars(8, "train", {"loss": 0.5})
    assert [entry["position"] for entry in read_log(tmp_path)] == [4, 8]
    log.close()
