"""HO-3D proves its own reading: every frame holds its answer twice, as a pose and as points of that pose.

`handJoints3D` are the kinematic joints of the posed hand, `objCorners3D` the corners of the posed object's box, and
the shipped `seg` pictures were rendered from the same poses. Where they disagree with what is drawn here, the likely
cause is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError
from hodata.pose.camera import flip_opengl
from hodata.pose.mano import TIPS_HO3D, ManoModel, Posed
from hodata.pose.mesh import Mesh
from hodata.sources.ho3d_meta import Meta
from hodata.sources.images import read_mask

Array = NDArray[np.float64]

LIMIT_MM = 1.0  # median over the probe (DESIGN section 5)
# A single frame may be worse than the median, but not by so much that it cannot be the same pose or thing.
FRAME_LIMIT_JOINTS_MM, FRAME_LIMIT_CORNERS_MM = 5.0, 20.0
SEG_LEVEL = 128  # of a channel in the shipped segmentation, which is a lossy JPEG in v2


def ho3d_joints(posed: Posed) -> Array:
    """HO-3D's 21 points [21, 3] of one posed hand: MANO's joints, then the tips of thumb to little finger."""
    return np.concatenate([posed.joints[0], posed.vertices[0, list(TIPS_HO3D)]])


def joints_residual_mm(joints: Array, annotated: Array) -> float:
    """Mean distance of points [N, 3] in millimetres."""
    return 1000 * float(np.linalg.norm(joints - annotated, axis=1).mean())


def hand_residual_mm(meta: Meta, joints: Array, vertices: Array, from_tables: bool) -> float:
    """Posed against annotated points in millimetres; -1 where nothing annotated says where the fingers are.

    Args:
        meta: of the frame.
        joints: [21, 3] of the hand, HO-3D's order.
        vertices: [778, 3].
        from_tables: joints and vertices are those of the evaluation tables. The meta files of such frames have no
            joints but the wrist: that is compared, and the tips with the mesh. Otherwise both are from one pose, which
            agrees with itself: a wrist that is far off still says that it is wrong, but one in place says nothing.
    """
    if meta.joints is not None:
        return joints_residual_mm(joints, meta.joints)
    if not from_tables:
        wrist = -1.0 if meta.root is None else joints_residual_mm(joints[:1], meta.root[None])
        return wrist if wrist > FRAME_LIMIT_JOINTS_MM else -1.0
    tips = joints_residual_mm(vertices[list(TIPS_HO3D)], joints[16:])
    return tips if meta.root is None else max(tips, joints_residual_mm(joints[:1], meta.root[None]))


def corners_residual_mm(meta: Meta, mesh: Mesh) -> float:
    """The larger of two disagreements in millimetres; -1 where the frame has no corners.

    The annotated corners in the camera frame against those at rest carried by the pose, and the box at rest against
    the mesh's own.
    """
    if meta.corners is None or meta.corners_rest is None:
        return -1.0
    carried = meta.corners_rest @ meta.R.T + meta.t
    pose = float(np.linalg.norm(carried - meta.corners, axis=1).mean())
    box = np.stack([meta.corners_rest.min(axis=0), meta.corners_rest.max(axis=0)])
    return 1000 * max(pose, float(np.abs(box - mesh.bounds).max()))


def explain_hand(model: ManoModel, meta: Meta) -> str:
    """Why posed joints may be far from the annotated ones: the one misreading that would explain it."""
    if meta.pose is None or meta.translation is None:
        return "are the evaluation tables those of this evaluation.txt?"
    unknown = "is MANO_RIGHT.pkl the original file (--mano), and the meta file unchanged?"
    if meta.joints is None:
        return unknown
    mean = np.concatenate([np.zeros(3), model.hands_mean])
    ours = ho3d_joints(model.pose(meta.pose, meta.betas, meta.translation))
    readings = {
        "the poses are relative to MANO's mean pose (FreiHAND's convention), not full ones": ho3d_joints(
            model.pose(meta.pose + mean, meta.betas, meta.translation)
        ),
        "the mean pose was added to the poses once too often": ho3d_joints(
            model.pose(meta.pose - mean, meta.betas, meta.translation)
        ),
        "the joints are in OpenCV axes, HO-3D ships OpenGL axes": flip_opengl(ours),
        "the joints are in millimetres": 1000 * ours,
        "the translation is missing from the joints": ours - meta.translation,
        "the shape numbers belong to another hand model": ho3d_joints(
            model.pose(meta.pose, np.zeros(10), meta.translation)
        ),
    }
    for why, joints in readings.items():
        if joints_residual_mm(joints, meta.joints) < LIMIT_MM * (1000 if "millimetres" in why else 1):
            return why
    return unknown


def explain_corners(meta: Meta, mesh: Mesh) -> str:
    """Why the object's box may be far from the annotated one."""
    assert meta.corners is not None and meta.corners_rest is not None
    box = np.stack([meta.corners_rest.min(axis=0), meta.corners_rest.max(axis=0)])
    near = LIMIT_MM * 3e-3
    if np.abs(mesh.bounds - box).max() <= near:  # the mesh is the annotated one, so it is the pose
        if np.linalg.norm(flip_opengl(meta.corners_rest @ meta.R.T + meta.t) - meta.corners, axis=1).max() < near:
            return "the corners are in OpenCV axes, HO-3D ships OpenGL axes"
        return "is the meta file unchanged?"
    size, annotated = mesh.bounds[1] - mesh.bounds[0], box[1] - box[0]
    if np.abs(size - annotated).max() <= near:
        return "the mesh was moved, perhaps centred: use YCB-Video's textured_simple.obj as it is"
    if np.abs(np.sort(size) - np.sort(annotated)).max() <= near:
        return "the mesh's axes are swapped: use YCB-Video's textured_simple.obj as it is"
    if np.abs(size / 1000 - annotated).max() <= near or np.abs(size * 1000 - annotated).max() <= 1000 * near:
        return "the mesh is in other units than metres"
    listed = " x ".join(f"{1000 * s:.0f}" for s in size), " x ".join(f"{1000 * s:.0f}" for s in annotated)
    return f"the mesh is another object: it measures {listed[0]} mm, the annotated one {listed[1]} mm"


