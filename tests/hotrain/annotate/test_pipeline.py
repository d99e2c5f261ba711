"""The whole way: restarts give the same bytes, broken frames are counted, other models are refused."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import ColorNetwork, paint, scene, tree_bytes, write_frames, write_image
from PIL import Image

from hotrain.annotate import pipeline
from hotrain.annotate.inputs import find_frames
from hotrain.annotate.pipeline import AnnotateConfig, Summary, annotate
from hotrain.annotate.state import current_records
from hotrain.decide import decide
from hotrain.errors import AnnotateError, CheckpointError
from hotrain.network import finite

EVERYTHING = ("png", "honnotate", "binary", "coco", "overlay", "confidence")


def run(root: Path | str, out: Path, network: Any = None, **options: Any) -> Summary:
    options = {"formats": EVERYTHING, "batch_size": 3, **options}
    return annotate(network or ColorNetwork(), find_frames([str(root)], out=out), out, AnnotateConfig(**options))


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]


def test_mixed_sizes_and_odd_files(tmp_path: Path) -> None:
    """Every frame at its own size under its own name; what cannot be read is counted and the others go on."""
    root = write_frames(tmp_path / "in", 4)
    write_image(root / "tall" / "1.png", scene(0, (40, 90))[0])
    write_image(root / "one.png", np.full((1, 1, 3), 200, np.uint8))
    write_image(root / "wide.png", scene(0, (2000, 30))[0])
    write_image(root / "été 手" / "0.png")
    write_image(Path(os.fsdecode(bytes(root / "latin-") + b"\xe9.png")))
    (root / "empty.png").write_bytes(b"")
    (root / "text.jpg").write_text("Hello\n")
    summary = run(root, tmp_path / "out", refine="crop", tta="flip")
    assert (summary.frames, summary.broken) == (11, 2)
    found = {row["frame"]: row for row in rows(tmp_path / "out")}
    assert found["empty"]["status"] == found["text"]["status"] == "broken" and "0 bytes" in found["empty"]["error"]
    for name in ("0", "tall/1", "one", "wide", "été 手/0"):
        with Image.open(root / f"{name}.png") as image, Image.open(tmp_path / "out" / "png" / f"{name}.png") as mask:
            assert image.size == mask.size == (found[name]["width"], found[name]["height"])
    assert found["0"]["hand"]["area"] == int((scene()[1] == 1).sum())
    assert not list((tmp_path / "out" / "png").glob("text*"))
    assert os.path.exists(bytes(tmp_path / "out" / "png" / "latin-") + b"\xe9.png")  # noqa: PTH110 - a name not in UTF-8


def test_a_shorter_list_of_frames_leaves_nothing_of_the_longer_one(tmp_path: Path) -> None:
    root, out = write_frames(tmp_path / "in", 11), tmp_path / "out"
    run(root, out, formats=("png", "coco"))
    for number in range(7):
        (root / f"{number}.png").unlink()
    write_image(root / "10.png", scene(3)[0])
    run(root, out, formats=("png", "coco"))
    run(root, tmp_path / "plain", formats=("png", "coco"))
    assert [record["row"]["frame"] for record in current_records(out)] == ["7", "8", "9", "10"]
    for name in ("frames.jsonl", "coco.json", "png/10.png"):
        assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert current_records(out) == current_records(tmp_path / "plain")
    assert (out / "png/3.png").exists()  # masks are not taken away: their frames may be annotated from elsewhere


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    root, out = write_frames(tmp_path / "in", 2), tmp_path / "out"

    class Second(ColorNetwork):
        def logits(self, prepared: Any) -> Any:
            with pytest.raises(AnnotateError, match="another `hotrain annotate` is writing here"):
                run(root, out)
            return super().logits(prepared)

    assert run(root, out, Second()).frames == 2
    assert not (out / ".annotate.lock").exists()


def test_where_no_open_file_can_be_removed_it_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows, which has no `fcntl` either."""
    remove = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == ".annotate.lock":
            raise PermissionError(13, "in use")
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert run(write_frames(tmp_path / "in", 2), tmp_path / "out").frames == 2


