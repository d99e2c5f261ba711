"""Key points of a hand against its rendered surface: which are seen, which lie behind something."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.pose.camera import project

# How deep a key point may lie under the surface that is seen there and still be in front, in metres. Joints of fingers
# lie 10 mm under their own skin, rarely 20; a second finger in front adds its own 15 to 20. Wrist and thumb root lie in
# thicker flesh, up to 40 mm where the hand is seen edge-on (measured on 600 random poses of the stand-in hand).
DEPTH_OF_FINGERS, DEPTH_OF_WRIST = 0.02, 0.04
DEPTHS = np.array([DEPTH_OF_WRIST, DEPTH_OF_WRIST, *[DEPTH_OF_FINGERS] * 19])


def in_front(
    keypoints: ArrayLike, depth: NDArray[np.float32], K: ArrayLike, depths: ArrayLike = DEPTHS
) -> NDArray[np.bool_]:
    """Which key points are in front: no rendered surface lies farther before them than their own skin can.

    Only what was rendered hides: an object without a mesh does not.

    Args:
        keypoints: [N, 3], OpenCV camera frame, metres; 21 in OpenPose order unless `depths` is given.
        depth: [H, W], z of the nearest surface in metres, inf where nothing is.
        K: [3, 3] intrinsics in pixels.
        depths: [N] or one number, metres: how deep under the surface a point may lie.

    Returns:
        bool [N]; False outside the picture and behind the camera as well.
    """
    keypoints = np.asarray(keypoints, dtype=np.float64)
    pixels = project(keypoints, K)
    height, width = depth.shape
    # Pixel centres lie at integers, so the picture ends half a pixel beyond the last one. NaN is outside.
    inside = np.all((pixels >= -0.5) & (pixels < np.array([width, height]) - 0.5), axis=-1)
    columns, rows = np.floor(np.where(inside[..., None], pixels, 0.0) + 0.5).astype(int).T
    return inside & (keypoints[:, 2] - depth[rows, columns] <= np.asarray(depths))
