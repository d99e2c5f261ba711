"""HO-3D's annotation of a frame: a dict in the OpenGL camera frame, pickled by Python 2 or by Python 3.

No real file's number types are known for certain, so the miniatures vary what the authors' own reader
(vis_HO3D.py of ho3d) takes: float32 and float64, numbers and 0-d arrays, Python 2's pickles and three protocols of
Python 3.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.pose.camera import OPENCV_FROM_OPENGL as FLIP
from hodata.pose.camera import axis_angle, flip_opengl, project, rodrigues
from hodata.synth.mano_frame import full_pose, wrist_joint
from hodata.synth.python2_pickle import dumps
from hodata.synth.scene import HandTruth, ObjectTruth
from hodata.synth.ycb_shapes import LABELS, stand_in

Array = NDArray[np.float64]

TIPS = (744, 333, 444, 555, 672)  # thumb, index, middle, ring, little finger, as HO-3D reads them
CONTACT = 0.004  # metres: nearer vertices are in contact
STYLES = 4
ANNOTATED = ("handPose", "handBeta", "handTrans", "handJoints3D", "objRot", "objTrans", "objCorners3D")


def joints_of(hand: HandTruth) -> Array:
    """handJoints3D [21, 3]: 16 joints of the chain in MANO's order, then the tips."""
    return flip_opengl(np.concatenate([hand.joints, hand.vertices[list(TIPS)]]))


def annotation(hand: HandTruth, item: ObjectTruth, K: Array, cameras: list[str]) -> dict[str, Any]:
    """Every field of a training frame but the contacts; float64."""
    stand = stand_in(item.name)
    pose = hand.pose.copy()
    pose[:3] = axis_angle(FLIP @ rodrigues(pose[:3]))
    R, t = FLIP @ item.R, FLIP @ item.t
    rest = stand.corners()
    return {
        "handPose": full_pose("right", pose),
        "handBeta": hand.betas.copy(),
        "handTrans": FLIP @ hand.translation - wrist_joint("right", hand.betas),  # the hand turns about that joint
        "handJoints3D": joints_of(hand),
        "camMat": K.copy(),
        "objRot": axis_angle(R)[:, None],
        "objTrans": t,
        "objName": item.name,
        "objLabel": LABELS[item.name],
        "objCorners3D": rest @ R.T + t,
        "objCorners3DRest": rest,
        "camIDList": cameras,
    }


def contacts(hand: HandTruth, item: ObjectTruth) -> dict[str, Any]:
    """The fields of version 3: distance (metres) of every vertex to the object, and the nearest point on it."""
    spots, distance = stand_in(item.name).skin.nearest((hand.vertices - item.t) @ item.R)
    return {
        "handVertContact": (distance < CONTACT),
        "handVertDist": np.abs(distance),
        "handVertIntersec": distance < 0,
        "handVertObjSurfProj": flip_opengl(spots @ item.R.T + item.t),
    }


def withheld(meta: dict[str, Any], hand: HandTruth) -> dict[str, Any]:
    """An evaluation frame's annotation: of the hand only root joint and box."""
    pixels = project(hand.vertices, meta["camMat"])
    low, high = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0))
    box = [int(v) for v in (*low, *high)]
    out = {k: v for k, v in meta.items() if k not in ("handPose", "handBeta", "handTrans", "camIDList")}
    return out | {"handJoints3D": meta["handJoints3D"][0], "handBoundingBox": box}


def emptied(meta: dict[str, Any]) -> dict[str, Any]:
    """The annotation of a frame that could not be annotated."""
    return {key: None if key in ANNOTATED or key.startswith("handVert") else value for key, value in meta.items()}


def pickled(meta: dict[str, Any], style: int) -> bytes:
    """The file's bytes in one of `STYLES` ways."""
    if style == 0:  # Python 2
        return dumps(meta)
    if style == 1:
        floats = {k: v for k, v in meta.items() if isinstance(v, np.ndarray) and v.dtype == np.float64}
        return pickle.dumps(meta | {k: v.astype(np.float32) for k, v in floats.items()}, protocol=2)
    if style == 2:
        return pickle.dumps(meta | {"objLabel": np.array(meta["objLabel"])}, protocol=4)
    return pickle.dumps(meta, protocol=3)