@dataclass(frozen=True)
class SegColors:
    """Which channel (0 red, 1 green, 2 blue) of the shipped segmentation is the hand, and which the object."""

    hand: int
    thing: int

    def __str__(self) -> str:
        names = ("red", "green", "blue")
        return f"{names[self.hand]} hand, {names[self.thing]} object"


# As the two versions were seen to be; which one a folder has is measured, never taken from its version.
SEG_COLORS = (SegColors(hand=0, thing=2), SegColors(hand=2, thing=1))


def read_seg(path: Path, where: str) -> NDArray[np.uint8]:
    seg = read_mask(path, where)
    if seg.ndim != 3:
        raise SampleError(where, "is no colour picture, the shipped segmentations are; delete it or copy it again")
    return seg


def seg_iou(seg: NDArray[np.uint8], part: NDArray[np.int16], colors: SegColors) -> float:
    """Mean IoU of hand and object between a shipped segmentation and a rendering.

    Args:
        seg: uint8 [h, w, 3], RGB, at a fraction of the picture's size.
        part: int16 [H, W], 0 hand, 1 object, -1 nothing.
        colors: what the channels mean.

    Returns:
        0..1 over those of the two that either picture shows; 1 where neither shows any.
    """
    found = []
    for number, channel in ((0, colors.hand), (1, colors.thing)):
        shipped = (seg[..., channel] >= SEG_LEVEL) & (seg.argmax(axis=2) == channel)
        drawn = _shrink(part == number, shipped.shape)
        union = int((shipped | drawn).sum())
        if union:
            found.append(int((shipped & drawn).sum()) / union)
    return float(np.mean(found)) if found else 1.0


def _shrink(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask bool [H, W] at another size, by the pixel under each new centre."""
    rows = (2 * np.arange(shape[0]) + 1) * mask.shape[0] // (2 * shape[0])
    columns = (2 * np.arange(shape[1]) + 1) * mask.shape[1] // (2 * shape[1])
    return mask[rows[:, None], columns]
