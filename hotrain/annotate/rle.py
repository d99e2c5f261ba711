"""Masks as COCO's run lengths, small enough to keep with every frame (pycocotools)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Task
from hotrain.errors import FrameError


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


def paint(found: Mapping[str, dict[str, Any]], task: Task, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The label map of a frame.

    Args:
        found: mask of each public class by its name, without background.
        task: whose classes they are.
        size: (H, W) of the frame's image as it is now.

    Returns:
        uint8 [H, W], label ids.

    Raises:
        FrameError: the masks are of another size.
    """
    labels = np.zeros(size, dtype=np.uint8)
    for name, mask in found.items():
        if tuple(mask["size"]) != tuple(size):
            (height, width), (mask_height, mask_width) = size, mask["size"]
            raise FrameError(
                f"is {width}x{height} now, and was {mask_width}x{mask_height} when it was annotated; judge it `again`"
            )
        labels[decode(mask)] = task.labels[task.classes.index(name)]
    return labels


def merge(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The union of masks of one size."""
    from pycocotools import mask as rle

    joined = rle.merge(found)
    return {"size": list(joined["size"]), "counts": joined["counts"].decode("ascii")}
