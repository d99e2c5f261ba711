"""8-bit grayscale PNG without row filters: the mask format of a shard.

Label maps are long runs of one value. Filters make them larger and slower to read, and Pillow always filters, so
these few lines write the three chunks themselves, and read them back (PNG specification, third edition, sections 5
and 11). Every other PNG goes through Pillow.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng as fast_zlib  # inflates in a third of the time; for reading: its deflate gives other bytes

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
_GRAY8 = (8, 0, 0, 0, 0)  # bit depth, colour type, compression, filter method, interlacing
_BODY = len(_SIGNATURE) + 25 + 8  # where the compressed rows begin: behind IHDR and the head of IDAT
_MAX_PIXELS = 89_478_485  # as Pillow: beyond it a small file is taken for a decompression bomb


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
    header = struct.pack(">II5B", width, height, *_GRAY8)
    body = zlib.compress(rows.tobytes(), level=1)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _END


def decode_mask(data: bytes) -> NDArray[np.uint8]:
    """The label map uint8 [H, W] of a grayscale PNG, read-only.

    Raises:
        ValueError: not an 8-bit grayscale PNG.
        OSError: damaged (Pillow).
    """
    mask = _decode_plain(data)
    return _decode_any(data) if mask is None else mask


def _decode_plain(data: bytes) -> NDArray[np.uint8] | None:
    """What `encode_mask` wrote, in a third of Pillow's time. None: it is anything else, or damaged."""
    if len(data) < _BODY or data[:16] != _SIGNATURE + struct.pack(">I4s", 13, b"IHDR") or data[-12:] != _END:
        return None
    width, height, *kind, header_crc, size, name = struct.unpack(">II5BII4s", data[16:_BODY])
    if tuple(kind) != _GRAY8 or name != b"IDAT" or size != len(data) - _BODY - 16:
        return None
    if not 0 < width * height <= _MAX_PIXELS or zlib.crc32(data[12:29]) != header_crc:
        return None
    body, (body_crc,) = data[_BODY:-16], struct.unpack(">I", data[-16:-12])
    if zlib.crc32(body, zlib.crc32(b"IDAT")) != body_crc:
        return None
    unpack, expected = fast_zlib.decompressobj(), height * (width + 1)
    try:
        raw = unpack.decompress(body, expected + 1)
    except (zlib.error, fast_zlib.error):  # type: ignore[misc] # its types call the class a variable
        return None
    if len(raw) != expected or not unpack.eof or unpack.unused_data:
        return None
    rows = np.frombuffer(raw, dtype=np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:]


def _decode_any(data: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.mode != "L":
            raise ValueError(f"a mask is an 8-bit grayscale PNG, found Pillow mode {image.mode}")
        return np.asarray(image)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
