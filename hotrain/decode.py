"""Image files from anywhere to RGB pixels: bounded in size, decoded whole, what is doubtful refused in words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.sources.images import EXIF_ORIENTATION, MAX_BYTES, MAX_PIXELS
from hotrain.errors import FrameError

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF = ("refuse", "upright", "stored")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
_JPEG_START = b"\xff\xd8\xff"


def read_rgb(path: Path, exif: str = "refuse") -> NDArray[np.uint8]:
    """The pixels of an image file; arguments and errors as of `decode_rgb`."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FrameError(f"is {size:,} bytes long, over the limit of {MAX_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(f"cannot be read ({error.strerror or error})") from error
    return decode_rgb(data, exif)


def decode_rgb(data: bytes, exif: str = "refuse") -> NDArray[np.uint8]:
    """Decode an image file of any common kind; the content decides, not a name.

    16-bit values keep their upper byte and transparency is dropped, as OpenCV does; CMYK is converted.

    Args:
        data: the file.
        exif: what to do where EXIF says that viewers turn the picture: `refuse`; `upright`: turn it, as OpenCV and
            browsers do; `stored`: leave it, as Pillow and torchvision do. A mask fits only readers of one kind.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        FrameError: empty, no image, damaged, too large, an animation, or turned by EXIF and refused.
    """
    if not data:
        raise FrameError("is empty (0 bytes); copy it again")
    import warnings

    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here; Pillow would warn of large ones
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                turned = _check(image, exif)
                if not turned and data.startswith(_JPEG_START):
                    fast = _fast_jpeg(data)
                    if fast is not None:
                        return fast
                return _rgb(ImageOps.exif_transpose(image) if turned else image)
    except FrameError:
        raise
    except Image.DecompressionBombError as error:
        raise FrameError(f"claims more pixels than the limit of {MAX_PIXELS:,}") from error
    except UnidentifiedImageError as error:
        raise FrameError("is not an image, or its first bytes are damaged") from error
    except Exception as error:  # Pillow raises many kinds on hostile bytes
        raise FrameError(f"cannot be decoded ({error}); copy it again") from error


def _check(image: Image, exif: str) -> bool:
    """Refuse what cannot be annotated; whether the pixels are to be turned."""
    if image.size[0] * image.size[1] > MAX_PIXELS:
        raise FrameError(f"has {image.size[0]}x{image.size[1]} pixels, over the limit of {MAX_PIXELS:,}")
    pictures = getattr(image, "n_frames", 1)
    if pictures > 1 and image.format != "MPO":  # phones put previews and depth behind a JPEG's picture
        raise FrameError(f"is a {image.format} of {pictures} pictures; write each to a file of its own")
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if orientation in (0, 1) or exif == "stored":
        return False
    if exif == "refuse":
        raise FrameError(
            f"EXIF orientation is {orientation}: some programs turn it, others do not, and its mask would fit only one "
            "kind; turn the pixels once (`exiftran -ai FILE`), or choose with --exif upright or --exif stored"
        )
    return True


def _rgb(image: Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16") or image.mode == "I":  # convert("RGB") would cut at 255
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 0xFFFF:
            raise FrameError("holds values beyond 16 bits; it is no picture")
        return np.repeat((wide.astype(np.uint16) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise FrameError("holds floating-point values; it is no picture")
    return np.asarray(image.convert("RGB"))


def _fast_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """The same pixels as Pillow's, in less time and without the GIL; None for CMYK and other rarities."""
    try:
        import simplejpeg
    except ModuleNotFoundError:
        return None
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        return None
    return pixels
