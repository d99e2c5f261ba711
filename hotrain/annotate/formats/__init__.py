"""The files that annotation writes, one kind per module; `FORMATS` is the list that `--format` offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hodata.labels import Task
from hotrain.annotate.formats.base import Answer, Format, Options
from hotrain.annotate.formats.binary import Binary
from hotrain.annotate.formats.coco import Coco
from hotrain.annotate.formats.confidence import Confidence
from hotrain.annotate.formats.hold import Hold
from hotrain.annotate.formats.honnotate import HOnnotate
from hotrain.annotate.formats.overlay import Overlay
from hotrain.annotate.formats.png import Png

__all__ = ["FORMATS", "Answer", "Format", "Options", "create_formats"]

FORMATS: dict[str, Callable[[Task, Options], Format]] = {
    "png": Png,
    "honnotate": HOnnotate,
    "binary": Binary,
    "coco": Coco,
    "hold": Hold,
    "overlay": Overlay,
    "confidence": Confidence,
}


def create_formats(names: Sequence[str], task: Task, options: Options) -> list[Format]:
    """The formats of these names, each once, in the order of `FORMATS`.

    Raises:
        AnnotateError: a format needs classes that the task does not have.
    """
    return [create(task, options) for name, create in FORMATS.items() if name in names]
