"""Accepted frames as a dataset of one's own, in the layout of `hodata build --source folder`.

A model made the masks, so they may train but never judge a model: `mask_origin` says so, and hodata keeps such samples
out of every test split.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hodata.labels import Task
from hodata.shards.png import encode_mask
from hotrain.annotate.files import write_atomic
from hotrain.annotate.inputs import Frame
from hotrain.annotate.pipeline import frame_of
from hotrain.annotate.pixels import frame_pixels
from hotrain.annotate.rle import paint
from hotrain.errors import AnnotateError, FrameError
from hotrain.pictures import png_bytes

FOLDER = "accepted"


def write_accepted(out: Path, records: Sequence[Mapping[str, Any]], task: Task, extent: str, exif: str) -> Path:
    """Write OUT/accepted: images, masks and labels.toml; what an earlier review left there is replaced.

    JPEGs stay as they are where all frames are JPEGs; otherwise all become PNGs, since a build holds one kind.

    Args:
        out: the annotation's folder.
        records: of the accepted frames.
        task: of the model.
        extent: at which hands end in these masks.
        exif: how the frames were read.

    Raises:
        AnnotateError: a frame's image can no longer be read, or has another size than its mask.
    """
    final, folder = out / FOLDER, out / f".{FOLDER}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    frames = [frame_of(record) for record in records]
    keep = exif == "refuse" and all(frame.path.suffix.lower() in (".jpg", ".jpeg") for frame in frames)
    pictures = frame_pixels(frames, exif)
    for frame, record, image in zip(frames, records, pictures, strict=True):
        try:
            if isinstance(image, FrameError):
                raise image
            mask = paint(record["rle"], task, image.shape[:2])
        except FrameError as error:
            raise AnnotateError(
                f"{frame.path}: {error}; it was accepted, and its image is needed to train on it"
            ) from error
        place = f"{_recording(frame, out)}/{frame.name}"
        data = frame.path.read_bytes() if keep else png_bytes(image)
        write_atomic(folder / "images" / f"{place}.{'jpg' if keep else 'png'}", data)
        write_atomic(folder / "masks" / f"{place}.png", encode_mask(mask))
    models = "+".join(sorted({record["row"]["model"] for record in records}))
    ids = "".join(f'{int(label)} = "{label.label_name}"\n' for label in task.labels[: task.public])
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", out.resolve().name).strip("-._")[:48] or "frames"
    text = (
        f'name = "accepted-{slug}"\n'
        "group = '^([^/]+)/'  # all cameras of a recording stay on one side of a split\n"
        f'meaning = "{meaning_of(task, extent)}"\n'
        f'mask_origin = "model:{models}+accepted"  # never in a test split\n'
        f"[ids]\n{ids}"
    )
    write_atomic(folder / "labels.toml", text.encode())
    shutil.rmtree(final, ignore_errors=True)
    folder.replace(final)
    return final


def meaning_of(task: Task, extent: str) -> str:
    """The named meaning of a model's masks: what it calls background may be what its task does not tell apart."""
    with_objects = any(task.kind_of(c) == "object" for c in range(task.public))
    return f"hand-object-{extent}" if with_objects else f"hand-{extent}"


def _recording(frame: Frame, out: Path) -> str:
    """What must not stand on both sides of a split: the sequence with all its cameras."""
    return (frame.sequence or frame.camera or out.resolve().name).replace("/", "_")
