"""Masks as COCO's run lengths, small enough to keep with every frame (pycocotools)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """bool [H, W] -> {size: [H, W], counts: text}; column-major, as COCO has it."""
    from pycocotools import mask as rle

    found = rle.encode(np.asfortranarray(mask.view(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode("ascii")}


def decode(found: dict[str, Any]) -> NDArray[np.bool_]:
    """The inverse of `encode`."""
    from pycocotools import mask as rle

    mask: NDArray[np.uint8] = rle.decode(found)
    return mask.view(bool)


def merge(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The union of masks of one size."""
    from pycocotools import mask as rle

    joined = rle.merge(found)
    return {"size": list(joined["size"]), "counts": joined["counts"].decode("ascii")}
