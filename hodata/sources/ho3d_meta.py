"""One frame's annotation in HO-3D: `meta/%04d.pkl`, read without running it and checked number by number.

The types of the fields are documented nowhere, so float32 and float64, arrays and lists, str and bytes are all taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError, Unannotated
from hodata.pose.camera import rodrigues
from hodata.pose.safe_pickle import MAX_META_BYTES, load_pickle

Array = NDArray[np.float64]

CONVENTION = (
    "HO-3D: OpenGL camera frame (x right, y up, -z forward), metres; handPose = 48 axis-angle numbers (3 global about "
    "the root joint, then 45 full ones: flat_hand_mean=True, no PCA); x_camera = Rodrigues(objRot) x_mesh + objTrans"
)
# How far the principal point may lie from the middle of the picture, in sides of the picture. HO-3D's are off by
# under 8 of 640 pixels, a miniature's rarely by more than 20; one whose picture was resized by 10 % is off by 30.
_OFF_MIDDLE = 1 / 24
_VERBATIM = ("handPose", "handBeta", "handTrans", "objRot", "objTrans", "objName", "objLabel", "camIDList")


@dataclass(frozen=True)
class Meta:
    """The annotation as shipped: OpenGL camera frame, metres, radians. What a frame lacks is None.

    Args:
        K: [3, 3].
        object_name: a YCB folder's name.
        R, t: [3, 3] and [3] of the object.
        corners, corners_rest: [8, 3] of the object's box in the camera frame and in its own.
        pose, betas, translation: [48], [10], [3] of the right hand.
        joints: [21, 3], HO-3D's order (MANO's 16, then the tips).
        root: [3], the wrist joint.
        hand_box: [4] x0, y0, x1, y1 in pixels.
        contact: whether a vertex of the hand touches the object, as shipped.
        numbers: the pose's own fields, for the JSON member.
    """

    K: Array
    object_name: str
    R: Array
    t: Array
    corners: Array | None
    corners_rest: Array | None
    pose: Array | None
    betas: Array | None
    translation: Array | None
    joints: Array | None
    root: Array | None
    hand_box: Array | None
    contact: bool | None
    numbers: dict[str, Any]


def read_meta(path: Path, where: str) -> Meta:
    """Read one meta file.

    Raises:
        Unannotated: its pose is None, as the authors left some frames.
        SampleError: missing, damaged, hostile, or a field of another shape.
    """
    try:
        if path.stat().st_size > MAX_META_BYTES:
            raise SampleError(where, f"is {path.stat().st_size:,} bytes long; a meta file has some thousand")
        data = load_pickle(path.read_bytes(), where)
    except OSError as error:
        raise SampleError(where, f"cannot be read ({error.strerror or error})") from error
    if not isinstance(data, dict):
        raise SampleError(where, f"holds a {type(data).__name__}, a meta file is a dictionary")
    fields = _Fields(data, where)
    if data.get("objRot") is None or data.get("objTrans") is None or data.get("camMat") is None:
        missing = [name for name in ("objRot", "objTrans", "camMat") if data.get(name) is None]
        if missing[0] not in data:
            raise SampleError(where, f"lacks {missing[0]}; is it a meta file of HO-3D?")
        raise Unannotated(where, f"the dataset leaves this frame without annotation ({missing[0]} is None)")
    pose, joints = fields.get("handPose", 48), None
    keypoints = fields.numbers("handJoints3D")
    if keypoints is not None and keypoints.size == 63:
        joints = keypoints.reshape(21, 3)
    elif keypoints is not None and keypoints.size != 3:
        raise SampleError(where, f"handJoints3D has shape {keypoints.shape}, expected (21, 3) or (3,)")
    if "handPose" in data and pose is None:
        raise Unannotated(where, "the dataset leaves this frame without a hand pose (handPose is None)")
    if pose is not None and (fields.get("handBeta", 10) is None or fields.get("handTrans", 3) is None):
        raise SampleError(where, "has a hand pose without handBeta or handTrans")
    contact = data.get("handVertContact")
    return Meta(
        K=fields.need("camMat", 9).reshape(3, 3),
        object_name=fields.text("objName"),
        R=rodrigues(fields.need("objRot", 3)),
        t=fields.need("objTrans", 3),
        corners=_rows(fields.get("objCorners3D", 24)),
        corners_rest=_rows(fields.get("objCorners3DRest", 24)),
        pose=pose,
        betas=fields.get("handBeta", 10),
        translation=fields.get("handTrans", 3),
        joints=joints,
        root=joints[0] if joints is not None else (None if keypoints is None else keypoints.reshape(3)),
        hand_box=fields.get("handBoundingBox", 4),
        contact=None if contact is None else bool(np.asarray(contact).any()),
        numbers={name: _plain(data[name]) for name in _VERBATIM if data.get(name) is not None},
    )


def require_size_of_camera(meta: Meta, size: tuple[int, int], where: str) -> None:
    """Raise SampleError where the picture was resized, and its camera was not: masks would be drawn beside it.

    Args:
        meta: its `K` has the principal point, which lies near the middle of the picture.
        size: (width, height) of the picture.
        where: how errors call the meta file.
    """
    centre = meta.K[0, 2], meta.K[1, 2]
    if any(abs(at - side / 2) > side * _OFF_MIDDLE for at, side in zip(centre, size, strict=True)):
        raise SampleError(
            where,
            f"camMat is of a picture of about {2 * centre[0]:.0f}x{2 * centre[1]:.0f}, this one is "
            f"{size[0]}x{size[1]}: it was resized; use the pictures as the authors ship them",
        )


class _Fields:
    """Numbers out of a dictionary, in float64 and checked."""

    def __init__(self, data: dict[Any, Any], where: str) -> None:
        self._data, self._where = data, where

    def numbers(self, name: str) -> Array | None:
        value = self._data.get(name)
        if value is None:
            return None
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise SampleError(self._where, f"{name} is no array of numbers ({error})") from error
        if not np.isfinite(array).all():
            raise SampleError(self._where, f"{name} holds nan or infinity")
        return array

    def get(self, name: str, size: int) -> Array | None:
        array = self.numbers(name)
        if array is not None and array.size != size:
            raise SampleError(self._where, f"{name} has shape {array.shape}, expected {size} numbers")
        return None if array is None else array.ravel()

    def need(self, name: str, size: int) -> Array:
        array = self.get(name, size)
        if array is None:
            raise SampleError(self._where, f"lacks {name}")
        return array

    def text(self, name: str) -> str:
        value = self._data.get(name)
        value = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
        if isinstance(value, bytes):
            value = value.decode("latin1")
        if not isinstance(value, str) or not value:
            raise SampleError(self._where, f"{name} is {str(value)[:60]!r}, expected a name")
        return value


def _rows(values: Array | None) -> Array | None:
    return None if values is None else values.reshape(-1, 3)


def _plain(value: Any) -> Any:
    """Arrays as flat or nested lists, bytes as text: what JSON can hold. float32 keeps its own few digits."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype == np.float32:
        value = np.vectorize(lambda number: float(str(number)), otypes=[np.float64])(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float) else str(value)
