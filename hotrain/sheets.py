"""The pictures of a run: prediction sheets and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.labels import Task
from hotrain.columns import coded
from hotrain.evaluate import RowPredictor
from hotrain.loading.data import decode_image, read_mask
from hotrain.pictures import Curve, Example, curves, prediction_sheet
from hotrain.predict import Predictor
from hotrain.progress import read_log

if TYPE_CHECKING:
    from PIL.Image import Image

    from hodata.shards.reader import ShardIndex


def spread_rows(index: ShardIndex, rows: NDArray[np.int64], count: int) -> list[int]:
    """`count` of some rows for people to look at: taken in turn from each source, evenly over its groups."""
    sources, groups = index.column("source"), index.column("group")
    queues = []
    for source in sorted(set(sources[rows])):
        own = rows[sources[rows] == source]
        own = own[np.argsort(groups[own], kind="stable")]
        places = np.linspace(0, len(own) - 1, min(count, len(own))).astype(np.int64)
        # Halves first: any first few of them are spread over the whole.
        queues.append([int(own[place]) for place in places[np.argsort(_bit_reversed(len(places)))]])
    chosen: list[int] = []
    for turn in range(count):
        chosen += [queue[turn] for queue in queues if turn < len(queue)]
    return sorted(chosen[:count])


def answer_of(
    predictor: Predictor | RowPredictor, row: int, image: NDArray[np.uint8], fold: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """What is scored of one sample: class ids uint8 [H, W].

    Args:
        predictor: gives the answer.
        row: of the index.
        image: uint8 [H, W, 3].
        fold: uint8 [K], of the extent at which the sample's source is scored (`Task.fold`): the answer depends on it.
    """
    if isinstance(predictor, RowPredictor):
        return predictor.answer(row)
    return predictor.classes([predictor.prepare(image)], (image.shape[1], image.shape[0]), fold[None])[0]


def example_sheet(
    index: ShardIndex,
    rows: Sequence[int],
    predictor: Predictor | RowPredictor,
    task: Task,
    title: str,
    extents: Mapping[str, str],
    skip_damaged: bool = False,
) -> Image:
    """Image | truth | prediction of some rows; those that cannot be read raise, or are left out.

    `extents` says at which extent each source is scored; hands of the others end at the wrist.
    """
    reader, keys = index.reader(), index.arrow("key")
    kinds, kind = coded(index, "image_kind")
    sources = index.column("source")
    examples = []
    for row in rows:
        key = keys[row].as_py()
        try:
            image, mask = decode_image(reader.image(row), kinds[kind[row]], key), read_mask(reader, row, key)
        except ShardError:
            if not skip_damaged:
                raise
            continue
        fold = task.fold(extents.get(sources[row], "wrist"))
        examples.append(Example(image, mask, answer_of(predictor, row, image, fold), key))
    return prediction_sheet(examples, task, title)


def training_curves(run: Path) -> Image:
    """Loss and IoU over the samples seen, from RUN/log.jsonl."""
    entries = read_log(run)
    validated = [name for entry in entries if entry["kind"] == "val" for name in entry if name.startswith("iou ")]
    classes = [name for name in dict.fromkeys(validated) if name != "iou background"]
    loss = [_curve("training", entries, "train", "loss")]
    glimpses = dict.fromkeys(name for entry in entries if entry["kind"] == "train" for name in entry)
    scores = [_curve(f"validation, {name[4:]}", entries, "val", name) for name in classes]
    scores += [_curve(f"training crops, {n[4:]}", entries, "train", n) for n in glimpses if n.startswith("iou ")]
    return curves({"loss": loss, "IoU": scores}, "samples seen")


def _curve(name: str, entries: Sequence[dict[str, Any]], kind: str, field: str) -> Curve:
    points = [(e["position"], e[field]) for e in entries if e["kind"] == kind and e.get(field) is not None]
    return Curve(name, points)


def _bit_reversed(count: int) -> NDArray[np.int64]:
    bits = max((count - 1).bit_length(), 1)
    return np.array([int(format(number, f"0{bits}b")[::-1], 2) for number in range(count)], dtype=np.int64)
