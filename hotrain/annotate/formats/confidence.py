"""`confidence`: 8-bit PNG, 255 times the probability of the answered class."""

from __future__ import annotations

from collections.abc import Iterator

from hodata.shards.png import encode_mask
from hotrain.annotate.formats.base import Answer, Format


class Confidence(Format):
    name = "confidence"

    def files(self, answer: Answer) -> Iterator[tuple[str, bytes]]:
        yield f"confidence/{answer.frame.name}.png", encode_mask(answer.confidence)
