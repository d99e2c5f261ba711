"""The mirrored picture as a second opinion.

Shapes: B batch, K classes, h w the network's pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Task
from hotrain.decide import decide


def flip_average(
    straight: NDArray[np.float32], mirrored: NDArray[np.float32], task: Task, fold: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], list[float]]:
    """The mean of both answers, and how far they disagree.

    Args:
        straight: logits [B, K, h, w] of the pictures.
        mirrored: logits [B, K, h, w] of the mirrored pictures, as they came.
        task: whose classes these are.
        fold: uint8 [K], class -> public class.

    Returns:
        logits [B, K, h, w], and for each picture the share of pixels on which the two answer differently, among those
        that either calls foreground (0 where neither sees any).
    """
    back = mirrored[:, task.mirrored(), :, ::-1]
    size = (straight.shape[3], straight.shape[2])
    one, other = (np.stack([decide(each, size, fold)[0] for each in logits]) for logits in (straight, back))
    seen = ((one > 0) | (other > 0)).sum((1, 2))
    differ = (one != other).sum((1, 2))
    return (straight + back) * np.float32(0.5), [float(d / s) if s else 0.0 for d, s in zip(differ, seen, strict=True)]
