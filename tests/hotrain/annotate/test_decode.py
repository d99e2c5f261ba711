"""Odd image files, read as other readers read them or refused in words."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import scene
from PIL import Image

from hotrain.decode import decode_rgb, read_rgb
from hotrain.errors import FrameError


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_opencv(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
def test_8_bit_pngs(mode: str) -> None:
    picture = Image.fromarray(scene()[0]).convert(mode)
    found = decode_rgb(encoded(picture, "PNG"))
    np.testing.assert_array_equal(found, np.asarray(picture.convert("RGB")))
    assert found.dtype == np.uint8 and found.shape == (48, 64, 3)


def test_16_bit_pngs_keep_their_upper_byte_as_in_opencv() -> None:
    wide = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    data = encoded(Image.fromarray(wide), "PNG")
    np.testing.assert_array_equal(decode_rgb(data), as_opencv(data))
    color = cv2.imencode(".png", np.dstack([wide, wide.T.reshape(48, 64), wide[::-1]]))[1].tobytes()
    np.testing.assert_array_equal(decode_rgb(color), as_opencv(color))


def test_cmyk_jpegs_have_the_right_colours() -> None:
    data = encoded(Image.fromarray(scene()[0]).convert("CMYK"), "JPEG", quality=98)
    assert np.abs(decode_rgb(data).astype(int) - scene()[0].astype(int)).mean() < 6


def test_jpegs_are_those_of_pillow() -> None:
    data = encoded(Image.fromarray(scene()[0]), "JPEG", quality=90)
    np.testing.assert_array_equal(decode_rgb(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_pictures_turned_by_exif(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(scene()[0]), "JPEG", quality=95, exif=exif)
    with pytest.raises(FrameError, match=f"EXIF orientation is {orientation}.*--exif upright"):
        decode_rgb(data)
    upright = decode_rgb(data, "upright")
    assert upright.shape == as_opencv(data).shape
    assert np.abs(upright.astype(int) - as_opencv(data)).max() <= 3
    np.testing.assert_array_equal(decode_rgb(data, "stored"), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_files_that_are_no_picture(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(scene()[0]), "JPEG")
    frames = [Image.fromarray(scene(n)[0]) for n in range(3)]
    refused = {
        "zero bytes": (b"", "empty"),
        "text": (b"Hello, I am a text file.\n" * 10, "not an image"),
        "cut off": (whole[: len(whole) // 2], "cannot be decoded"),
        "animation": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "GIF of 3 pictures"),
        "animated png": (encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), "PNG of 3 pictures"),
        "numbers": (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
    }
    for name, (data, message) in refused.items():
        with pytest.raises(FrameError, match=message):
            (tmp_path / "x.jpg").write_bytes(data)
            read_rgb(tmp_path / "x.jpg")
            pytest.fail(name)
    with pytest.raises(FrameError, match="cannot be read"):
        read_rgb(tmp_path / "missing.jpg")


def test_a_png_that_claims_to_be_huge_is_refused_before_it_is_decoded() -> None:
    data = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(FrameError, match="more pixels than the limit"):
        decode_rgb(bytes(data))


def test_the_smallest_picture() -> None:
    np.testing.assert_array_equal(decode_rgb(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")), [[[1, 2, 3]]])
