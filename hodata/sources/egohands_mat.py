"""EgoHands' two kinds of MATLAB file -> hand outlines.

`polygons.mat` (one per video): `polygons`, a 1xN struct whose element i belongs to the i-th frame in the sorted
order of file names. `metadata.mat` (one for all): `video`, a 1xV struct whose `labelled_frames` name their frame
number (official `getMetaBy.m` and `getSegmentationMask.m`). Both hold `myleft, myright, yourleft, yourright`:
N x 2 outlines in MATLAB's 1-based pixels, or something empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SourceError

HANDS = ("myleft", "myright", "yourleft", "yourright")
_MAX_BYTES = 512 * 2**20
_SMALLEST = 6  # fewer numbers are not an outline: the authors' files mark an absent hand so

# Hand (one of HANDS) -> float64 [N, 2], 1-based (x, y); absent hands are not in it.
Outlines = Mapping[str, NDArray[np.float64]]


def read_polygons(path: Path) -> list[Outlines]:
    """The outlines of one video, in the sorted order of its frames' file names.

    Raises:
        SourceError: unreadable, or without the expected variable or fields; names the file, what is missing and
            what was found.
    """
    return _read_polygons(path, *_stamp(path))


def read_metadata(path: Path) -> dict[str, dict[int, Outlines]]:
    """Video id -> frame number -> outlines.

    Raises:
        SourceError: as `read_polygons`, and when one video or frame is listed twice.
    """
    return _read_metadata(path, *_stamp(path))


# 48 videos of 100 frames take some 30 MB: every process reads each file once, in whatever order samples come.
@lru_cache(maxsize=64)
def _read_polygons(path: Path, size: int, changed: int) -> list[Outlines]:
    return [_outlines(item, path, f"polygons({i + 1})") for i, item in enumerate(_structs(path, "polygons"))]


@lru_cache(maxsize=2)
def _read_metadata(path: Path, size: int, changed: int) -> dict[str, dict[int, Outlines]]:
    videos: dict[str, dict[int, Outlines]] = {}
    for i, video in enumerate(_structs(path, "video")):
        place = f"video({i + 1})"
        name = _text(_field(video, "video_id", path, place), path, f"{place}.video_id")
        if name in videos:
            raise SourceError(f"{path}: {place}: the video {name!r} is listed twice")
        frames = videos[name] = {}
        listed = _elements(_field(video, "labelled_frames", path, place), path, f"{place}.labelled_frames")
        for j, frame in enumerate(listed):
            inner = f"{place}.labelled_frames({j + 1})"
            number = _number(_field(frame, "frame_num", path, inner), path, f"{inner}.frame_num")
            if number in frames:
                raise SourceError(f"{path}: {inner}: frame {number} of {name} is listed twice")
            frames[number] = _outlines(frame, path, inner)
    return videos


def _stamp(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    if facts.st_size > _MAX_BYTES:
        raise SourceError(f"{path}: is {facts.st_size:,} bytes long, over the limit of {_MAX_BYTES:,}")
    return facts.st_size, facts.st_mtime_ns


def _structs(path: Path, variable: str) -> Iterator[Any]:
    from scipy.io import loadmat, whosmat

    try:
        found = [name for name, _, _ in whosmat(str(path))]
        content = loadmat(str(path), variable_names=[variable]) if variable in found else {}
    except NotImplementedError as error:
        raise SourceError(
            f"{path}: is a MATLAB 7.3 file, the dataset's own are older; save it from MATLAB with `save -v7`"
        ) from error
    except Exception as error:  # scipy raises many kinds on damaged bytes
        raise SourceError(f"{path}: cannot be read as a MATLAB file ({error}); download it again") from error
    if variable not in content:
        raise SourceError(f"{path}: has no variable {variable!r}; found {', '.join(found) or 'nothing'}")
    return _elements(content[variable], path, variable)


def _elements(value: Any, path: Path, place: str) -> Iterator[Any]:
    """The elements of a struct array of any shape (1xN, Nx1, or a cell array of 1x1 structs)."""
    array = np.asarray(value)
    if array.size and array.dtype.names is None and array.dtype != object:
        raise SourceError(f"{path}: {place} is a {array.dtype} array, expected a struct array")
    # MATLAB counts column by column.
    return (_unwrapped(item) for item in array.ravel(order="F"))


def _field(item: Any, name: str, path: Path, place: str) -> Any:
    fields = getattr(getattr(item, "dtype", None), "names", None) or ()
    if name not in fields:
        raise SourceError(f"{path}: {place} has no field {name!r}; found {', '.join(fields) or 'no fields at all'}")
    return item[name]


def _outlines(item: Any, path: Path, place: str) -> Outlines:
    outlines: dict[str, NDArray[np.float64]] = {}
    for hand in HANDS:
        value = np.asarray(_unwrapped(_field(item, hand, path, place)))
        if value.size < _SMALLEST:
            continue
        if value.ndim != 2 or value.shape[1] != 2 or value.dtype.kind not in "iuf":
            shape = "x".join(map(str, value.shape))
            raise SourceError(f"{path}: {place}.{hand} is a {shape} array of {value.dtype}, expected N x 2 numbers")
        points = np.array(value, dtype=np.float64)
        if not np.isfinite(points).all():
            raise SourceError(f"{path}: {place}.{hand} holds a coordinate that is not a finite number")
        outlines[hand] = points
    return outlines


def _unwrapped(value: Any) -> Any:
    """`value` without the 1x1 arrays that scipy puts round structs and cells."""
    while isinstance(value, np.ndarray) and value.size == 1 and (value.dtype == object or value.dtype.names):
        value = value.reshape(-1)[0]
    return value


def _text(value: Any, path: Path, place: str) -> str:
    text = np.asarray(_unwrapped(value))
    if text.size != 1 or text.dtype.kind != "U":
        raise SourceError(f"{path}: {place} is not a text")
    return str(text.reshape(-1)[0])


def _number(value: Any, path: Path, place: str) -> int:
    number = np.asarray(_unwrapped(value))
    if number.size != 1 or number.dtype.kind not in "iuf" or float(number.reshape(-1)[0]) % 1:
        raise SourceError(f"{path}: {place} is not a whole number")
    return int(number.reshape(-1)[0])
