"""Disks that fail for a moment: short reads are read on, other failures tried again, and damage stays damage."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_shards import Spec, break_member, write

from hodata.errors import ShardError
from hodata.shards import reader as reading
from hodata.shards.reader import ShardIndex

Pread = Callable[[int, int, int], bytes]


@pytest.fixture
def index(tmp_path: Path) -> ShardIndex:
    return ShardIndex.open(write(tmp_path, (Spec("one", samples=4),)))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, in place of waiting."""
    waited: list[float] = []
    monkeypatch.setattr(reading, "PAUSES", (1.0, 2.0, 3.0))
    monkeypatch.setattr("hodata.shards.reader.time.sleep", waited.append)
    return waited


def images(index: ShardIndex) -> list[bytes]:
    reader = index.reader()
    return [reader.image(row) for row in range(len(index))]


def test_short_reads_are_read_on(index: ShardIndex, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, original = images(index), os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, offset: original(file, min(size, 700), offset))
    assert images(index) == whole and len(whole[0]) > 700 and pauses == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.ESTALE])
@pytest.mark.parametrize("times", [1, 3, 4])
def test_errors_that_pass_are_no_damage(
    index: ShardIndex, pauses: list[float], monkeypatch: pytest.MonkeyPatch, number: int, times: int
) -> None:
    """Each try opens the file anew: a stale handle stays stale."""
    whole, original, opened = images(index)[2], os.pread, []
    original_open, failures = os.open, [OSError(number, os.strerror(number))] * times

    def pread(file: int, size: int, offset: int) -> bytes:
        if failures:
            raise failures.pop()
        return original(file, size, offset)

    def open_again(path: str, flags: int) -> int:
        opened.append(path)
        return original_open(path, flags)

    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(os, "open", open_again)
    reader = index.reader()
    if times > 3:
        with pytest.raises(ShardError, match="cannot be read at offset"):
            reader.image(2)
    else:
        assert reader.image(2) == whole
    assert pauses == [1.0, 2.0, 3.0][:times] and len(opened) == 1 + len(pauses)
    failures.append(OSError(number, os.strerror(number)))  # an outage says nothing of the shard
    assert reader.image(2) == whole and len(pauses) == min(times, 3) + 1


@pytest.mark.parametrize("how", ["wrong", "cut"])
def test_bytes_that_are_wrong_once_are_read_again(
    index: ShardIndex, pauses: list[float], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    whole, original, calls = images(index)[1], os.pread, 0

    def pread(file: int, size: int, offset: int) -> bytes:
        nonlocal calls
        calls += 1
        data = original(file, size, offset)
        if how == "wrong":
            return bytes(len(data)) if calls == 1 else data
        return data[:100] if calls == 1 else b"" if calls == 2 else data

    monkeypatch.setattr(os, "pread", pread)
    assert index.reader().image(1) == whole and pauses == [1.0]


def test_an_error_that_stays_is_told_at_once(
    index: ShardIndex, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "pread", closed)
    with pytest.raises(ShardError, match="Permission denied"):
        index.reader().image(0)
    assert pauses == []


def test_damage_is_told_after_three_more_reads_and_then_at_once(index: ShardIndex, pauses: list[float]) -> None:
    key, other, reader = break_member(index, 3), break_member(index, 2), index.reader()
    for row, name in ((3, key), (2, other), (3, key)):
        with pytest.raises(ShardError, match=rf"{name} \(image\) at offset .*other bytes than the index records"):
            reader.image(row)
    assert pauses == [1.0, 2.0, 3.0]


def test_a_sound_file_is_read_once(index: ShardIndex, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = os.pread, []

    def pread(file: int, size: int, offset: int) -> bytes:
        calls.append(offset)
        return original(file, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    images(index)
    assert len(calls) == len(index) and pauses == []
