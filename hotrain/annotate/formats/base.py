"""What every output format offers.

Shapes: H W pixels of the image.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Task
from hotrain.annotate.inputs import Frame


@dataclass(frozen=True)
class Options:
    """What changes the files of a format.

    Args:
        extent: where a hand ends, `wrist` or `arm`; HOnnotate always has the wrist.
        keep_all: HOnnotate: write every part of a mask.
        visualise: HOnnotate: write its pictures as well.
        exif: how the frames were read.
    """

    extent: str = "wrist"
    keep_all: bool = False
    visualise: bool = False
    exif: str = "refuse"


@dataclass(frozen=True)
class Answer:
    """What the model says of one frame.

    Args:
        frame: which one.
        classes: uint8 [H, W], public classes at the wanted extent.
        wrist: the same at extent wrist.
        confidence: uint8 [H, W], 255 = sure.
        masks: bool [H, W] of `hand` and, where the task has it, `object`.
        image: uint8 [H, W, 3], only where a format `needs_image`.
    """

    frame: Frame
    classes: NDArray[np.uint8]
    wrist: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    masks: Mapping[str, NDArray[np.bool_]]
    image: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Finished:
    """A frame as the last step sees it: its row of frames.jsonl, RLE of its classes, and the format's own facts."""

    frame: Frame
    row: Mapping[str, Any]
    rle: Mapping[str, Any]
    facts: Any


class Format(ABC):
    """Turns answers into files. Made once a run; called from several threads.

    Args:
        task: of the model.
        options: of the run.

    Raises:
        AnnotateError: the task lacks what the format tells apart.
    """

    name: ClassVar[str]
    needs_image: bool = False
    by_camera: ClassVar[bool] = False  # files are named by sequence, camera and stem alone

    def __init__(self, task: Task, options: Options) -> None:
        self.task, self.options = task, options

    def places(self, frame: Frame) -> list[tuple[str, ...]]:
        """What no other frame may have in common with this one, whose files would be the same then."""
        return [(frame.sequence, frame.camera or "0", frame.stem)] if self.by_camera else []

    def files(self, answer: Answer) -> Iterator[tuple[str, bytes]]:
        """Path below the output folder and content of each file of a frame."""
        return iter(())

    def facts(self, answer: Answer) -> Any:
        """What `finish` needs of a frame, as JSON; None: nothing."""
        return None

    def finish(self, out: Path, frames: Sequence[Finished]) -> None:  # noqa: B027 - most formats have none
        """Write the files of the whole run, atomically; called when all frames are done."""

    @property
    def labels(self) -> NDArray[np.uint8]:
        """uint8 [K]: class -> label id."""
        return np.array(self.task.labels, dtype=np.uint8)
