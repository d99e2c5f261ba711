"""Pinhole cameras: projection, rays, axis flips, look-at, rotations.

The camera frame is OpenCV's (x right, y down, z forward), in metres; pixel centres lie at integer coordinates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])


def intrinsics(focal: float, size: tuple[int, int], center: tuple[float, float] | None = None) -> Array:
    """K float64 [3, 3] of a camera with square pixels and no skew.

    Args:
        focal: focal length in pixels.
        size: (width, height) in pixels.
        center: principal point in pixels; the middle of the picture by default.
    """
    width, height = size
    cx, cy = center if center is not None else ((width - 1) / 2, (height - 1) / 2)
    return np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])


def project(points: ArrayLike, K: ArrayLike) -> Array:
    """Pixels [..., 2] of points [..., 3] in the camera frame; nan where a point is not in front (z <= 0)."""
    points = np.asarray(points, dtype=np.float64)
    K = np.asarray(K, dtype=np.float64)
    depth = points[..., 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (points @ K.T)[..., :2] / depth
    return np.where(depth > 0, pixels, np.nan)


def pixel_rays(pixels: ArrayLike, K: ArrayLike) -> Array:
    """Ray directions [..., 3] with z = 1 through pixels [..., 2]: the inverse of `project` up to depth."""
    pixels = np.asarray(pixels, dtype=np.float64)
    homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
    return homogeneous @ np.linalg.inv(np.asarray(K, dtype=np.float64)).T


def flip_opengl(points: ArrayLike) -> Array:
    """Points [..., 3] from an OpenGL camera frame (y up, z backward) to OpenCV's, or back: it is its own inverse."""
    return np.asarray(points, dtype=np.float64) * np.array([1.0, -1.0, -1.0])


def transform(T: ArrayLike, points: ArrayLike) -> Array:
    """Points [..., 3] carried by a rigid transform T [4, 4]."""
    T = np.asarray(T, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ T[:3, :3].T + T[:3, 3]


def rigid(R: ArrayLike, t: ArrayLike) -> Array:
    """The transform [4, 4] of rotation R [3, 3] followed by translation t [3]."""
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = t
    return T


def invert_rigid(T: ArrayLike) -> Array:
    """The inverse of a rigid transform [4, 4]."""
    T = np.asarray(T, dtype=np.float64)
    return rigid(T[:3, :3].T, -T[:3, :3].T @ T[:3, 3])


def look_at(eye: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0), roll: float = 0.0) -> Array:
    """T_camera_from_world [4, 4] of a camera at `eye` that looks at `target`, both [3] in metres.

    Args:
        up: world direction that appears upward in the picture.
        roll: turn about the viewing axis, in radians.

    Raises:
        ValueError: `eye` equals `target`, or `up` is parallel to the viewing direction.
    """
    eye = np.asarray(eye, dtype=np.float64)
    forward = np.asarray(target, dtype=np.float64) - eye
    length = np.linalg.norm(forward)
    if not length > 0:
        raise ValueError("look_at: eye and target are the same point")
    forward /= length
    right = np.cross(forward, np.asarray(up, dtype=np.float64))
    if not np.linalg.norm(right) > 1e-9:
        raise ValueError("look_at: up is parallel to the viewing direction")
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    R = rodrigues(np.array([0.0, 0.0, roll])) @ R
    return rigid(R, -R @ eye)


def rodrigues(axis_angle: ArrayLike) -> Array:
    """Rotation matrices [..., 3, 3] of axis-angle vectors [..., 3] in radians (Rodrigues' formula)."""
    vector = np.asarray(axis_angle, dtype=np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    skew = np.zeros((*vector.shape[:-1], 3, 3))
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    skew[..., 0, 1], skew[..., 0, 2], skew[..., 1, 2] = -z, y, -x
    skew[..., 1, 0], skew[..., 2, 0], skew[..., 2, 1] = z, -y, x
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    # Taylor series where the quotients lose their digits.
    a = np.where(small, 1 - angle**2 / 6, np.sin(safe) / safe)
    b = np.where(small, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    return np.eye(3) + a * skew + b * (skew @ skew)


def axis_angle(R: ArrayLike) -> Array:
    """Axis-angle vectors [..., 3] of rotation matrices [..., 3, 3]; angles lie in [0, pi]."""
    from scipy.spatial.transform import Rotation

    R = np.asarray(R, dtype=np.float64)
    return Rotation.from_matrix(R.reshape(-1, 3, 3)).as_rotvec().reshape(*R.shape[:-2], 3)
