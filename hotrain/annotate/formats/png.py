"""`png`: label ids of hodata as 8-bit grayscale PNG, and a legend. `hodata build --source folder` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from hodata.labels import COLORS
from hodata.shards.png import encode_mask
from hotrain.annotate.files import write_atomic
from hotrain.annotate.formats.base import Answer, Finished, Format


class Png(Format):
    name = "png"

    def files(self, answer: Answer) -> Iterator[tuple[str, bytes]]:
        yield f"png/{answer.frame.name}.png", encode_mask(self.labels[answer.classes])

    def finish(self, out: Path, frames: Sequence[Finished]) -> None:
        labels = self.task.labels[: self.task.public]
        legend = {
            "extent": self.options.extent,
            "labels": [{"id": int(label), "name": label.label_name, "color": COLORS[label]} for label in labels],
        }
        write_atomic(out / "png" / "legend.json", (json.dumps(legend, indent=1) + "\n").encode())
