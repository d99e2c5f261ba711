"""From logits at the network's size to classes and confidence at the image's own size, in one pass over the pixels.

What `predict.NetworkPredictor.logits` followed by softmax and argmax gives, without arrays of K floats per pixel: an
image of 8000x6000 pixels needs 96 MB here, not 1.5 GB. It releases the GIL, so that threads do it while the network
is busy with the next images, and needs no torch.

Shapes: K classes, P public classes, h w the network's pixels, H W the image's.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def decide(
    logits: NDArray[np.float32], size: tuple[int, int], fold: NDArray[np.uint8], temperature: float = 1.0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Enlarge logits bilinearly, answer the likeliest class, and say how sure it is.

    Args:
        logits: float32 [K, h, w].
        size: (width, height) of the image.
        fold: uint8 [K], class -> public class (`Task.fold`), applied after the argmax.
        temperature: logits are divided by it before the softmax; 1 where the run stored none (Guo et al. 2017,
            "On calibration of modern neural networks").

    Returns:
        public classes uint8 [H, W], and confidence uint8 [H, W]: 255 times the softmax probability that the pixel is
        of the answered public class, which is the sum over the classes folded into it.
    """
    width, height = size
    classes = np.empty((height, width), dtype=np.uint8)
    confidence = np.empty((height, width), dtype=np.uint8)
    _kernel()(
        np.ascontiguousarray(logits, dtype=np.float32),
        np.ascontiguousarray(fold, dtype=np.uint8),
        np.float32(1.0 / temperature),
        *_taps(logits.shape[1], height),
        *_taps(logits.shape[2], width),
        classes,
        confidence,
    )
    return classes, confidence


def _taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `target` places the two source cells and the second one's weight: pixel centres at half integers,
    the edge repeated, no antialiasing (PyTorch's `interpolate(mode="bilinear", align_corners=False)`)."""
    place = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    low = np.minimum(place.astype(np.int64), source - 1)
    return low, np.minimum(low + 1, source - 1), (place - low).astype(np.float32)


@cache
def _kernel() -> Any:
    from numba import njit

    @njit(cache=True, nogil=True, fastmath=False)
    def kernel(logits, fold, sharpness, top, bottom, down, left, right, across, classes, confidence):  # type: ignore[no-untyped-def]
        count, _, narrow = logits.shape
        height, width = classes.shape
        row = np.empty((count, narrow), dtype=np.float32)
        values = np.empty(count, dtype=np.float32)
        for y in range(height):
            for c in range(count):
                for x in range(narrow):
                    upper = logits[c, top[y], x]
                    row[c, x] = upper + (logits[c, bottom[y], x] - upper) * down[y]
            for x in range(width):
                best = 0
                for c in range(count):
                    first = row[c, left[x]]
                    values[c] = first + (row[c, right[x]] - first) * across[x]
                    if values[c] > values[best]:
                        best = c
                answer = fold[best]
                total = np.float32(0.0)
                own = np.float32(0.0)
                for c in range(count):
                    share = np.float32(1.0)
                    if c != best:
                        distance = (values[c] - values[best]) * sharpness
                        share = np.float32(math.exp(distance)) if distance > -20.0 else np.float32(0.0)
                    total += share
                    if fold[c] == answer:
                        own += share
                classes[y, x] = answer
                confidence[y, x] = np.uint8(own / total * np.float32(255.0) + np.float32(0.5))

    return kernel
