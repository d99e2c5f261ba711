"""What is to be annotated: files, folders, globs, videos, HOnnotate and HO-3D trees and shards as one list of frames.

The list is in natural order (frame2 before frame10), the same for any listing order of the file system. A frame's name
is its path without extension, as it lies in the input; every output keeps it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hodata.errors import SourceError
from hodata.folders import files_below
from hotrain.decode import IMAGE_SUFFIXES
from hotrain.errors import AnnotateError, FrameError

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, ".tar")
_HO3D_SPLITS = ("train", "evaluation")


@dataclass(frozen=True)
class Frame:
    """One picture to annotate.

    Args:
        name: `/`-separated path without extension, unique in a run.
        sequence: the recording's folders; may be empty.
        camera: of the recording; empty where there is one or none is known.
        stem: last part of the name, what the next tool expects as the file's name.
        path: the image, the video or the shard.
        number: index in the video, or row of the shards; -1 for an image file.
    """

    name: str
    sequence: str
    camera: str
    stem: str
    path: Path
    number: int = -1

    @property
    def recording(self) -> str:
        """What neighbouring frames share: sequence and camera."""
        return "/".join(part for part in (self.sequence, self.camera) if part)

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Inputs:
    """All frames in order; `index` holds the shards that some of them are rows of, `notes` are for people."""

    frames: list[Frame]
    index: ShardIndex | None = None
    notes: tuple[str, ...] = ()


def find_frames(inputs: Sequence[str], *, every: int = 1, out: Path | None = None) -> Inputs:
    """List the frames of some inputs.

    Args:
        inputs: files, folders, globs, `.tar` shards.
        every: of a video, take frames 0, every, 2 * every, ...
        out: where the annotation goes; what lies below it is no input.

    Raises:
        AnnotateError: an input does not exist or holds no frame, or two frames have one name.
    """
    matches = [match for text in inputs for match in _expand(text)]
    shards = [path for path in matches if path.suffix == ".tar"]
    folders = [path for path in matches if path.is_dir()]
    files = list({p.absolute(): p for p in matches if p not in shards and not p.is_dir()}.values())
    frames: list[Frame] = []
    notes: list[str] = []
    for folder in folders:
        prefix = folder.resolve().name if len(matches) > 1 else ""
        found, layout = _of_folder(folder, prefix, every, out)
        frames += found
        if layout:
            notes.append(f"{folder}: {layout}, {len(found):,} frames of {len({f.recording for f in found})} cameras")
    if files:
        anchor = Path(os.path.commonpath([path.absolute().parent for path in files]))
        frames += _of_files([(path, path.absolute().relative_to(anchor)) for path in files], every)
    index = None
    if shards:
        from hodata.shards.reader import ShardIndex

        index = ShardIndex.open(shards)
        frames += _of_shards(index)
    frames = sorted(_distinct(frames), key=lambda frame: _natural(frame.name))
    _refuse_doubles(frames)
    if not frames:
        raise AnnotateError(f"{', '.join(inputs)}: holds no frame to annotate")
    return Inputs(frames, index, tuple(notes))


def safe_name(name: str) -> bool:
    """Whether a name stays below the output folder."""
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.exists():
        return [path]
    if has_magic(text):
        # Path.glob raises on patterns that are merely unusual (`**.png`).
        found = [Path(match) for match in glob(text, recursive=True)]  # noqa: PTH207
        kept = [match for match in found if _wanted(match) or match.is_dir()]
        if kept:
            return sorted(kept, key=lambda match: _natural(match.as_posix()))
        raise AnnotateError(f"{text}: matches no image, video or folder (quote a glob, or give the folder)")
    raise AnnotateError(f"{text}: no such file or folder")


def _of_folder(folder: Path, prefix: str, every: int, out: Path | None) -> tuple[list[Frame], str]:
    """Its frames, and the layout that it was taken for (empty: a plain folder)."""
    if any((folder / split).is_dir() and _some(folder / split, "*/rgb") for split in _HO3D_SPLITS):
        roots, layout = [folder / split for split in _HO3D_SPLITS], "HO-3D tree"
    elif _some(folder, "rgb/*/") or _some(folder, "*/rgb/*/"):
        roots, layout = [folder], "HOnnotate tree"
    elif _some(folder, "rgb") or _some(folder, "*/rgb"):  # depth and masks lie beside rgb
        roots, layout = [folder], "sequences with a folder rgb"
    else:
        _refuse_own_output(folder, out)
        files = _files_below(folder, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES), out)
        if not files:
            tars = _files_below(folder, (".tar",), out)
            hint = f"; for shards give '{folder}/*.tar'" if tars else f" (looked for {', '.join(_SUFFIXES)})"
            raise AnnotateError(f"{folder}: holds no image or video{hint}")
        return _of_files([(path, prefix / path.relative_to(folder)) for path in files], every), ""
    pictures = [path for root in roots for path in _files_below(root, IMAGE_SUFFIXES, out) if _is_rgb(path, folder)]
    return _of_files([(path, prefix / path.relative_to(folder)) for path in pictures], every), layout


def _is_rgb(path: Path, folder: Path) -> bool:
    return "rgb" in path.relative_to(folder).parts[:-1]


def _some(folder: Path, pattern: str) -> bool:
    """Whether a folder of this pattern holds an image."""
    for match in sorted(folder.glob(pattern)):
        if match.is_dir():
            with os.scandir(match) as entries:
                if any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in entries):
                    return True
    return False


def _of_files(files: Iterable[tuple[Path, Path]], every: int) -> list[Frame]:
    """Frames of (file, its place in the input); files whose place differs only in the extension keep it in the name."""
    places = list(files)
    doubled = Counter(place.with_suffix("") for _, place in places)
    frames: list[Frame] = []
    for path, place in places:
        name = PurePosixPath(place if doubled[place.with_suffix("")] > 1 else place.with_suffix(""))
        if path.suffix.lower() in VIDEO_SUFFIXES:
            frames += [_frame(name / f"{number:06d}", path, number) for number in _video_numbers(path, every)]
        else:
            frames.append(_frame(name, path))
    return frames


def _video_numbers(path: Path, every: int) -> range:
    """A video that cannot be read has one frame, which will be reported as broken."""
    from hotrain.annotate.video import count_frames

    try:
        return range(0, max(count_frames(path), 1), every)
    except FrameError:
        return range(1)


def _frame(name: PurePosixPath, path: Path, number: int = -1) -> Frame:
    folders = list(name.parts[:-1])
    if "rgb" in folders[-2:]:  # <sequence>/rgb/<camera>/ (HOnnotate) or <sequence>/rgb/ (HO-3D)
        place = len(folders) - 1 - folders[::-1].index("rgb")
        sequence, camera = folders[:place], folders[place + 1 :]
    else:
        sequence, camera = folders[:-1], folders[-1:]
    return Frame(name.as_posix(), "/".join(sequence), "".join(camera), name.name, path, number)


def _of_shards(index: ShardIndex) -> list[Frame]:
    frames = []
    columns = [index.column(name) for name in ("key", "source", "recording", "camera")]
    for row, (key, source, recording, camera) in enumerate(zip(*columns, strict=True)):
        parts = [re.sub(r"[^\w.-]+", "-", part).strip(".") for part in (source, recording) if part]
        sequence = "/".join(part for part in parts if part)
        camera = re.sub(r"[^\w.-]+", "-", camera).strip(".")
        name = "/".join(part for part in (sequence, camera, key) if part)
        frames.append(Frame(name, sequence, camera, key, index.shards[index.shard_number[row]], row))
    return frames


def _files_below(folder: Path, suffixes: tuple[str, ...], out: Path | None) -> list[Path]:
    """Its files, without those below `out`; but a tree's masks may go into the tree itself, beside its folders rgb."""
    inside = out is not None and out.resolve() != folder.resolve()
    try:
        return files_below(folder, suffixes, without=out if inside else None)
    except SourceError as error:
        raise AnnotateError(str(error)) from error


def _wanted(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def _distinct(frames: Iterable[Frame]) -> list[Frame]:
    """A file that two inputs name is one frame."""
    return list({(frame.path.absolute(), frame.number): frame for frame in frames}.values())


def _refuse_doubles(frames: Sequence[Frame]) -> None:
    seen: dict[str, Frame] = {}
    for frame in frames:
        other = seen.setdefault(frame.name, frame)
        if other is not frame:
            raise AnnotateError(
                f"{other.path} and {frame.path} would both be written as {frame.name}; "
                "give the folder above both, or annotate them into two --out folders"
            )
        if not safe_name(frame.name):
            raise AnnotateError(f"{frame.path}: the name {frame.name!r} cannot be used for output files; rename it")


def _refuse_own_output(folder: Path, out: Path | None) -> None:
    if out is not None and folder.resolve() == out.resolve():
        raise AnnotateError(
            f"--out {out}: is the input folder itself, so its masks would be taken for frames; give another folder"
        )


def _natural(name: str) -> list[tuple[list[tuple[int, int, str]], str]]:
    """Sorts digits as numbers, folder by folder, so that no two folders' frames mix; ties are settled by the text."""
    return [
        (
            [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", folder)],
            folder,
        )
        for folder in name.split("/")
    ]
