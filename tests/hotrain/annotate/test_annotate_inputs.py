"""What becomes a frame, in which order, under which name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from drawn import write_frames, write_image
from drawn_shards import Spec, draw, encode

from hodata.labels import MEANINGS
from hodata.sample import Record, Sample, mask_instances
from hodata.shards.index import IndexInfo
from hodata.shards.writer import ShardWriter
from hotrain.annotate.inputs import find_frames, safe_name
from hotrain.errors import AnnotateError


def names(*inputs: Path | str, out: Path | None = None) -> list[str]:
    return [frame.name for frame in find_frames([str(text) for text in inputs], out=out).frames]


def test_a_folder_is_sorted_naturally_and_its_tree_is_mirrored(tmp_path: Path) -> None:
    for name in ("frame10.png", "frame9.jpg", "b/2.png", "b/10.png", "a01/5.png", "a1/3.png", "a1/7.png", "a01/8.png"):
        write_image(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    write_image(tmp_path / "in" / ".hidden.png")
    found = names(tmp_path / "in")
    assert found == ["a01/5", "a01/8", "a1/3", "a1/7", "b/2", "b/10", "frame9", "frame10"]


def test_files_and_globs_are_named_below_their_common_folder(tmp_path: Path) -> None:
    for name in ("one/1.png", "two/1.png", "two/2.png"):
        write_image(tmp_path / name)
    assert names(tmp_path / "*" / "*.png") == ["one/1", "two/1", "two/2"]
    assert names(tmp_path / "two" / "*.png") == ["1", "2"]
    assert names(tmp_path / "one" / "1.png") == ["1"]
    assert names(tmp_path / "two" / "1.png", tmp_path / "two" / "*.png") == ["1", "2"]


def test_several_folders_keep_their_own_names(tmp_path: Path) -> None:
    write_frames(tmp_path / "one", 1)
    write_frames(tmp_path / "two", 1)
    assert names(tmp_path / "one", tmp_path / "two") == ["one/0", "two/0"]
    write_frames(tmp_path / "else" / "one", 1)
    with pytest.raises(AnnotateError, match=r"would both be written as one/0"):
        names(tmp_path / "one", tmp_path / "else" / "one")


def test_files_that_differ_in_the_extension_keep_it(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        write_image(tmp_path / name)
    assert names(tmp_path) == ["a.jpg", "a.png", "b"]


@pytest.mark.parametrize("at", ["root", "sequence"])
def test_a_honnotate_tree(tmp_path: Path, at: str) -> None:
    """Only rgb is read, also where segmentations already lie beside it and are to be replaced."""
    for camera in ("0", "1"):
        write_frames(tmp_path / "root" / "seq" / "rgb" / camera, 2)
        write_image(tmp_path / "root" / "seq" / "depth" / camera / "0.png")
        write_image(tmp_path / "root" / "seq" / "segmentation" / camera / "raw_seg_results" / "0.png")
    root = tmp_path / "root" if at == "root" else tmp_path / "root" / "seq"
    frames = find_frames([str(root)], out=root).frames
    sequence = "seq" if at == "root" else ""
    assert [(frame.sequence, frame.camera, frame.stem) for frame in frames] == [
        (sequence, camera, stem) for camera in "01" for stem in "01"
    ]


def test_a_ho3d_tree(tmp_path: Path) -> None:
    for name in ("train/ABF10", "train/ABF11", "evaluation/SM1"):
        write_image(tmp_path / name / "rgb" / "0000.jpg")
        write_image(tmp_path / name / "depth" / "0000.png")
    frames = find_frames([str(tmp_path)]).frames
    assert [(f.sequence, f.camera, f.stem) for f in frames] == [
        ("evaluation/SM1", "", "0000"),
        ("train/ABF10", "", "0000"),
        ("train/ABF11", "", "0000"),
    ]


def test_one_sequence_of_ho3d(tmp_path: Path) -> None:
    """Given alone, its depth and segmentation are no frames either."""
    for kind in ("rgb", "depth", "seg"):
        write_image(tmp_path / "train" / "ABF10" / kind / "0000.png")
    assert names(tmp_path / "train" / "ABF10") == ["rgb/0000"]
    assert names(tmp_path / "train") == ["ABF10/rgb/0000"]
    (frame,) = find_frames([str(tmp_path / "train")]).frames
    assert (frame.sequence, frame.camera, frame.stem) == ("ABF10", "", "0000")


def test_names_that_would_leave_the_output_are_refused() -> None:
    assert safe_name("a/b c/é") and safe_name("..a/b..") and safe_name("a\\b")
    assert not any(map(safe_name, ("../a", "a/../b", "/a", "a//b", "", ".", "a\0")))


def test_a_shard_s_key_does_not_lead_out_of_the_output(tmp_path: Path) -> None:
    """Shards may be anybody's: a key is a name like any other."""
    image, mask = draw(Spec("a"), 0)
    sample = Sample(encode(image, "png"), "png", mask, "exact", instances=mask_instances(mask))
    info = IndexInfo("a", "0" * 64, {}, (MEANINGS["exact"].to_json(),), ())
    for key in ("fine", "../../x"):
        (folder := tmp_path / key.replace("/", "_")).mkdir()
        with ShardWriter(folder, "a-train-000000", info, "none", False) as writer:
            writer.add(sample, Record(key, "a/1", "", "x.png"), key=key, split="train")
    assert names(tmp_path / "fine" / "*.tar") == ["a/fine"]
    with pytest.raises(AnnotateError, match=r"the name 'a/\.\./\.\./x' cannot be used for output files"):
        names(tmp_path / ".._.._x" / "*.tar")


