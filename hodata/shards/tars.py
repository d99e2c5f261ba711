"""What is in a tar that any program may have written: its member table, walked safely, and its samples.

Nothing is ever extracted. Only plain files count; names that point out of the archive, links, devices and sparse files
are listed. An archive that ends early, goes on after its end mark, or has a damaged header is refused: tar readers stop
there without a word, and the samples behind it would be lost.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from hodata.errors import ShardError

BLOCK = 512
_MAX_HEADER = 2**20  # of one read that tarfile makes: extended headers are read whole
_CHUNK = 4 * 2**20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
# As webdataset groups members: the key ends at the first dot of the file's name. Hidden files are no members.
_KEY = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True)
class Place:
    """Where the bytes of a member lie."""

    offset: int
    size: int


@dataclass
class TarContents:
    """Samples of a tar, in the order in which their first members stand.

    Args:
        samples: key -> {suffix in small letters: where it lies}.
        twice: key -> a suffix that two of its members have.
        refused: members that are not read: {name: why}.
    """

    samples: dict[str, dict[str, Place]] = field(default_factory=dict)
    twice: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def read_contents(path: Path) -> TarContents:
    """Walk the member table of a tar.

    Raises:
        ShardError: no plain tar, or damaged; names the offset.
    """
    contents = TarContents()
    with path.open("rb") as file:
        size = path.stat().st_size
        first = file.read(BLOCK)
        for magic, name in _COMPRESSED.items():
            if first.startswith(magic):
                raise ShardError(f"{path}: is compressed ({name}); samples inside cannot be read singly: decompress it")
        file.seek(0)
        reached = 0
        try:
            with _open(file) as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # or a million of them would be kept
                    if member.size < 0 or tar.offset <= reached or member.offset_data + member.size > size:
                        raise tarfile.ReadError(f"{member.name!r} has an impossible size ({member.size:,})")
                    reached = tar.offset
                    _add(contents, member)
                reached = tar.offset
        except Exception as error:  # tarfile raises many kinds on hostile bytes
            raise ShardError(f"{path}: cannot be read as a tar behind offset {reached:,} ({error})") from error
        _require_end(path, file, reached, size)
    return contents


def _add(contents: TarContents, member: tarfile.TarInfo) -> None:
    name = member.name
    if member.isdir():
        return
    why = _refusal(member)
    if why:
        contents.refused[name.encode("utf-8", "replace").decode()] = why
        return
    match = _KEY.fullmatch(name)
    if match is None or _META.match(name):
        return
    key, suffix = match[1], match[2].lower()
    sample = contents.samples.setdefault(key, {})
    if suffix in sample:
        contents.twice[key] = suffix
    sample[suffix] = Place(member.offset_data, member.size)


def _refusal(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"is a link (to {member.linkname!r}), not a file"
    if member.issparse():
        return "is stored as a sparse file"
    if not member.isreg():
        return f"is no file (tar type {member.type!r})"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "its name points out of the archive"
    try:
        member.name.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    return ""


def _require_end(path: Path, file: BinaryIO, end: int, size: int) -> None:
    """An archive ends with two blocks of zeros; more zeros may follow, nothing else."""
    file.seek(end)
    block = file.read(BLOCK)
    if any(block):
        raise ShardError(f"{path}: has a damaged header at offset {end:,}; copy it again, or write it again")
    if size < end + 2 * BLOCK:
        raise ShardError(f"{path}: ends at {size:,} without the mark of an end: it was cut off; copy or write it again")
    place = end + BLOCK
    while data := file.read(_CHUNK):
        if any(data):
            raise ShardError(
                f"{path}: goes on after its end mark at {end:,}, readers would lose what follows; was it made by "
                "appending one tar to another? Write one tar, or give both"
            )
        place += len(data)


def _open(file: BinaryIO) -> tarfile.TarFile:
    headers: Any = _Headers(file)
    return tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape")


class _Headers:
    """The file as tarfile sees it: bounded reads, because a header can claim to be gigabytes long."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._file.read(size)


class FileHash:
    """sha256 of a file, made as others walk along it, so that a disk gives each byte once."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self._file, self._advance = file, advance
        self._hash = hashlib.sha256()
        self.place = 0

    def reach(self, offset: int) -> None:
        """Go on to an offset, or to the end of the file."""
        self._file.seek(self.place)
        while self.place < offset and (data := self._file.read(min(_CHUNK, offset - self.place))):
            self._hash.update(data)
            self.place += len(data)
            self._advance(len(data))

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def suffixes_of(sample: Mapping[str, Place]) -> str:
    """For people: what a sample has."""
    return ", ".join(sorted(sample)[:12]) or "nothing"
