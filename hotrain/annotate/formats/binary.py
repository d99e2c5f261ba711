"""`binary`: one 0/255 mask per kind, `<camera>/hand|object/<stem>.png`.

What FoundationPose, BundleSDF and EasyMocap style tools read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hodata.shards.png import encode_mask
from hotrain.annotate.formats.base import Answer, Format
from hotrain.annotate.inputs import Frame


class Binary(Format):
    name = "binary"
    by_camera = True

    def files(self, answer: Answer) -> Iterator[tuple[str, bytes]]:
        for kind, mask in answer.masks.items():
            name = f"{_folder(answer.frame)}/{kind}/{answer.frame.stem}.png"
            yield name, encode_mask(mask * np.uint8(255))

    def places(self, frame: Frame) -> list[tuple[str, ...]]:
        """Those of every such format, and its own, where a/rgb/b and a/b/rgb are one folder."""
        return [*super().places(frame), (_folder(frame), frame.stem)]


def _folder(frame: Frame) -> str:
    """Where the masks of a frame's camera lie."""
    return "/".join(part for part in ("binary", frame.sequence, frame.camera) if part)
