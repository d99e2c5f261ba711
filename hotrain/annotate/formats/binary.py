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
            name = f"{self.folder(answer.frame)}/{kind}/{answer.frame.stem}.png"
            yield name, encode_mask(mask * np.uint8(255))

    @staticmethod
    def folder(frame: Frame) -> str:
        """Where the masks of a frame's camera lie."""
        return "/".join(part for part in ("binary", frame.sequence, frame.camera) if part)
