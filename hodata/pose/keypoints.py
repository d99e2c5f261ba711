"""Key points of a hand against its rendered surface: which are seen, which lie behind something."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.pose.camera import project

# A joint lies 5 to 15 mm under its own skin; a second finger in front of it adds that finger's thickness.
FINGER = 0.02  # metres


def in_front(
    keypoints: ArrayLike, depth: NDArray[np.float32], K: ArrayLike, thickness: float = FINGER
) -> NDArray[np.bool_]:
    """Which key points are in front: no rendered surface lies more than a finger's thickness before them.

    Only what was rendered hides: an object without a mesh does not.

    Args:
        keypoints: [N, 3], OpenCV camera frame, metres.
        depth: [H, W], z of the nearest surface in metres, inf where nothing is.
        K: [3, 3] intrinsics in pixels.
        thickness: metres.

    Returns:
        bool [N]; False outside the picture and behind the camera as well.
    """
    keypoints = np.asarray(keypoints, dtype=np.float64)
    pixels = project(keypoints, K)
    height, width = depth.shape
    # Pixel centres lie at integers, so the picture ends half a pixel beyond the last one. NaN is outside.
    inside = np.all((pixels >= -0.5) & (pixels < np.array([width, height]) - 0.5), axis=-1)
    columns, rows = np.floor(np.where(inside[..., None], pixels, 0.0) + 0.5).astype(int).T
    return inside & (keypoints[:, 2] - depth[rows, columns] <= thickness)
