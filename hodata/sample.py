"""What travels through a build: a `Record` (cheap pointer, from a scan) becomes a `Sample` (what is written).

Conventions, once: all 3D is the OpenCV camera frame (x right, y down, z forward) in metres; pixel centres lie at
integer coordinates; 21 key points in OpenPose order (wrist; thumb, index, middle, ring, little; base to tip).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Record:
    """A pointer to one sample of a raw dataset: file names and numbers, nothing decoded.

    Args:
        key: unique in the dataset, matches `[a-z0-9_-]+` (see `sample_key`); the build puts its name before it.
        group: `<collection>/<recording>`: samples of one group never stand on both sides of a split. Global over
            datasets: two versions of one recording share it.
        subset: the dataset's own word for its split (`training`, `test_indomain`); empty if it has none.
        image: path of the image, relative to the root, with `/`.
        mask: path of the mask, relative to the root; empty where the mask comes from elsewhere.
        tags: what is cheaply known to be in the picture (object names, labels); a split never takes the last
            training group of a tag away.
        mask_origin: human, polygon, chroma, rendered, chroma+rendered (what both say) or `model:<which>`.
        extra: what `load` needs to know besides (row numbers); must pickle and stay small.
    """

    key: str
    group: str
    subset: str
    image: str
    mask: str = ""
    recording: str = ""
    sequence: str = ""
    frame: int = 0
    camera: str = ""
    instant: str = ""
    subject: str = ""
    view: str = ""
    tags: tuple[str, ...] = ()
    mask_origin: str = "human"
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Camera:
    """A pinhole camera; empty lists where unknown. `K` is 3x3 (pixels), `T_world_from_camera` 4x4 (metres)."""

    id: str = ""
    model: str = ""
    K: list[list[float]] = field(default_factory=list)
    distortion: list[float] = field(default_factory=list)
    size: list[int] = field(default_factory=list)  # width, height
    T_world_from_camera: list[list[float]] = field(default_factory=list)


@dataclass
class Hand:
    """One hand: side `left`, `right` or `unknown`; owner `self`, `other` or `unknown`."""

    side: str = "unknown"
    owner: str = "unknown"
    keypoints_px: list[list[float]] = field(default_factory=list)  # 21 x 2
    keypoints_m: list[list[float]] = field(default_factory=list)  # 21 x 3
    valid: list[bool] = field(default_factory=list)
    in_front: list[bool] = field(default_factory=list)
    definition: str = ""  # whose 21 points these are
    wrist_loop: list[list[float]] = field(default_factory=list)  # pixels


@dataclass
class ObjectPose:
    """One object with a known pose: x_camera = R x_mesh + t."""

    name: str = ""
    R: list[list[float]] = field(default_factory=list)
    t: list[float] = field(default_factory=list)
    mesh_sha256: str = ""
    hand_distance_mm: float = -1.0  # -1: unknown
    held: bool = False


@dataclass
class Instance:
    """One drawn thing: its stored label, box [x0, y0, x1, y1] (pixels, last pixel included) and area in pixels."""

    label: int
    box: list[int]
    area: int
    owner: str = "unknown"
    visible_fraction: float = -1.0  # -1: unknown
    amodal_rle: str = ""  # COCO compressed counts, column-major


@dataclass
class Sample:
    """One image with its label mask, ready to be written.

    Args:
        image: the image file's bytes as shipped.
        image_kind: `jpg` or `png`.
        mask: uint8 [H, W] of label ids.
        meaning: name of a `Meaning` that the source declares.
    """

    image: bytes
    image_kind: str
    mask: NDArray[np.uint8]
    meaning: str
    camera: Camera = field(default_factory=Camera)
    hands: list[Hand] = field(default_factory=list)
    objects: list[ObjectPose] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    subject: str = ""  # where only the annotation tells; it takes the place of the record's
    time_s: float = -1.0  # -1: unknown
    background: str = "real"  # real, green, composited
    pose: dict[str, Any] = field(default_factory=dict)
    pose_convention: str = ""
    quality: dict[str, float] = field(default_factory=dict)


def mask_instances(mask: NDArray[np.uint8]) -> list[Instance]:
    """One instance for each label of a mask uint8 [H, W], background and void left out."""
    from hodata.labels import Label

    found = []
    for label in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)):
        if label in (Label.BACKGROUND, Label.VOID):
            continue
        found.append(instance_of(mask == label, int(label)))
    return found


def instance_of(pixels: NDArray[np.bool_], label: int, owner: str = "unknown") -> Instance:
    """The instance that covers `pixels` bool [H, W]; an empty one has area 0 and the box [0, 0, -1, -1]."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if not len(rows):
        return Instance(label, [0, 0, -1, -1], 0, owner)
    box = [int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])]
    return Instance(label, box, int(np.count_nonzero(pixels)), owner)


def encode_rle(pixels: NDArray[np.bool_]) -> str:
    """COCO's compressed run lengths (column by column) of bool [H, W], as `Instance.amodal_rle` stores them."""
    from pycocotools import mask as coco_mask

    columns = np.zeros(pixels.shape, dtype=np.uint8, order="F")
    ys, xs = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if len(ys):  # turning the whole picture takes longer than encoding it
        box = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        columns[box] = pixels[box]
    return str(coco_mask.encode(columns)["counts"].decode("ascii"))


def sample_key(*parts: str) -> str:
    """A key `[a-z0-9_-]+` made of a dataset's own names, injective for one number of parts.

    Parts are joined by `_`. Where lower-casing or replacing characters loses anything, eight hex digits of the
    original's sha256 are appended, so that `A.1` and `a-1` stay apart.
    """
    import hashlib
    import re

    original = "/".join(parts)
    slug = re.sub(r"[^a-z0-9_-]+", "-", "_".join(parts).lower()).strip("-") or "x"
    if slug != original.replace("/", "_") or "_" in "".join(parts[:-1]):
        slug += "-" + hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return slug


STRUCTURED = ("camera", "hands", "objects", "instances", "pose", "quality")  # stored as JSON text, see `sample_json`


def sample_json(sample: Sample, record: Record, *, key: str, source: str, split: str, licence: str) -> dict[str, Any]:
    """The JSON member: every key in every sample with the same type, never null.

    What has an inner structure is JSON text: Hugging Face `datasets` takes the types from the first five samples, and
    an empty list there makes it refuse every filled one that follows.
    """
    return {
        "key": key,
        "source": source,
        "split": split,
        "subset": record.subset,
        "group": record.group,
        "recording": record.recording,
        "sequence": record.sequence,
        "frame": record.frame,
        "camera": _compact(vars(sample.camera)),
        "instant": record.instant,
        "time_s": sample.time_s,
        "subject": sample.subject or record.subject,
        "view": record.view,
        "background": sample.background,
        "meaning": sample.meaning,
        "mask_origin": record.mask_origin,
        "hands": _compact([vars(hand) for hand in sample.hands]),
        "objects": _compact([vars(item) for item in sample.objects]),
        "instances": _compact([vars(instance) for instance in sample.instances]),
        "pose": _compact(sample.pose),
        "pose_convention": sample.pose_convention,
        "quality": _compact(sample.quality),
        "original_file": record.image,
        "licence": licence,
    }


def _compact(value: object) -> str:
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
