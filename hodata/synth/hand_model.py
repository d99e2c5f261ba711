"""The stand-in hand: a skinned mesh with MANO's kinematic tree, counts and joint order, and none of its data.

Linear blend skinning as in MANO (Romero et al. 2017), without pose blend shapes: shape, then a chain of 16
rotations, then weights. A left hand is the mirror image of the right one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.pose.camera import rodrigues
from hodata.pose.mano import OPENPOSE, TIPS_FREIHAND, boundary_loop
from hodata.synth import hand_shape

Array = NDArray[np.float64]

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
# Finger tips as FreiHAND reads them: thumb, index, middle, ring, pinky.
TIPS = TIPS_FREIHAND
# Other code takes a neighbour of the tip: HO-3D index 333 and middle 444, smplx ring 554 and pinky 671.
_NEIGHBOURS = {320: 333, 443: 444, 555: 554, 672: 671}
BETAS = 10
SIZE_PER_BETA = 0.045  # how much larger a hand is for a unit of the first shape number


@dataclass(frozen=True)
class HandModel:
    """One side of the stand-in hand; metres, radians.

    Args:
        side: `left` or `right`.
        vertices: float64 [778, 3], at rest, fingers stretched.
        faces: int32 [1538, 3], counter-clockwise seen from outside; open at the wrist.
        loop: int32 [16], the open loop in order.
        joints: float64 [16, 3], at rest.
        weights: float64 [778, 16], rows sum to 1.
        shape_dirs: float64 [778, 3, 10], displacement of vertices per unit of each shape number.
        joint_dirs: float64 [16, 3, 10], the same for joints.
        hands_mean: float64 [45], the relaxed pose that FreiHAND's pose numbers are relative to.
    """

    side: str
    vertices: Array
    faces: NDArray[np.int32]
    loop: NDArray[np.int32]
    joints: Array
    weights: Array
    shape_dirs: Array
    joint_dirs: Array
    hands_mean: Array

    def pose(
        self, pose: ArrayLike, betas: ArrayLike | None = None, translation: ArrayLike = (0.0, 0.0, 0.0)
    ) -> tuple[Array, Array]:
        """Skin the mesh.

        Args:
            pose: [48] axis-angle of the 16 joints, the first one turns the hand about its wrist joint; no mean added.
            betas: [10] shape numbers, about standard normal; the average hand by default.
            translation: [3] added at the end.

        Returns:
            vertices [778, 3] and joints [16, 3].
        """
        betas = np.zeros(BETAS) if betas is None else np.asarray(betas, dtype=np.float64)
        shaped = self.vertices + self.shape_dirs @ betas
        joints = self.joints + self.joint_dirs @ betas
        R, t = chain(rodrigues(np.asarray(pose, dtype=np.float64).reshape(16, 3)), joints)
        offsets = t - np.einsum("jab,jb->ja", R, joints)
        blended = np.einsum("vj,jab->vab", self.weights, R)
        vertices = np.einsum("vab,vb->va", blended, shaped) + self.weights @ offsets
        moved = np.asarray(translation, dtype=np.float64)
        return vertices + moved, t + moved

    def keypoints(self, vertices: Array, joints: Array) -> Array:
        """21 points [21, 3] in OpenPose order of posed vertices and joints."""
        return np.concatenate([joints, vertices[list(TIPS)]])[list(OPENPOSE)]


def chain(rotations: Array, joints: Array) -> tuple[Array, Array]:
    """Forward kinematics: world rotations [16, 3, 3] and joint positions [16, 3] of local rotations."""
    R, t = np.empty_like(rotations), np.empty_like(joints)
    R[0], t[0] = rotations[0], joints[0]
    for j in range(1, 16):
        parent = PARENTS[j]
        R[j] = R[parent] @ rotations[j]
        t[j] = t[parent] + R[parent] @ (joints[j] - joints[parent])
    return R, t


@lru_cache(maxsize=2)
def hand_model(side: str) -> HandModel:
    """The model of one side, built once per process (about half a second)."""
    if side == "left":
        return _mirror(hand_model("right"))
    if side != "right":
        raise ValueError(f"side must be left or right, not {side!r}")
    vertices, faces = hand_shape.template()
    joints, tips = hand_shape.rest_joints()
    vertices, faces = _order(vertices, faces, tips[[4, 0, 1, 3, 2]])
    weights = _skinning_weights(vertices, joints, tips)
    shape_dirs, joint_dirs = _shape_dirs(vertices, joints, tips, weights)
    mean = np.zeros((16, 3))
    curl = {1: 0.25, 2: 0.35, 3: 0.2}
    for finger in range(4):
        for bone, angle in curl.items():
            mean[3 * finger + bone] = (0.0, 0.0, -angle)  # bends toward the palm
    mean[13] = (-0.35, 0.1, 0.0)
    mean[15] = (0.1, -0.25, 0.0)
    return HandModel(
        "right", vertices, faces, boundary_loop(faces), joints, weights, shape_dirs, joint_dirs,
        mean[1:].ravel(),
    )  # fmt: skip


def mirror_pose(pose: ArrayLike) -> Array:
    """Axis-angles [..., 3k] of the mirrored hand (mirrored in z, the width of the palm)."""
    pose = np.asarray(pose, dtype=np.float64)
    return (pose.reshape(*pose.shape[:-1], -1, 3) * np.array([-1.0, -1.0, 1.0])).reshape(pose.shape)


def _mirror(right: HandModel) -> HandModel:
    flip = np.array([1.0, 1.0, -1.0])
    faces = np.ascontiguousarray(right.faces[:, ::-1])
    return HandModel(
        "left", right.vertices * flip, faces, right.loop[::-1].copy(), right.joints * flip, right.weights,
        right.shape_dirs * flip[:, None], right.joint_dirs * flip[:, None], mirror_pose(right.hands_mean),
    )  # fmt: skip


def _order(vertices: Array, faces: NDArray[np.int32], tips: Array) -> tuple[Array, NDArray[np.int32]]:
    """Renumber the vertices so that the finger tips carry the numbers that readers of MANO meshes expect."""
    wanted: dict[int, int] = {}  # new number -> old number
    for place, tip in zip(TIPS, tips, strict=True):
        distance = np.linalg.norm(vertices - tip, axis=1)
        distance[list(wanted.values())] = np.inf
        nearest = np.argsort(distance, kind="stable")
        wanted[place] = int(nearest[0])
        if place in _NEIGHBOURS:
            wanted[_NEIGHBOURS[place]] = int(nearest[1])
    others = iter(v for v in range(len(vertices)) if v not in set(wanted.values()))
    old = np.array([wanted[new] if new in wanted else next(others) for new in range(len(vertices))])
    new = np.empty_like(old)
    new[old] = np.arange(len(old))
    return vertices[old], new[faces].astype(np.int32)


def _fingers(joints: Array, tips: Array) -> list[tuple[int, Array]]:
    """First joint number and the chain [4, 3] of each finger."""
    return [(1 + 3 * k, np.array([*joints[1 + 3 * k : 4 + 3 * k], tips[k]])) for k in range(5)]


def _skinning_weights(vertices: Array, joints: Array, tips: Array) -> Array:
    """[778, 16]: each vertex belongs to the finger next to it, and along the finger to the bones beside it."""
    weights = np.zeros((len(vertices), 16))
    closeness, along = [], []
    for _, points in _fingers(joints, tips):
        nearest, arc = _nearest_on_chain(vertices, points)
        closeness.append(np.exp(-((np.linalg.norm(vertices - nearest, axis=1) / 0.0075) ** 2)))
        along.append(arc)
    total = np.sum(closeness, axis=0) + 1e-12
    for k, (first, points) in enumerate(_fingers(joints, tips)):
        starts = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        # The base joint moves flesh from well behind it: the knuckle, and for the thumb its whole root.
        behind, ahead = (0.011, 0.010) if k < 4 else (0.006, 0.022)
        reach = _smooth((along[k] + behind) / (behind + ahead)) * closeness[k] / total
        share = _smooth((along[k] - starts[1] + 0.006) / 0.012)
        share_tip = _smooth((along[k] - starts[2] + 0.005) / 0.010)
        weights[:, first] = reach * (1 - share)
        weights[:, first + 1] = reach * share * (1 - share_tip)
        weights[:, first + 2] = reach * share * share_tip
    weights[:, 0] = np.clip(1 - weights.sum(axis=1), 0, 1)
    return weights / weights.sum(axis=1, keepdims=True)


def _nearest_on_chain(points: Array, chain_points: Array) -> tuple[Array, Array]:
    """The nearest point on a polyline, and its arc length: negative behind the start, along the first bone."""
    best, arc = np.full(len(points), np.inf), np.zeros(len(points))
    nearest = np.zeros_like(points)
    start = 0.0
    for k in range(3):
        a, b = chain_points[k], chain_points[k + 1]
        length = float(np.linalg.norm(b - a))
        t = ((points - a) @ (b - a)) / length**2
        t = np.clip(t, -0.6 if k == 0 else 0.0, 1.3 if k == 2 else 1.0)
        spot = a + t[:, None] * (b - a)
        distance = np.linalg.norm(points - spot, axis=1)
        closer = distance < best
        best[closer], arc[closer], nearest[closer] = distance[closer], start + t[closer] * length, spot[closer]
        start += length
    return nearest, arc


def _smooth(t: Array) -> Array:
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _shape_dirs(vertices: Array, joints: Array, tips: Array, weights: Array) -> tuple[Array, Array]:
    """Ten ways in which hands differ, as displacements of vertices [778, 3, 10] and joints [16, 3, 10]."""
    V, J = np.zeros((*vertices.shape, BETAS)), np.zeros((*joints.shape, BETAS))
    V[..., 0], J[..., 0] = SIZE_PER_BETA * vertices, SIZE_PER_BETA * joints
    base = np.zeros_like(joints)  # the first joint of each joint's finger
    for k, (first, points) in enumerate(_fingers(joints, tips)):
        own = weights[:, first : first + 3].sum(axis=1)[:, None]
        base[first : first + 3] = joints[first]
        axis = (points[3] - points[0]) / np.linalg.norm(points[3] - points[0])
        stretch = 0.05 * own * np.clip((vertices - points[0]) @ axis, 0, None)[:, None] * axis
        stretch_joints = 0.05 * np.clip((points[:3] - points[0]) @ axis, 0, None)[:, None] * axis
        number = {0: 6, 2: 7, 4: 4}.get(k)  # index, little finger and thumb also vary alone
        for column in (1, *([number] if number else [])):  # finger length
            V[..., column] += stretch
            J[first : first + 3, :, column] += stretch_joints
        nearest, arc = _nearest_on_chain(vertices, points)
        V[..., 2] += 0.06 * own * (vertices - nearest)  # finger thickness
        V[..., 9] += 0.06 * own * (vertices - nearest) * _smooth(arc / 0.09)[:, None]  # of the tips
    palm = weights[:, :1] * vertices + weights[:, 1:] @ base[1:]
    for column, axis in ((3, 2), (5, 0), (8, 1)):  # width, length, thickness of the palm
        V[:, axis, column] = 0.05 * palm[:, axis]
        J[:, axis, column] = 0.05 * base[:, axis]
    return V, J