def test_symlinks_are_followed_once(tmp_path: Path) -> None:
    write_frames(tmp_path / "elsewhere", 2)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "camera").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "dangling.png").symlink_to(tmp_path / "nothing.png")
    assert names(tmp_path / "in") == ["camera/0", "camera/1", "dangling"]


def test_a_link_takes_nobody_s_name(tmp_path: Path) -> None:
    write_frames(tmp_path / "in" / "run2", 1)
    (tmp_path / "in" / "latest").symlink_to(tmp_path / "in" / "run2", target_is_directory=True)
    assert names(tmp_path / "in") == ["run2/0"]


def test_a_closed_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "in" / "open", 1)
    write_frames(tmp_path / "in" / "closed", 1)
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(AnnotateError, match=r"in/closed: cannot be read \(Permission denied\)"):
        names(tmp_path / "in")


def test_what_disks_keep_for_themselves_is_no_input(tmp_path: Path) -> None:
    write_frames(tmp_path / "in" / "run", 1)
    write_frames(tmp_path / "in" / "lost+found", 1)
    assert names(tmp_path / "in") == ["run/0"]


def test_a_tree_s_masks_may_lie_in_the_tree(tmp_path: Path) -> None:
    write_frames(tmp_path / "rgb" / "cam", 1)
    assert names(tmp_path, out=tmp_path) == ["rgb/cam/0"]


def test_the_output_folder_is_no_input(tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 1)
    write_frames(tmp_path / "in" / "out" / "png", 1)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "in" / "out" / "png", target_is_directory=True)
    assert names(tmp_path / "in", out=tmp_path / "in" / "out") == ["0"]
    with pytest.raises(AnnotateError, match="is the input folder itself"):
        names(tmp_path / "in", out=tmp_path / "in")


def test_shards_in_a_folder_are_no_pictures(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 2)
    (root / "data.tar").write_bytes(b"")
    assert [frame.name for frame in find_frames([str(root)]).frames] == ["0", "1"]
    for path in root.glob("*.png"):
        path.unlink()
    with pytest.raises(AnnotateError, match=r"for shards give '.*in/\*\.tar'"):
        find_frames([str(root)])


def test_names_of_any_alphabet(tmp_path: Path) -> None:
    write_image(tmp_path / "caméra 一" / "кадр 2.png")
    assert names(tmp_path) == ["caméra 一/кадр 2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("missing", "no such file"), ("empty", "holds no image or video"), ("*.nothing", "matches no image")],
)
def test_inputs_without_frames(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotateError, match=message):
        names(tmp_path / text)
