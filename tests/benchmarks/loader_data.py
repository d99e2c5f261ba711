"""The same drawn pictures and masks in every contender's own format."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 640, 480
DISTINCT = 128  # pictures; each stands in the data several times, under other keys


def picture(rng: np.random.Generator) -> np.ndarray:
    """uint8 [480, 640, 3]: noise of four scales, coarse the strongest, as in photographs."""
    total = np.full((HEIGHT, WIDTH, 3), 120, np.float32)
    for side, strength in ((8, 60), (40, 25), (160, 10), (480, 4)):
        noise = rng.normal(size=(side, side * 4 // 3, 3)).astype(np.float32)
        layers = [Image.fromarray(noise[..., c]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for c in range(3)]
        total += strength * np.stack([np.asarray(layer) for layer in layers], 2)
    return np.clip(total, 0, 255).astype(np.uint8)


def label_map(rng: np.random.Generator) -> np.ndarray:
    """uint8 [480, 640]: an object, a hand before it, each with a wavy outline."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for label in (4, 2):
        x, y = rng.uniform(100, WIDTH - 100), rng.uniform(80, HEIGHT - 80)
        angle = np.arctan2(rows - y, columns - x)
        radius = 75 + 20 * np.sin(5 * angle + rng.uniform(0, 6)) + 4 * np.sin(23 * angle)
        mask[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = label
    return mask


def samples(count: int, seed: int = 0) -> Iterator[tuple[str, bytes, bytes, np.ndarray]]:
    """(key, JPEG bytes, mask PNG bytes, mask), the same in every process."""
    from hodata.shards.png import encode_mask

    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(min(DISTINCT, count)):
        buffer, mask = io.BytesIO(), label_map(rng)
        Image.fromarray(picture(rng)).save(buffer, "JPEG", quality=80)
        drawn.append((buffer.getvalue(), encode_mask(mask), mask))
    for number in range(count):
        yield f"drawn_{number:06d}", *drawn[number % len(drawn)]


def write_shards(folder: Path, count: int, per_shard: int = 512) -> tuple[float, float]:
    """hodata's shards, which webdataset reads too; mean bytes of a JPEG and of a mask are returned."""
    from hodata.labels import MEANINGS
    from hodata.sample import Record, Sample, mask_instances
    from hodata.shards.index import IndexInfo
    from hodata.shards.writer import ShardWriter

    folder.mkdir()
    info = IndexInfo("drawn", "0" * 64, {"options": {}}, [MEANINGS["exact"].to_json()], ())
    items = list(samples(count))
    for start in range(0, count, per_shard):
        with ShardWriter(folder, f"drawn-train-{start // per_shard:06d}", info, "none", False) as writer:
            for key, image, _, mask in items[start : start + per_shard]:
                sample = Sample(image, "jpg", mask, "exact", instances=mask_instances(mask))
                writer.add(sample, Record(key, f"drawn/{key}", "", key), key=key, split="train")
    return float(np.mean([len(item[1]) for item in items])), float(np.mean([len(item[2]) for item in items]))


def write_files(folder: Path, count: int) -> None:
    """One JPEG and one PNG a sample."""
    folder.mkdir()
    for key, image, mask, _ in samples(count):
        (folder / f"{key}.jpg").write_bytes(image)
        (folder / f"{key}.png").write_bytes(mask)


def write_mds(folder: Path, count: int) -> None:
    """MosaicML streaming's shards."""
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"image": "bytes", "mask": "bytes"}) as writer:
        for _, image, mask, _ in samples(count):
            writer.write({"image": image, "mask": mask})


def write_litdata(folder: Path, count: int) -> None:
    """LitData's chunks."""
    from litdata import optimize

    items = [(image, mask) for _, image, mask, _ in samples(count)]
    optimize(fn=_as_bytes, inputs=items, output_dir=str(folder), chunk_bytes="64MB", num_workers=1)


def _as_bytes(item: tuple[bytes, bytes]) -> dict[str, bytes]:
    return {"image": item[0], "mask": item[1]}
