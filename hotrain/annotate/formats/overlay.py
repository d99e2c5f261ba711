"""`overlay`: the masks drawn over the images, for people: a JPEG per frame, an mp4 per video."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hodata.labels import color_table
from hodata.report.draw import overlay
from hotrain.annotate.formats.base import Answer, Finished, Format
from hotrain.annotate.rle import paint
from hotrain.annotate.video import VideoReader, frame_rate, of_finished, write_video
from hotrain.errors import AnnotateError, FrameError

_QUALITY = 90


class Overlay(Format):
    name = "overlay"
    needs_image = True

    def files(self, answer: Answer) -> Iterator[tuple[str, bytes]]:
        if answer.frame.is_video or answer.image is None:
            return
        from PIL import Image

        buffer = io.BytesIO()
        picture = overlay(answer.image, self.labels[answer.classes], colors=color_table())
        Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY)
        yield f"overlay/{answer.frame.name}.jpg", buffer.getvalue()

    def finish(self, out: Path, frames: Sequence[Finished]) -> None:
        """Videos are decoded once more: a file of frames that belong together cannot be written piece by piece."""
        videos: dict[Path, list[Finished]] = {}
        for done in frames:
            if done.frame.is_video:
                videos.setdefault(done.frame.path, []).append(done)
        for path, shown in videos.items():
            folder = shown[0].frame.name.rpartition("/")[0]
            numbers = [done.frame.number for done in shown]  # of --every N, less those that were rejected
            step = min((after - this for this, after in pairwise(numbers)), default=1)
            try:
                rate = frame_rate(path) / step
            except FrameError as error:
                raise AnnotateError(f"{path}: {error}; its overlay needs its frames once more") from error
            write_video(out / "overlay" / f"{folder}.mp4", self._pictures(path, shown), rate)

    def _pictures(self, path: Path, shown: Sequence[Finished]) -> Iterator[NDArray[np.uint8]]:
        reader = VideoReader(path, of_finished(self.options.exif))
        for done, image in zip(shown, reader.read([done.frame.number for done in shown]), strict=True):
            if isinstance(image, FrameError):
                continue
            try:
                labels = paint(done.rle, self.task, image.shape[:2])
            except FrameError:
                continue
            yield overlay(image, labels, colors=color_table())
        reader.close()