def test_an_image_that_no_memory_holds_is_one_broken_frame(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 2)
    write_image(root / "line.png", np.full((1, 4000, 3), 90, np.uint8))
    summary = run(root, tmp_path / "out")
    assert (summary.frames, summary.broken) == (3, 1)
    error = next(row["error"] for row in rows(tmp_path / "out") if row["frame"] == "line")
    assert "is 4000x1: the network would see it at 192000x48" in error


def test_binary_cannot_tell_some_folders_apart(tmp_path: Path) -> None:
    for name in ("a/rgb/b/1.png", "a/b/rgb/1.png"):
        write_image(tmp_path / "in" / name)
    with pytest.raises(AnnotateError, match="have one sequence, camera and stem"):
        run(tmp_path / "in", tmp_path / "out", formats=("binary",))
    assert run(tmp_path / "in", tmp_path / "out", formats=("honnotate",)).frames == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_answers_no_numbers_is_told(tmp_path: Path, value: float) -> None:
    """Of the kernel's table of exponentials such a distance has no place."""
    logits = np.zeros((3, 6, 8), np.float32)
    logits[:, 2, 3] = value
    classes, confidence = decide(logits, (16, 12), np.array([0, 1, 2], np.uint8))
    assert classes.shape == confidence.shape == (12, 16)
    with pytest.raises(CheckpointError, match="not finite"):
        finite(logits)


def test_an_interrupted_annotation_ends_with_the_same_bytes(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 11)
    run(root, tmp_path / "whole")

    class Failing(ColorNetwork):
        def logits(self, prepared: Any) -> Any:
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().logits(prepared)

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(root, tmp_path / "out", Failing(), refine="none")
    assert not (tmp_path / "out" / "frames.jsonl").exists()
    run(root, tmp_path / "out", refine="none")
    run(root, tmp_path / "plain", refine="none")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "plain")
    again = ColorNetwork()
    summary = run(root, tmp_path / "out", again, refine="none")
    assert (summary.before, again.calls) == (11, 0)
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "plain")


_KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from drawn import ColorNetwork
from hotrain.annotate.inputs import find_frames
from hotrain.annotate.pipeline import AnnotateConfig, annotate

class Slow(ColorNetwork):
    def logits(self, prepared):
        time.sleep(0.02)
        return super().logits(prepared)

