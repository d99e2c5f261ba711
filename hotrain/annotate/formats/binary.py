"""`binary`: one 0/255 mask per kind, `<camera>/hand|object/<stem>.png`.

What FoundationPose, BundleSDF and EasyMocap style tools read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hodata.shards.png import encode_mask
from hotrain.annotate.formats.base import Answer, Format


class Binary(Format):
    name = "binary"
    by_camera = True

    def files(self, answer: Answer) -> Iterator[tuple[str, bytes]]:
        frame = answer.frame
        for kind, mask in answer.masks.items():
            place = [part for part in (frame.sequence, frame.camera) if part]
            yield "/".join(["binary", *place, kind, f"{frame.stem}.png"]), encode_mask(mask * np.uint8(255))
