"""The pixels of frames that were annotated before: for review, acceptance and videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.shards.reader import SampleReader, ShardIndex
from hotrain.annotate.inputs import Frame
from hotrain.annotate.video import VideoReader, of_finished
from hotrain.decode import decode_rgb, read_rgb
from hotrain.errors import FrameError


def frame_pixels(frames: Sequence[Frame], exif: str) -> Iterator[NDArray[np.uint8] | FrameError]:
    """uint8 [H, W, 3] of each frame, in the order given, or what is wrong with it; one is held at a time.

    Frames of one video that are not in ascending order are read from its beginning again and again: sort them.
    """
    videos: dict[Path, VideoReader] = {}
    shards = sorted({frame.path for frame in frames if is_shard(frame)})
    reader, rows = _open(shards) if shards else (None, {})
    for frame in frames:
        try:
            if frame.is_video:
                yield next(
                    videos.setdefault(frame.path, VideoReader(frame.path, of_finished(exif))).read([frame.number])
                )
            elif is_shard(frame) and reader is not None:
                yield decode_rgb(reader.image(rows[frame.stem]), "stored")
            else:
                yield read_rgb(frame.path, exif)
        except FrameError as error:
            yield error
        except ShardError as error:
            yield FrameError(str(error))
    for video in videos.values():
        video.close()


def _open(shards: Sequence[Path]) -> tuple[SampleReader, dict[str, int]]:
    """A reader and the rows of its keys: a frame's own number counts in the set of shards of its first opening."""
    index = ShardIndex.open(shards)
    return index.reader(), {key: row for row, key in enumerate(index.column("key"))}


def is_shard(frame: Frame) -> bool:
    """Whether a frame is a row of shards."""
    return frame.number >= 0 and frame.path.suffix == ".tar"
