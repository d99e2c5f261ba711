"""JSON tables of numbers, too big to parse in every process: converted once to .npy, then mapped into memory.

FreiHAND's `training_verts.json` is 1.7 GB of text. `json.load` takes 42 s and 6.3 GB for it, in every process. Here it
is cut into rows while it is read and stored as a .npy file that all processes share.

The copies lie in `$HODATA_CACHE` (by default `~/.cache/hodata`), never beside the dataset. A copy's name says which
file, size and time of change it was made from, so it is used again while they agree, and replaced when they do not.
The whole folder may be deleted at any time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hodata.errors import SourceError

CHUNK = 2**20  # bytes read at a time
VERSION = 1  # of the copies; another one is not read
_ROW_BYTES = 4096  # room for a row's brackets and blanks,
_NUMBER_BYTES = 256  # and for each of its numbers: a longer row is no row
_JSON_NUMBERS = b"0123456789+-.eE[], \t\r\n"
_NAN_AND_INFINITY = b"NaNInfinity"  # as Python's json writes them
_OPEN, _CLOSE, _COMMA = b"[],"[0], b"[],"[1], b"[],"[2]

Report = Callable[[int], None]  # bytes read since the last call


def table(
    path: Path,
    row_shape: tuple[int, ...],
    dtype: DTypeLike = np.float64,
    *,
    finite: bool = True,
    report: Report | None = None,
) -> np.memmap[Any, Any]:
    """The rows of a JSON file `[row, row, ...]`, mapped read-only; the first call converts the file.

    Args:
        path: each row is a nested list of numbers, or one number.
        row_shape: shape of a row; () for a number.
        dtype: of the copy.
        finite: refuse NaN and Infinity; otherwise they are kept.
        report: called while the file is converted.

    Returns:
        [N, *row_shape] of `dtype`.

    Raises:
        SourceError: not such a table (the message has the row), or the copy cannot be written.
    """
    copy, others = _copy_of(path, row_shape, np.dtype(dtype), finite)
    mapped = _mapped(copy, row_shape, np.dtype(dtype))
    if mapped is not None:
        return mapped
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        temporary = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
        try:
            _convert(path, temporary, row_shape, np.dtype(dtype), finite, report or (lambda read: None))
            temporary.replace(copy)  # complete, or not there
        finally:
            temporary.unlink(missing_ok=True)
        for stale in copy.parent.glob(others):
            if stale != copy:
                stale.unlink(missing_ok=True)
    except OSError as error:
        full = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"cannot be written ({error})"
        raise SourceError(
            f"{copy.parent}: {full}; the copy of {path.name} goes there: set HODATA_CACHE to a folder with room"
        ) from error
    mapped = _mapped(copy, row_shape, np.dtype(dtype))
    if mapped is None:
        raise SourceError(f"{copy}: was damaged while it was written; delete it and try again")
    return mapped


def is_converted(path: Path, row_shape: tuple[int, ...], dtype: DTypeLike = np.float64, *, finite: bool = True) -> bool:
    """Whether `table` would only map a copy."""
    return _copy_of(path, row_shape, np.dtype(dtype), finite)[0].exists()


def cache_folder() -> Path:
    """Where the copies lie: `$HODATA_CACHE/tables`, by default `~/.cache/hodata/tables`."""
    return Path(os.environ.get("HODATA_CACHE") or Path.home() / ".cache" / "hodata") / "tables"


def _copy_of(path: Path, row_shape: tuple[int, ...], dtype: np.dtype[Any], finite: bool) -> tuple[Path, str]:
    """The name of the copy, and a pattern that also matches copies of the same file in another state."""
    try:
        facts = path.stat()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    whose = f"{path.stem}-{_digest(path.resolve())}"
    state = _digest((facts.st_size, facts.st_mtime_ns, row_shape, dtype.str, finite, VERSION))
    return cache_folder() / f"{whose}-{state}.npy", f"{whose}-*.npy"


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _mapped(copy: Path, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, Any] | None:
    """The copy, or None if it is missing, cut short, or of another shape."""
    try:
        mapped = np.load(copy, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return mapped if mapped.shape[1:] == row_shape and mapped.dtype == dtype else None


def _convert(
    path: Path, copy: Path, row_shape: tuple[int, ...], dtype: np.dtype[Any], finite: bool, report: Report
) -> None:
    longest = _ROW_BYTES + _NUMBER_BYTES * int(np.prod(row_shape, dtype=np.int64))
    count = 0
    with _opened(path) as file, copy.open("w+b") as out:
        header = _write_header(out, 0, row_shape, dtype)
        try:
            for text in split_rows(file, longest, report):
                out.write(_parse_row(text, row_shape, dtype, finite).tobytes())
                count += 1
        except ValueError as error:
            raise SourceError(
                f"{path}: row {count} cannot be used ({error}); copy or unpack the file again, or delete it if it is "
                "not the dataset's own"
            ) from error
        out.seek(0)
        if _write_header(out, count, row_shape, dtype) != header:
            raise SourceError(f"{path}: has more rows than a table can hold")
        out.flush()
        os.fsync(out.fileno())


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error


def _write_header(out: BinaryIO, count: int, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Write a .npy header; NumPy leaves room in it for the number of rows to grow. Returns its length."""
    shape = (count, *row_shape)
    np.lib.format.write_array_header_1_0(out, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return out.tell()


def _parse_row(text: bytes, row_shape: tuple[int, ...], dtype: np.dtype[Any], finite: bool) -> NDArray[Any]:
    """One row; ValueError if it is not numbers of that shape."""
    other = text.translate(None, _JSON_NUMBERS)
    # Only numbers can follow from here: no strings, no null, no true, which NumPy would turn into numbers.
    if other and other.translate(None, _NAN_AND_INFINITY):
        raise ValueError(f"holds {other[:20].decode(errors='replace')!r}, where only numbers belong")
    if other and finite:
        raise ValueError("holds NaN or Infinity")
    try:
        row = np.array(_loads(text, plain=not other), dtype=np.float64)
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular list of numbers: {error}") from error
    if row.shape != row_shape:
        raise ValueError(f"has shape {list(row.shape)}, expected {list(row_shape)}")
    stored = row.astype(dtype)
    if finite and not np.isfinite(stored).all():
        raise ValueError("holds a number that is too large")
    return stored


def _loads(text: bytes, plain: bool) -> Any:
    """JSON of numbers; orjson is 4 times faster, but refuses NaN and Infinity."""
    if not plain:
        return json.loads(text)
    import orjson

    return orjson.loads(text)


def split_rows(file: BinaryIO, longest: int, report: Report = lambda read: None) -> Iterator[bytes]:
    """Cut the text `[row, row, ...]` at the commas between its rows, reading `CHUNK` bytes at a time.

    No strings are expected, so every bracket and every comma counts.

    Args:
        file: at its start.
        longest: bytes that a row may have.
        report: called with the size of each chunk.

    Raises:
        ValueError: the brackets do not fit, the file ends early, or something stands outside the list.
    """
    depth, rest, rows, begun = 0, b"", 0, False
    while chunk := file.read(CHUNK):
        report(len(chunk))
        text = np.frombuffer(chunk, dtype=np.uint8)
        places = np.flatnonzero((text == _OPEN) | (text == _CLOSE) | (text == _COMMA))
        marks = text[places]
        depths = depth + np.cumsum((marks == _OPEN).astype(np.int64) - (marks == _CLOSE))
        depth = int(depths[-1]) if len(depths) else depth
        # A row begins behind the first bracket or a comma at depth 1, and ends at the next comma or the last bracket.
        start = 0
        for k in np.flatnonzero((depths <= 0) | ((depths == 1) & (marks != _CLOSE))):
            place, mark = int(places[k]), marks[k]
            piece = rest + chunk[start:place]
            if not begun or depths[k] < 0:
                if begun or mark != _OPEN or piece.strip():
                    raise ValueError("the file is not a list of rows")
                begun = True
            elif mark == _OPEN or (mark == _COMMA and depths[k] == 0):
                raise ValueError("something follows the list")
            elif depths[k] == 1 or rows or piece.strip():  # all but the end of an empty list
                yield piece
                rows += 1
            rest, start = b"", place + 1
        rest += chunk[start:]
        if begun and depth == 0 and rest.strip():
            raise ValueError("something follows the list")
        if len(rest) > longest:
            raise ValueError(f"it is longer than {longest:,} bytes")
    if not begun or depth:
        raise ValueError("the file ends in the middle" if begun else "the file is not a list of rows")
