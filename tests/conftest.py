"""Tiny datasets, written by the tests themselves in the authors' layouts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SAMPLES = Path(__file__).resolve().parent.parent.parent / "shared" / "samples"


@pytest.fixture(scope="session", autouse=True)
def no_files_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copies of tables go to a folder of this run, and no dataset or hand model of the user is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HODATA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("HODATA_ROOT", raising=False)
        yield


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


@pytest.fixture
def freihand_root(tmp_path: Path) -> Path:
    """12 bases in 6 instants of two views, 4 versions each, and 3 evaluation pictures."""
    return write_freihand(tmp_path / "freihand", bases=12, evaluation=3, views=2)


@pytest.fixture
def make_freihand(tmp_path: Path) -> Callable[..., Path]:
    """`write_freihand` into a folder of this test."""

    def make(name: str = "freihand", **options: int) -> Path:
        return write_freihand(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples; tests that need it are skipped where it is absent."""
    if not SAMPLES.is_dir():
        pytest.skip("no folder of real samples here")
    return SAMPLES
