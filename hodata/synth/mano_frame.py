"""The frame of MANO's files: there hands lie and point otherwise than in the scenes.

Scenes are drawn with the hand of `hand_model`: the wrist joint at the origin, fingers toward +x, left mirrored from
right in z. In the real files the right wrist joint lies some 10 cm beside the origin and moves with the shape, fingers
point toward -x and the thumb toward +z, and the left hand is the right one mirrored in x. Model files and annotations
are written in that frame, so that whoever turns hands about the origin, centres meshes at the wrist, or mirrors poses
in another axis is wrong on the miniatures too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.pose.camera import axis_angle, rodrigues
from hodata.synth.hand_model import SIZE_PER_BETA

Array = NDArray[np.float64]

# Signs of x, y, z: what turns the hands of the scenes into those of the files. Half a turn about y, or nothing.
TURN = {"right": np.array([-1.0, 1.0, -1.0]), "left": np.array([1.0, 1.0, 1.0])}
WRIST = {"right": np.array([0.096, 0.006, 0.006]), "left": np.array([-0.096, 0.006, 0.006])}  # metres, mean shape


def wrist_joint(side: str, betas: ArrayLike) -> Array:
    """Where the wrist joint of a hand of this shape lies in the file, [3] metres: it grows with the hand."""
    return WRIST[side] * (1 + SIZE_PER_BETA * np.asarray(betas, dtype=np.float64)[0])


def finger_poses(side: str, pose: ArrayLike) -> Array:
    """Axis-angles [..., 3k] of finger joints as the file's hand needs them."""
    pose = np.asarray(pose, dtype=np.float64)
    return (pose.reshape(*pose.shape[:-1], -1, 3) * TURN[side]).reshape(pose.shape)


def full_pose(side: str, pose: ArrayLike) -> Array:
    """Axis-angles [48] of a scene's hand as the file's hand needs them: it then looks the same.

    The hand's place is another one: what is added to its vertices is the scene's translation less `wrist_joint`.
    """
    pose = np.asarray(pose, dtype=np.float64)
    root = axis_angle(rodrigues(pose[:3]) * TURN[side])  # R Q^T
    return np.concatenate([root, finger_poses(side, pose[3:])])
