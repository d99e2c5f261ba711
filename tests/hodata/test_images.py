"""Images and masks of rare kinds: what they hold is kept, or said."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hodata.errors import SampleError
from hodata.sources.images import check_image, read_mask


def png(values: np.ndarray, depth: int, kind: int) -> bytes:
    """A PNG by hand: Pillow writes no colours of 16 bits, and no gray of 2 or 4.

    Args:
        values: [H, W * channels].
        depth: bits of each.
        kind: colour type: 0 gray, 2 RGB, 4 gray with alpha, 6 RGBA.
    """
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    height, width = values.shape[0], values.shape[1] // channels

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    if depth == 16:
        lines = [row.astype(">u2").tobytes() for row in values]
    else:
        bits = (values[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        lines = [np.packbits(row.reshape(-1)).tobytes() for row in bits.astype(np.uint8)]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + line for line in lines))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", [2, 4, 6])
def test_ids_in_16_bit_colours_are_not_read_as_background(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(png(np.ones((6, 24), np.int64), 16, kind))
    with pytest.raises(SampleError, match="colour PNG of 16 bits"):
        read_mask(path, "mask.png")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_of_any_depth_keeps_its_ids(tmp_path: Path, depth: int) -> None:
    ids = np.arange(24).reshape(4, 6) % min(2**depth, 9)
    path = tmp_path / "mask.png"
    path.write_bytes(png(ids, depth, 0))
    np.testing.assert_array_equal(read_mask(path, "mask.png"), 255 * ids if depth == 1 else ids)


def test_a_picture_of_16_bits_is_refused() -> None:
    with pytest.raises(SampleError, match="more than 8 bits"):
        check_image(png(np.arange(24).reshape(4, 6) * 2000, 16, 0), "depth.png")


def test_what_cameras_append_to_a_jpeg_makes_it_none_else() -> None:
    buffer = io.BytesIO()
    picture, preview = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (20, 15))
    picture.save(buffer, "MPO", save_all=True, append_images=[preview])
    with Image.open(io.BytesIO(buffer.getvalue())) as opened:
        assert opened.format == "MPO"
    assert check_image(buffer.getvalue(), "camera.jpg") == ("jpg", (40, 30))
