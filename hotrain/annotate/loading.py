"""Frames become pixels in threads, ahead of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.processes import processors
from hotrain.annotate.inputs import Frame, Inputs
from hotrain.annotate.video import VideoReader
from hotrain.decode import decode_rgb, read_rgb
from hotrain.errors import FrameError
from hotrain.input_rule import InputRule

if TYPE_CHECKING:
    from hodata.shards.reader import SampleReader

_LARGE = 16_000_000  # pixels; larger images are decoded again where they are needed, not held


@dataclass(frozen=True)
class Loaded:
    """A decoded frame.

    Args:
        frame: which one.
        size: (width, height).
        prepared: uint8 [h, w, 3], as the network sees it.
        image: gives uint8 [H, W, 3].
    """

    frame: Frame
    size: tuple[int, int]
    prepared: NDArray[np.uint8]
    image: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Broken:
    """A frame that cannot be annotated, and why."""

    frame: Frame
    why: str


class Loading:
    """Decodes frames of all kinds. Videos are read front to back by one thread, everything else by a pool.

    Args:
        inputs: whose frames these are.
        rule: how an image enters the network.
        exif: see `decode.decode_rgb`.
        pool: threads.
    """

    def __init__(self, inputs: Inputs, rule: InputRule, exif: str, pool: ThreadPoolExecutor) -> None:
        self._rule, self._exif, self._pool = rule, exif, pool
        self._film = ThreadPoolExecutor(1, thread_name_prefix="video")
        self._videos: dict[Path, VideoReader] = {}
        self._reader: SampleReader | None = inputs.index.reader() if inputs.index is not None else None

    def submit(self, frames: Sequence[Frame]) -> list[Future[Loaded | Broken]]:
        """Begin to load neighbouring frames; video frames must come in ascending order from call to call."""
        return [
            self._film.submit(self._load, frame) if frame.is_video else self._pool.submit(self._load, frame)
            for frame in frames
        ]

    def close(self) -> None:
        self._film.shutdown(cancel_futures=True)
        for video in self._videos.values():
            video.close()
        if self._reader is not None:
            self._reader.close()

    def _load(self, frame: Frame) -> Loaded | Broken:
        try:
            image = self._pixels(frame)
            height, width = image.shape[:2]
            self._rule.refuse_long(width, height)
            prepared = self._rule.resize(image)
        except (FrameError, ShardError) as error:
            return Broken(frame, str(error))
        except MemoryError:
            return Broken(frame, "is too large for this machine's memory")
        again = width * height > _LARGE and not frame.is_video
        return Loaded(frame, (width, height), prepared, (lambda: self._pixels(frame)) if again else (lambda: image))

    def _pixels(self, frame: Frame) -> NDArray[np.uint8]:
        if frame.is_video:
            if frame.path not in self._videos:
                for other in self._videos.values():
                    other.close()
                self._videos = {frame.path: VideoReader(frame.path, self._exif)}
            found = next(self._videos[frame.path].read([frame.number]))
            if isinstance(found, FrameError):
                raise found
            return found
        if frame.number >= 0 and self._reader is not None:
            return decode_rgb(self._reader.image(frame.number), "stored")  # shards hold pixels that fit their masks
        return read_rgb(frame.path, self._exif)


def thread_count() -> int:
    """As many as there are processors for this process, at most 16."""
    return min(processors(), 16)
