"""From logits at the network's size to classes and confidence at the image's own size, in one pass over the pixels.

What `predict.likeliest` answers of `predict.NetworkPredictor.logits`, without arrays of K floats per pixel: an image of
8000x6000 pixels needs 96 MB here, not 1.5 GB. It releases the GIL, so that threads do it while the network is busy with
the next images, and needs no torch.

Shapes: K classes, P public classes, h w the network's pixels, H W the image's.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STEPS = 1024  # of the table of exponentials, for one unit of a logit

_SURE = 9.0  # a runner-up so far behind that even K - 1 of them change 255 by less than a quarter


def decide(
    logits: NDArray[np.float32], size: tuple[int, int], fold: NDArray[np.uint8], temperature: float = 1.0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Enlarge logits bilinearly, answer the likeliest public class, and say how sure it is.

    Probabilities of the classes that are one public class are added first: at a wrist hand and arm may each be less
    likely than background, and together, which is what counts at extent `arm`, likelier.

    Args:
        logits: float32 [K, h, w].
        size: (width, height) of the image.
        fold: uint8 [K], class -> public class (`Task.fold`).
        temperature: logits are divided by it for the confidence; 1 where the run stored none (Guo et al. 2017, "On
            calibration of modern neural networks"). It changes no answer.

    Returns:
        public classes uint8 [H, W], and confidence uint8 [H, W]: 255 times the softmax probability that the pixel is
        of the answered public class, which is the sum over the classes folded into it.
    """
    width, height = size
    count, public = len(fold), int(fold.max()) + 1
    # All classes but the best together are likelier than it only where the second is so near.
    near = math.log(count - 1) if public < count and count > 2 else -1.0
    classes = np.empty((height, width), dtype=np.uint8)
    confidence = np.empty((height, width), dtype=np.uint8)
    _kernel()(
        np.ascontiguousarray(logits, dtype=np.float32),
        np.ascontiguousarray(fold, dtype=np.uint8),
        _exponential(),
        np.float32(_STEPS / temperature),
        np.float32(near),
        np.zeros(public, dtype=np.float32),
        *_taps(logits.shape[1], height),
        *_taps(logits.shape[2], width),
        classes,
        confidence,
    )
    return classes, confidence


def _taps(source: int, target: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float32]]:
    """For each of `target` places the two source cells and the second one's weight: pixel centres at half integers,
    the edge repeated, no antialiasing (PyTorch's `interpolate(mode="bilinear", align_corners=False)`)."""
    place = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    low = np.minimum(place.astype(np.uint32), np.uint32(source - 1))
    return low, np.minimum(low + np.uint32(1), np.uint32(source - 1)), (place - low).astype(np.float32)


@cache
def _exponential() -> NDArray[np.float32]:
    """exp(-d) for d in steps of 1/1024 from 0 to 20, where it is under 1e-8: confidence has 8 bits, and a table is
    three times as fast as the function."""
    return np.exp(-np.arange(20 * _STEPS + 1) / _STEPS).astype(np.float32)


@cache
def _kernel() -> Any:
    from hodata.kernels import njit  # numba

    sure = np.float32(_SURE * _STEPS)

    @njit(nogil=True, fastmath=False)
    def kernel(  # type: ignore[no-untyped-def]
        logits, fold, table, sharpness, near, sums, top, bottom, down, left, right, across, classes, confidence
    ):
        count, _, narrow = logits.shape
        height, width = classes.shape
        last, half = np.int32(len(table) - 1), np.float32(0.5)
        row = np.empty(narrow, dtype=np.float32)
        values = np.empty((count, width), dtype=np.float32)
        best, second = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.float32)
        winner = np.empty(width, dtype=np.int32)
        for y in range(height):
            # Class by class along the row, without branches: the compiler makes vector instructions of these loops.
            best[:], second[:], winner[:] = -np.inf, -np.inf, 0
            for c in range(count):
                upper, lower, weight = logits[c, top[y]], logits[c, bottom[y]], down[y]
                for x in range(narrow):
                    row[x] = upper[x] + (lower[x] - upper[x]) * weight
                own = values[c]
                for x in range(width):
                    first = row[left[x]]
                    own[x] = first + (row[right[x]] - first) * across[x]
                for x in range(width):
                    higher = own[x] > best[x]
                    second[x] = best[x] if higher else max(second[x], own[x])
                    winner[x] = c if higher else winner[x]
                    best[x] = own[x] if higher else best[x]
            for x in range(width):
                gap = best[x] - second[x]
                answer = fold[winner[x]]
                if gap < near:
                    sums[:] = 0.0
                    for c in range(count):
                        sums[fold[c]] += math.exp(values[c, x] - best[x])
                    for p in range(len(sums)):
                        answer = p if sums[p] > sums[answer] else answer
                classes[y, x] = answer
                if gap * sharpness > sure and answer == fold[winner[x]]:
                    confidence[y, x] = 255
                    continue
                total, kept = np.float32(0.0), np.float32(0.0)
                for c in range(count):
                    distance = (best[x] - values[c, x]) * sharpness + half
                    share = table[np.int32(distance) if distance < last else last]  # last where it is no number
                    total += share
                    if fold[c] == answer:
                        kept += share
                confidence[y, x] = np.uint8(kept / total * np.float32(255.0) + half)

    return kernel
