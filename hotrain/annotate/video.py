"""Frames of a video file by their index, in the order in which they are shown (PyAV)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.files import replacing
from hotrain.errors import AnnotateError, FrameError

_INSTALL = "videos need PyAV: pip install 'av>=14.1'"


def count_frames(path: Path) -> int:
    """How many frames the file shows, counted from its packets without decoding.

    Trimmed videos hold frames that an edit list hides; decoders do not give them.

    Raises:
        FrameError: no video, or damaged at its head.
        AnnotateError: PyAV is missing.
    """
    av = _av(path)
    try:
        with av.open(str(path)) as container:
            stream = _stream(container)
            return sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))
    except (av.FFmpegError, ValueError, OSError) as error:
        raise FrameError(f"cannot be read as a video ({_reason(error)})") from error


def frame_rate(path: Path) -> Fraction:
    """Frames a second, as the file says; 25 where it does not; raises as `count_frames`."""
    av = _av(path)
    try:
        with av.open(str(path)) as container:
            return Fraction(_stream(container).average_rate or 25)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise FrameError(f"cannot be read as a video ({_reason(error)})") from error


def of_finished(exif: str) -> str:
    """How to read the frames of a video again that were annotated with `exif`: where it refuses turned videos, this one
    was not turned, or was read by an earlier version, which never turned any."""
    return "stored" if exif == "refuse" else exif


class VideoReader:
    """Decodes a video from front to back. Not thread-safe.

    Frame-accurate by construction: frames are counted as they come out of the decoder, never sought by time.

    Args:
        path: the file.
        exif: what to do with a video that is stored lying on its side (phones), as of `decode.decode_rgb`.
    """

    def __init__(self, path: Path, exif: str = "refuse") -> None:
        self._path, self._exif = path, exif
        self._frames: Iterator[Any] = iter(())
        self._container: Any = None
        self._next = 0
        self._broken = ""

    def read(self, numbers: Sequence[int]) -> Iterator[NDArray[np.uint8] | FrameError]:
        """uint8 [H, W, 3] of each of some ascending frame numbers, or what is wrong with it."""
        if self._container is None or (numbers and numbers[0] < self._next):
            self._restart()
        for number in numbers:
            yield self._one(number)

    def _one(self, number: int) -> NDArray[np.uint8] | FrameError:
        if self._broken:
            return FrameError(self._broken)
        try:
            while True:
                frame = next(self._frames)
                self._next += 1
                if self._next > number:
                    return self._upright(frame)
        except FrameError as error:
            self._broken = str(error)
        except StopIteration:
            self._broken = f"the video ends after {self._next} frames; it was cut off"
        except Exception as error:  # FFmpeg's errors have many kinds
            self._broken = f"the video cannot be decoded from frame {self._next} on ({_reason(error)})"
        return FrameError(self._broken)

    def _upright(self, frame: Any) -> NDArray[np.uint8]:
        turn = round(frame.rotation) % 360  # counterclockwise: what a player does before it shows the frame
        if turn and self._exif == "refuse":
            raise FrameError(
                f"the video is stored turned by {360 - turn} degrees: players and OpenCV turn it back, other readers "
                "do not. --exif upright turns its frames and masks, --exif stored leaves both"
            )
        pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
        if self._exif != "upright" or turn % 90:
            return pixels
        return np.ascontiguousarray(np.rot90(pixels, turn // 90))

    def _restart(self) -> None:
        self.close()
        av = _av(self._path)
        self._next, self._broken = 0, ""
        try:
            self._container = av.open(str(self._path))
            stream = _stream(self._container)
            stream.thread_type = "AUTO"
            self._frames = self._container.decode(stream)
        except (av.FFmpegError, ValueError, OSError, FrameError) as error:
            self._broken = f"the video cannot be opened ({_reason(error)})"

    def close(self) -> None:
        if self._container is not None:
            self._frames = iter(())
            self._container.close()
            self._container = None


def write_video(path: Path, pictures: Iterator[NDArray[np.uint8]], rate: Fraction) -> None:
    """Encode uint8 [H, W, 3] pictures of one size as H.264; an odd last row or column is left out.

    The file appears when complete; folders are made.

    Raises:
        AnnotateError: it cannot be written, or PyAV is missing.
    """
    av = _av(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            _encode(av, temporary, pictures, rate)
    except (av.FFmpegError, OSError) as error:
        raise AnnotateError(f"{path}: cannot be written ({_reason(error)})") from error


def _encode(av: Any, path: Path, pictures: Iterator[NDArray[np.uint8]], rate: Fraction) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = None
        for picture in pictures:
            height, width = (side - side % 2 for side in picture.shape[:2])
            if stream is None:
                # One thread: x264's output depends on their number.
                stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "threads": "1"})
                stream.width, stream.height, stream.pix_fmt = max(width, 2), max(height, 2), "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())


def _av(path: Path) -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise AnnotateError(f"{path}: {_INSTALL}") from error
    if not hasattr(av.VideoFrame, "rotation"):
        raise AnnotateError(f"{path}: PyAV {av.__version__} does not tell turned videos; pip install 'av>=14.1'")
    av.logging.set_level(av.logging.PANIC)
    return av


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise FrameError("holds no video stream")
    return container.streams.video[0]


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error)
