"""Reading image and mask files that came from anywhere: bounded in size, decoded whole, errors in words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError

MAX_PIXELS = 128_000_000
MAX_BYTES = 512 * 2**20
_KINDS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}  # MPO: a JPEG that many cameras append a preview to
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
EXIF_ORIENTATION = 0x0112
_PNG_START = b"\x89PNG\r\n\x1a\n"


def read_image(path: Path, where: str) -> tuple[bytes, str, tuple[int, int]]:
    """The bytes of an image file, checked by decoding them once.

    Args:
        path: the file.
        where: how error messages call it.

    Returns:
        bytes as shipped; `jpg` or `png` by content, not by name; (width, height).

    Raises:
        SampleError: missing, truncated, too large, of another format, or rotated by EXIF.
    """
    data = _read(path, where)
    return data, *check_image(data, where)


def check_image(data: bytes, where: str) -> tuple[str, tuple[int, int]]:
    """Decode an image file once: `jpg` or `png`, and (width, height); raises as `read_image`."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = _KINDS.get(image.format or "")
            size = image.size
            if kind is None:
                raise SampleError(where, f"is a {image.format} image; only JPEG and PNG can be stored as shipped")
            if size[0] * size[1] > MAX_PIXELS:
                raise SampleError(where, f"has {size[0]}x{size[1]} pixels, over the limit of {MAX_PIXELS:,}")
            if image.mode not in _MODES:
                raise SampleError(
                    where,
                    f"has Pillow mode {image.mode}, values of more than 8 bits, which every reader clips in its own "
                    "way; convert it to 8 bits",
                )
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
            if orientation not in (0, 1):
                raise SampleError(
                    where,
                    f"EXIF orientation is {orientation}: viewers turn it, decoders for training do not, so image and "
                    "mask may disagree; turn the pixels once (`exiftran -ai FILE`) and check the mask",
                )
            # Every byte of a JPEG is still read, so a cut file is found, but an eighth of each side is all that is
            # computed: nobody looks at these pixels. A no-op for PNG.
            image.draft("L", (max(size[0] // 8, 1), max(size[1] // 8, 1)))
            image.load()
    except SampleError:
        raise
    except Exception as error:  # Pillow raises many kinds on hostile bytes
        raise SampleError(where, f"cannot be decoded ({_reason(error)}); copy or download the file again") from error
    return kind, size


def read_mask(path: Path, where: str, *, colors: bool = False) -> NDArray[np.uint8]:
    """The pixels of a mask file: uint8 [H, W], or [H, W, 3] where it is a colour image.

    Args:
        path: the file.
        where: how error messages call it.
        colors: the values are colours, not ids: those of a palette, and gray of 2 or 4 bits stretched to 0..255.

    Raises:
        SampleError: missing, truncated, too large, or not an 8-bit image.
    """
    from PIL import Image

    data = _read(path, where)
    # Pillow keeps the upper byte of 16-bit colours, which is 0 for every id, and stretches gray of 2 or 4 bits.
    depth, kind = (data[24], data[25]) if data[:8] == _PNG_START and len(data) > 25 else (8, 0)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise SampleError(where, f"has {image.size[0]}x{image.size[1]} pixels, over the limit")
            if depth == 16 and kind != 0:
                raise SampleError(where, "is a colour PNG of 16 bits; a mask is an 8-bit image of ids")
            if image.mode == "1":
                return np.asarray(image.convert("L"))
            if image.mode == "P" and colors:
                return np.asarray(image.convert("RGB"))
            if image.mode == "L" and depth in (2, 4) and not colors:
                return np.asarray(image) // np.uint8(255 // (2**depth - 1))
            if image.mode in ("L", "P", "RGB"):
                return np.asarray(image)
            if image.mode in ("LA", "RGBA"):
                return np.asarray(image)[..., : 1 if image.mode == "LA" else 3].squeeze()
            if image.mode in ("I", "I;16", "I;16B", "I;16L"):
                wide = np.asarray(image).astype(np.int64)
                if wide.min() < 0 or wide.max() > 255:
                    raise SampleError(where, f"holds ids up to {wide.max()}; masks store 8-bit ids")
                return wide.astype(np.uint8)
            raise SampleError(where, f"has Pillow mode {image.mode}; a mask is an 8-bit image of ids")
    except SampleError:
        raise
    except Exception as error:
        raise SampleError(where, f"cannot be decoded ({_reason(error)}); copy or download the file again") from error


def require_size(mask: NDArray[Any], size: tuple[int, int], where: str, image: str) -> None:
    """Raise `SampleError` unless mask [H, W, ...] has the image's (width, height)."""
    height, width = mask.shape[:2]
    if (width, height) != size:
        raise SampleError(where, f"mask is {width}x{height}, its image {image} is {size[0]}x{size[1]}")


def _reason(error: Exception) -> str:
    """Pillow's words, but for those that name a memory address: manifests are the same in every run."""
    from PIL import UnidentifiedImageError

    return "not an image, or its first bytes are damaged" if isinstance(error, UnidentifiedImageError) else str(error)


def _read(path: Path, where: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SampleError(where, f"is {size:,} bytes long, over the limit of {MAX_BYTES:,}")
        if size == 0:
            raise SampleError(where, "is empty (0 bytes); copy or download the file again")
        return path.read_bytes()
    except FileNotFoundError:
        raise SampleError(where, "does not exist") from None
    except OSError as error:
        raise SampleError(where, f"cannot be read ({error.strerror or error})") from error
