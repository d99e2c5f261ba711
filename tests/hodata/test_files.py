"""A file is the old one or the new one, whatever ends its writing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hodata.files import replacing


def test_a_block_that_ends_early_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert [left.read_text() for left in tmp_path.iterdir()] == ["old"]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert [left.read_text() for left in tmp_path.iterdir()] == ["new"]


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    killed = replacing(tmp_path / "file")
    killed.__enter__().write_text("a killed process had no time to remove this")
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert [left.read_text() for left in tmp_path.iterdir()] == ["new"]


def test_any_name_that_a_file_can_have(tmp_path: Path) -> None:
    names = ["a" * 250, "a" * 251, "a" * 255, "ü" * 127, os.fsdecode(b"\xff.png")]
    for name in names:
        with replacing(tmp_path / name) as temporary:
            temporary.write_bytes(b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("durable", [True, False])
def test_a_durable_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(Path, "replace", lambda path, other: (done.append("rename"), replace(path, other)))
    with replacing(tmp_path / "file", durable=durable) as temporary:
        temporary.write_text("new")
    assert done == ["sync", "rename"][not durable :]


def test_links_stay_and_pipes_and_devices_are_written_to(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "place" / "file")
    for content in ("new", "newer"):
        with replacing(tmp_path / "link") as temporary:
            temporary.write_text(content)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "place" / "file").read_text() == content
    with replacing(Path(os.devnull)) as temporary:
        temporary.write_text("nothing")
    assert Path(os.devnull).is_char_device()
