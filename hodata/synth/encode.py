"""Image files of miniatures: JPEG and PNG pictures and grayscale PNG masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_jpeg(path: Path, image: NDArray[np.uint8], quality: int) -> None:
    """Write an image uint8 [H, W, 3] (4:2:0 subsampling)."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "JPEG", quality=quality)


def write_gray(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write a mask uint8 [H, W] as an 8-bit grayscale PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path, "PNG", compress_level=1)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image uint8 [H, W, 3] as an 8-bit RGB PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "PNG", compress_level=1)
