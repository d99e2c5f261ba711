"""`coco`: one JSON file in COCO's layout; each connected part of a class is an annotation with RLE and a score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hotrain.annotate.components import bounding_box, components
from hotrain.annotate.files import write_atomic
from hotrain.annotate.formats.base import Answer, Finished, Format
from hotrain.annotate.rle import encode

_LEAST = 1e-4  # share of the image below which a part is a speck and not an instance


class Coco(Format):
    name = "coco"

    def facts(self, answer: Answer) -> list[dict[str, Any]]:
        """The frame's annotations without ids: the largest part of a class first."""
        found: list[dict[str, Any]] = []
        size = (answer.classes.shape[0], answer.classes.shape[1])
        least = _LEAST * answer.classes.size
        for class_id in range(1, self.task.public):
            parts = components(answer.classes == class_id)
            for number in np.argsort(-parts.areas, kind="stable") + 1:
                mask = parts.mask([int(number)], size)
                box = bounding_box(mask)
                if box is None or parts.areas[number - 1] < least:
                    continue
                top, left, bottom, right = box
                found.append(
                    {
                        "category_id": class_id,
                        "segmentation": encode(mask),
                        "area": int(parts.areas[number - 1]),
                        "bbox": [left, top, right - left, bottom - top],
                        "iscrowd": 0,
                        "score": round(float(answer.confidence[mask].mean()) / 255, 3),
                    }
                )
        return found

    def finish(self, out: Path, frames: Sequence[Finished]) -> None:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id, done in enumerate(frames, 1):
            size = {"width": done.row["width"], "height": done.row["height"]}
            images.append({"id": image_id, "file_name": _file_name(done), **size})
            for fact in done.facts:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, **fact})
        categories = [
            {"id": class_id, "name": name, "supercategory": self.task.kind_of(class_id)}
            for class_id, name in enumerate(self.task.public_classes)
            if class_id
        ]
        document = {"images": images, "annotations": annotations, "categories": categories}
        write_atomic(out / "coco.json", (json.dumps(document) + "\n").encode())


def _file_name(done: Finished) -> str:
    """The image's path in the input; a video's frame and a shard's sample have their name alone."""
    name, suffix = done.frame.name, done.frame.path.suffix
    return name if done.frame.number >= 0 or name.endswith(suffix) else name + suffix