config = AnnotateConfig(formats=("png", "honnotate", "coco", "overlay", "confidence"), batch_size=3, tta="flip")
annotate(Slow(), find_frames([sys.argv[2]], out=Path(sys.argv[3])), Path(sys.argv[3]), config)
"""


def _start(root: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _KILLED, str(Path(__file__).parent), str(root), str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ.copy())


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_at_random_and_restarted(tmp_path: Path, kills: int) -> None:
    """SIGKILL at random moments after the first file; the end is byte for byte that of an undisturbed run."""
    root = write_frames(tmp_path / "in", 24 * kills, (96, 72))
    assert _start(root, tmp_path / "whole").wait() == 0
    draw, killed = random.Random(kills), 0
    for _ in range(kills):
        state = tmp_path / "out" / ".annotate" / "batches"
        seen = len(list(state.glob("*.json"))) if state.is_dir() else 0
        process = _start(root, tmp_path / "out")
        while process.poll() is None and len(list(state.glob("*.json")) if state.is_dir() else ()) <= seen:
            time.sleep(0.005)
        time.sleep(draw.random() * 0.15)
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed >= kills - 1
    assert _start(root, tmp_path / "out").wait() == 0
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "whole")


def test_a_stop_signal_keeps_what_is_finished(tmp_path: Path) -> None:
    import signal

    root = write_frames(tmp_path / "in", 60)

    class Stopping(ColorNetwork):
        def logits(self, prepared: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().logits(prepared)

    summary = run(root, tmp_path / "out", Stopping(), refine="none")
    assert summary.stopped and not (tmp_path / "out" / "frames.jsonl").exists()
    finished = list((tmp_path / "out" / ".annotate" / "batches").glob("*.json"))
    assert 1 <= len(finished) < 20
    assert run(root, tmp_path / "out", refine="none").before == 3 * len(finished)


def test_broken_frames_are_tried_again_and_changed_frames_done_again(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 6)
    whole = (root / "1.png").read_bytes()
    (root / "1.png").write_bytes(whole[:80])
    assert run(root, tmp_path / "out").broken == 1
    (root / "1.png").write_bytes(whole)
    write_image(root / "5.png", paint(np.zeros((48, 64), np.uint8)))
    (tmp_path / "out" / "png" / "0.png").unlink()
    summary = run(root, tmp_path / "out")
    assert (summary.broken, summary.before) == (0, 0)
    assert rows(tmp_path / "out")[5]["hand"]["area"] == 0
    run(root, tmp_path / "fresh")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "fresh")


def test_new_frames_are_added(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 7)
    run(root, tmp_path / "out")
    write_frames(root, 4, start=7)
    assert run(root, tmp_path / "out").before == 6
    run(root, tmp_path / "fresh")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "fresh")


def test_another_model_or_other_options_are_refused(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 2)
    run(root, tmp_path / "out")
    before = tree_bytes(tmp_path / "out")
    with pytest.raises(AnnotateError, match="model: colors-48 there, colors-40 now"):
        run(root, tmp_path / "out", ColorNetwork(size=40))
    with pytest.raises(AnnotateError, match=r"extent: wrist there, arm now.*--overwrite"):
        run(root, tmp_path / "out", extent="arm")
    assert tree_bytes(tmp_path / "out") == before
    config = AnnotateConfig(formats=EVERYTHING, batch_size=3, extent="arm")
    annotate(ColorNetwork(), find_frames([str(root)]), tmp_path / "out", config, overwrite=True)
    run(root, tmp_path / "fresh", extent="arm")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "fresh")


def test_not_one_good_frame_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_text("text")
    with pytest.raises(AnnotateError, match=r"none of the 1 frames.*not an image"):
        run(tmp_path / "in", tmp_path / "out")


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 2)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(AnnotateError, match="cannot be written"):
        run(root, tmp_path / "out")


def test_large_pictures_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image over the limit is decoded again where its pixels are needed, to the same files."""
    from hotrain.annotate import loading

    root = write_frames(tmp_path / "in", 4)
    run(root, tmp_path / "held", refine="crop")
    monkeypatch.setattr(loading, "_LARGE", 10)
    run(root, tmp_path / "again", refine="crop")
    assert tree_bytes(tmp_path / "held") == tree_bytes(tmp_path / "again")


def test_shards_are_annotated_by_key(tmp_path: Path, shards: Any) -> None:
    from drawn_shards import Spec

    folder = shards(Spec("toy", samples=3))
    summary = run(f"{folder}/*.tar", tmp_path / "out", formats=("png",))
    assert (summary.frames, summary.broken) == (3, 0)
    assert sorted(path.name for path in (tmp_path / "out" / "png").rglob("*.png")) == [
        f"toy_train_{number}.png" for number in range(3)
    ]


def test_every_frame_named_broken_is_listed_but_not_all_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_SHOWN", 2)
    root = write_frames(tmp_path / "in", 1)
    for number in range(5):
        (root / f"b{number}.png").write_bytes(b"")
    assert run(root, tmp_path / "out").broken == 5
    assert capsys.readouterr().err.count("skipped") == 2
    assert sum(row["status"] == "broken" for row in rows(tmp_path / "out")) == 5
