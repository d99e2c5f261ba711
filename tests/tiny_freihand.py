"""A tiny FreiHAND, in the authors' layout."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(pixels: np.ndarray, quality: int = 92) -> bytes:
    """JPEG bytes of uint8 [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_freihand(root: Path, bases: int = 6, evaluation: int = 0, versions: int = 4, views: int = 1) -> Path:
    """A FreiHAND tree of 32x24 pictures; `views` neighbouring bases share their finger pose."""
    rng = np.random.default_rng(bases)
    for folder in ("training/rgb", "training/mask"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    poses = []
    for base in range(bases):
        mask = np.zeros((24, 32, 3), np.uint8)
        top, left = rng.integers(2, 10, 2)
        mask[top : top + 10, left : left + 12] = 255
        (root / f"training/mask/{base:08d}.jpg").write_bytes(jpeg(mask))
        for version in range(versions):
            picture = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            (root / f"training/rgb/{base + 32_560 * version:08d}.jpg").write_bytes(jpeg(picture))
        shared = np.random.default_rng(base // views).normal(size=58)
        poses.append([[*rng.normal(size=3).tolist(), *shared[3:].tolist(), 0.1, 0.2, 0.3]])
    (root / "training_mano.json").write_text(json.dumps(poses))
    if evaluation:
        for folder in ("evaluation/rgb", "evaluation/segmap"):
            (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(evaluation):
        parts = np.zeros((24, 32), np.uint8)
        parts[5:15, 6:20] = rng.integers(1, 17, (10, 14))
        Image.fromarray(parts).save(root / f"evaluation/segmap/{number:08d}.png")
        picture = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        (root / f"evaluation/rgb/{number:08d}.jpg").write_bytes(jpeg(picture))
    return root
