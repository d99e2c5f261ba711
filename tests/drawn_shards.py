"""Drawn samples in small shards, by hodata's own writer: what the tests of hotrain read and train on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hodata.labels import MEANINGS, Label, Meaning
from hodata.sample import Record, Sample, mask_instances
from hodata.shards.index import IndexInfo
from hodata.shards.reader import ShardIndex
from hodata.shards.writer import ShardWriter
from hotrain.input_rule import InputRule
from hotrain.loading.crop import CropRule
from hotrain.loading.data import CropData
from hotrain.order import Order


@dataclass(frozen=True)
class Spec:
    """One shard of drawn pictures: a bright hand-coloured disc on a dark ground, and a green square as the object."""

    name: str
    split: str = "train"
    samples: int = 6
    meaning: str = "exact"
    size: tuple[int, int] = (64, 48)
    group: str = ""
    hand: Label = Label.HAND
    item: Label = Label.OBJECT
    ground: Label = Label.BACKGROUND
    kind: str = "jpg"
    policy: str = "clean"
    shard: int = 0


def draw(spec: Spec, number: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 image [H, W, 3] and label map [H, W] of one sample; a function of its name and number."""
    rng = np.random.default_rng([number, *spec.name.encode(), *spec.split.encode()])
    width, height = spec.size
    image = rng.integers(20, 80, (height, width, 3), dtype=np.uint8)
    mask = np.full((height, width), spec.ground, dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    x, y = rng.integers(0, width - 16), rng.integers(0, height - 16)
    image[y : y + 16, x : x + 16] = (30, 200, 60)
    mask[y : y + 16, x : x + 16] = spec.item
    inside = (columns - rng.integers(12, width - 12)) ** 2 + (rows - rng.integers(12, height - 12)) ** 2 < 11**2
    image[inside] = (220, 150, 120)
    mask[inside] = spec.hand
    return image, mask


def encode(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG" if kind == "jpg" else "PNG", quality=95)
    return buffer.getvalue()


def write(folder: Path, specs: Sequence[Spec], meanings: Sequence[Meaning] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    declared = tuple(meaning.to_json() for meaning in [*MEANINGS.values(), *meanings])
    for spec in specs:
        info = IndexInfo(spec.name, "0" * 64, {"options": {"split_policy": spec.policy}}, declared, ())
        with ShardWriter(folder, f"{spec.name}-{spec.split}-{spec.shard:06d}", info, "none", False) as writer:
            for number in range(100 * spec.shard, 100 * spec.shard + spec.samples):
                image, mask = draw(spec, number)
                key = f"{spec.name}_{spec.split}_{number}"
                group = spec.group or f"{spec.name}/{spec.split}-{number // 3}"
                sample = Sample(encode(image, spec.kind), spec.kind, mask, spec.meaning, instances=mask_instances(mask))
                writer.add(sample, Record(key, group, "", f"{key}.{spec.kind}"), key=key, split=spec.split)
    return folder


def crop_data(index: ShardIndex, seed: int = 3, crop: CropRule | None = None, **others: Any) -> CropData:
    """The training samples of all builds, as crops of 32."""
    train = index.select(split="train")
    rows = {name: train[index.column("source")[train] == name] for name in index.plans}
    order = Order({name: len(own) for name, own in rows.items()}, seed)
    return CropData(index, rows, order, InputRule(32), crop or CropRule(32), **others)


def break_member(index: ShardIndex, row: int, member: str = "image") -> str:
    """Flip a byte of one member in its shard; returns the key."""
    path = index.shards[int(index.shard_number[row])]
    raw = bytearray(path.read_bytes())
    raw[int(index.column(f"{member}_offset")[row]) + 20] ^= 255
    path.write_bytes(raw)
    return str(index.column("key")[row])
