"""8-bit grayscale PNG without row filters: the mask format of a shard.

Label maps are long runs of one value. Filters make them larger and slower to read, and Pillow always filters, so
these few lines write the three chunks themselves (PNG specification, third edition, sections 5 and 11).
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """PNG bytes of a label map uint8 [H, W]; every value survives.

    Raises:
        ValueError: not two-dimensional, empty, or not uint8.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size:
        raise ValueError(f"a mask is a non-empty uint8 [H, W] array, found {mask.dtype} {list(mask.shape)}")
    height, width = mask.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # column 0: filter type 0 (none)
    rows[:, 1:] = mask
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), level=1)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def decode_mask(data: bytes) -> NDArray[np.uint8]:
    """The label map uint8 [H, W] of a grayscale PNG.

    Raises:
        ValueError: not an 8-bit grayscale PNG.
        OSError: damaged (Pillow).
    """
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.mode != "L":
            raise ValueError(f"a mask is an 8-bit grayscale PNG, found Pillow mode {image.mode}")
        return np.asarray(image)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
