"""`hold`: merged masks as HOLD reads them (zc-alexfan/hold): 0 background, 50 object, 150 right, 250 left hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hodata.labels import Task
from hodata.shards.png import encode_mask
from hotrain.annotate.formats.base import Answer, Format, Options
from hotrain.errors import AnnotateError

_OBJECT, _RIGHT, _LEFT = 50, 150, 250


class Hold(Format):
    name = "hold"

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        if "left" not in task.public_classes:
            raise AnnotateError(
                f"--format hold tells left from right hands, and this model was trained with --task {task.name}; "
                "train one with --task sides, or write other formats"
            )
        ids = {"background": 0, "left": _LEFT, "right": _RIGHT}
        self._ids = np.array([ids.get(name, _OBJECT) for name in task.public_classes], dtype=np.uint8)

    def files(self, answer: Answer) -> Iterator[tuple[str, bytes]]:
        yield f"hold/{answer.frame.name}.png", encode_mask(self._ids[answer.classes])
