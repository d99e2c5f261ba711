"""Masks as PNG: the short way to decode them against Pillow, on whole files, foreign files and damaged ones."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from hodata.shards import png
from hodata.shards.png import decode_mask, encode_mask

masks = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 255))


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        return np.asarray(image)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def assemble(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@settings(deadline=None)
@given(masks)
def test_own_masks_take_the_short_way_and_equal_pillow(mask: np.ndarray) -> None:
    data = encode_mask(mask)
    short = png._decode_plain(data)
    assert short is not None
    np.testing.assert_array_equal(short, mask)
    np.testing.assert_array_equal(pillow(data), mask)


@settings(deadline=None, max_examples=200)
@given(mask=masks, place=st.floats(0, 0.9999), bit=st.integers(0, 7), cut=st.integers(0, 40))
def test_damage_is_never_taken_for_a_mask(mask: np.ndarray, place: float, bit: int, cut: int) -> None:
    """A flipped bit, a missing or an added tail: the short way declines, whatever Pillow then says."""
    data = bytearray(encode_mask(mask))
    data[int(place * len(data))] ^= 1 << bit
    assert png._decode_plain(bytes(data)) is None
    whole = encode_mask(mask)
    assert png._decode_plain(whole[: len(whole) - 1 - cut]) is None
    assert png._decode_plain(whole + bytes(cut + 1)) is None


def test_other_writers_go_through_pillow() -> None:
    mask = np.arange(60, dtype=np.uint8).reshape(6, 10)
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")  # with row filters
    assert png._decode_plain(buffer.getvalue()) is None
    np.testing.assert_array_equal(decode_mask(buffer.getvalue()), mask)
    rows = np.zeros((6, 11), np.uint8)
    rows[:, 1:] = mask
    body, header = zlib.compress(rows.tobytes()), struct.pack(">II5B", 10, 6, 8, 0, 0, 0, 0)
    split = assemble((b"IHDR", header), (b"IDAT", body[:20]), (b"IDAT", body[20:]), (b"IEND", b""))
    assert png._decode_plain(split) is None
    np.testing.assert_array_equal(decode_mask(split), mask)


@pytest.mark.parametrize("size", [(10, 5), (10, 7), (9, 6), (0, 6), (2**31, 2**31)])
def test_a_header_of_another_size_is_declined(size: tuple[int, int]) -> None:
    """Well-formed chunks whose rows are more or fewer than the header says; no memory is taken for a huge one."""
    rows = np.zeros((6, 11), np.uint8)
    header = struct.pack(">II5B", *size, 8, 0, 0, 0, 0)
    data = assemble((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    assert png._decode_plain(data) is None


def test_a_decompression_bomb_is_declined() -> None:
    header = struct.pack(">II5B", 10, 6, 8, 0, 0, 0, 0)
    data = assemble((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**8))), (b"IEND", b""))
    assert png._decode_plain(data) is None


@pytest.mark.parametrize("mode", ["P", "RGB", "1", "LA", "I;16"])
def test_other_kinds_are_refused(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (4, 3)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="8-bit grayscale"):
        decode_mask(buffer.getvalue())
