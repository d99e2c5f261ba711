"""MANO: the hand model from its authors' file, and linear blend skinning in NumPy.

Shapes: B hands, V = 778 vertices, J = 16 joints. Axis-angle in radians, lengths in metres.

Facts: Romero, Tzionas, Black: Embodied Hands, SIGGRAPH Asia 2017; the keys of MANO_*.pkl; the equations as in the
public `smplx` package, which the tests compare with.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.errors import SampleError, SourceError
from hodata.pose.camera import rodrigues
from hodata.pose.safe_pickle import MAX_MODEL_BYTES, load_pickle

Array = NDArray[np.float64]

VERTICES, FACES, JOINTS, BETAS = 778, 1538, 16, 10
SIDES = ("right", "left")
# Vertices that different code takes for the finger tips: thumb, index, middle, ring, little.
TIPS_HO3D = (744, 333, 444, 555, 672)  # ho3d setup_mano.py
TIPS_FREIHAND = (744, 320, 443, 555, 672)  # freihand utils/model.py
# 21 key points in OpenPose order out of 16 joints and 5 tips (16 + k is tip k).
OPENPOSE = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
_SHAPES = {
    "v_template": (VERTICES, 3),
    "shapedirs": (VERTICES, 3, BETAS),
    "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
    "J_regressor": (JOINTS, VERTICES),
    "weights": (VERTICES, JOINTS),
    "kintree_table": (2, JOINTS),
    "f": (FACES, 3),
    "hands_mean": (3 * (JOINTS - 1),),
}


@dataclass(frozen=True)
class Posed:
    """Skinned hands: `vertices` float64 [B, 778, 3] and kinematic `joints` float64 [B, 16, 3], metres.

    Kinematic joints are those of the chain, which HO-3D's `handJoints3D` are; FreiHAND's `xyz` are regressed from the
    posed vertices instead and lie elsewhere.
    """

    vertices: Array
    joints: Array


@dataclass(frozen=True)
class ManoModel:
    """One side of MANO.

    Args:
        side: `right` or `left`.
        v_template: [778, 3], at rest.
        shapedirs: [778, 3, 10], displacement for a unit of each shape number.
        posedirs: [778, 3, 135], displacement for the entries of R_1..R_15 - I, row by row.
        J_regressor: [16, 778].
        weights: [778, 16], rows sum to 1.
        parents: [16], -1 for the root.
        faces: int32 [1538, 3], counter-clockwise seen from outside; open at the wrist.
        loop: int32 [16], the open boundary at the wrist, in order.
        hands_mean: [45], what poses of other conventions are relative to.
    """

    side: str
    v_template: Array
    shapedirs: Array
    posedirs: Array
    J_regressor: Array
    weights: Array
    parents: tuple[int, ...]
    faces: NDArray[np.int32]
    loop: NDArray[np.int32]
    hands_mean: Array

    def pose(
        self,
        pose: ArrayLike,
        betas: ArrayLike | None = None,
        translation: ArrayLike | None = None,
        *,
        flat_hand_mean: bool = True,
    ) -> Posed:
        """Skin hands.

        Args:
            pose: [48] or [B, 48] axis-angle of the 16 joints; the first one turns the hand about its root joint.
            betas: [10] or [B, 10] shape numbers; zeros by default.
            translation: [3] or [B, 3], added at the end; zeros by default.
            flat_hand_mean: the 45 numbers are the full finger pose (HO-3D). False: `hands_mean` is added first
                (FreiHAND). The wrong choice shows as curled or flat fingers.

        Raises:
            ValueError: numbers of another shape, or not finite.
        """
        theta = _rows(pose, 3 * JOINTS, "pose")
        beta = _rows(np.zeros(BETAS) if betas is None else betas, BETAS, "betas")
        moved = _rows(np.zeros(3) if translation is None else translation, 3, "translation")
        count = max(len(theta), len(beta), len(moved))
        if not flat_hand_mean:
            theta = theta + np.concatenate([np.zeros(3), self.hands_mean])
        R = rodrigues(theta.reshape(-1, JOINTS, 3))
        shaped = self.v_template + (beta @ self.shapedirs.reshape(-1, BETAS).T).reshape(-1, VERTICES, 3)
        joints = self.J_regressor @ shaped
        features = (R[:, 1:] - np.eye(3)).reshape(-1, 9 * (JOINTS - 1))
        bent = shaped + (features @ self.posedirs.reshape(-1, features.shape[1]).T).reshape(-1, VERTICES, 3)
        turned, placed = self._chain(np.broadcast_to(R, (count, *R.shape[1:])), joints)
        # A_j = G_j without the joint's rest position: what carries a rest vertex to its place.
        offsets = placed - np.einsum("bjxy,bjy->bjx", turned, np.broadcast_to(joints, placed.shape))
        A = np.concatenate([turned.reshape(count, JOINTS, 9), offsets], axis=2)
        blended = self.weights @ A  # [B, 778, 12]
        vertices = np.einsum(
            "bvxy,bvy->bvx",
            blended[..., :9].reshape(count, VERTICES, 3, 3),
            np.broadcast_to(bent, (count, VERTICES, 3)),
        )
        return Posed(vertices + blended[..., 9:] + moved[:, None], placed + moved[:, None])

    def keypoints(self, posed: Posed, tips: tuple[int, ...] = TIPS_HO3D) -> Array:
        """21 key points [B, 21, 3] in OpenPose order: the kinematic joints and five vertices for the tips."""
        return np.concatenate([posed.joints, posed.vertices[:, list(tips)]], axis=1)[:, list(OPENPOSE)]

    def _chain(self, R: Array, joints: Array) -> tuple[Array, Array]:
        """World rotations [B, 16, 3, 3] and joint positions [B, 16, 3] of local rotations (forward kinematics)."""
        joints = np.broadcast_to(joints, (len(R), JOINTS, 3))
        turned, placed = np.empty_like(R), np.empty_like(joints)
        turned[:, 0], placed[:, 0] = R[:, 0], joints[:, 0]
        for j, parent in enumerate(self.parents[1:], start=1):
            turned[:, j] = turned[:, parent] @ R[:, j]
            bone = joints[:, j] - joints[:, parent]
            placed[:, j] = placed[:, parent] + (turned[:, parent] @ bone[..., None])[..., 0]
        return turned, placed


def load_mano(path: Path | str, side: str = "right", *, mend_left: bool = True) -> ManoModel:
    """Read MANO_RIGHT.pkl or MANO_LEFT.pkl as its authors ship it, without chumpy; an unchanged file is read once.

    Args:
        path: the file.
        side: which hand it must be.
        mend_left: turn the sign of x in the left model's shape directions, which the shipped file has wrong
            (github.com/vchoutas/smplx issue 48). A file in which that was mended already is left as it is, where
            MANO_RIGHT.pkl lies beside it and so tells it: the left hand is the right one mirrored in x, at rest and
            in its shape directions. Pass False for such a file without its right one, and for annotations that were
            fitted with the file as shipped: their shape numbers belong to the fault.

    Returns:
        the model; its arrays are shared by all who load the file, and read-only.

    Raises:
        SourceError: missing, no MANO model, hostile, or of the other hand.
    """
    path = Path(path)
    if side not in SIDES:
        raise ValueError(f"side must be left or right, not {side!r}")
    try:
        facts = path.stat()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    if facts.st_size > MAX_MODEL_BYTES:
        raise SourceError(f"{path}: is {facts.st_size:,} bytes long; MANO_RIGHT.pkl has 3,821,356")
    path = path.absolute()
    if side == "left" and mend_left:
        shipped = _load(path, side, False, facts.st_mtime_ns)
        with suppress(SourceError):  # without a right one the file counts as shipped
            mend_left = not _mirrored(shipped, load_mano(path.with_name("MANO_RIGHT.pkl"), "right"))
    return _load(path, side, mend_left, facts.st_mtime_ns)


@lru_cache(maxsize=8)  # a left hand takes up to three
def _load(path: Path, side: str, mend_left: bool, changed: int) -> ManoModel:
    try:
        data = load_pickle(path.read_bytes(), str(path), model=True)
    except SampleError as error:
        raise SourceError(str(error)) from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    model = _checked(data, path, side)
    found = handedness(model)
    if found != side:
        raise SourceError(f"{path}: is the {found} hand, the {side} one is needed: give MANO_{side.upper()}.pkl")
    if side == "left" and mend_left:
        model.shapedirs[:, 0] *= -1
    for value in vars(model).values():  # whoever wrote into them would change what the next one loads
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return model


def _mirrored(left: ManoModel, right: ManoModel) -> bool:
    """Whether a left hand is a right one mirrored in x, at rest and in its shape directions."""
    pairs = (left.v_template, right.v_template), (left.shapedirs, right.shapedirs)
    return all(np.abs(a[:, 0] + b[:, 0]).sum() < 0.05 * np.abs(b[:, 0]).sum() for a, b in pairs)


def handedness(model: ManoModel) -> str:
    """`right` or `left`, from the geometry alone: fingers bend toward the palm, and the thumb lies on one side."""
    flat, bent = (model.pose(np.zeros(48), flat_hand_mean=flag).vertices[0] for flag in (True, False))
    tips = list(TIPS_HO3D)
    knuckles = model.J_regressor @ model.v_template
    fingers = flat[tips[2]] - knuckles[0]
    palmward = (bent - flat)[tips[1:]].mean(axis=0)
    thumb = flat[tips[0]] - knuckles[0]
    # Looking into one's own right palm, fingers up (y): the thumb points right (x), the palm toward the eye (z).
    return "right" if np.linalg.det(np.stack([fingers, thumb, palmward])) < 0 else "left"


def boundary_loop(faces: NDArray[np.int32]) -> NDArray[np.int32]:
    """The one open boundary of a mesh int [F, 3] as vertex numbers in order.

    Raises:
        ValueError: the mesh is closed, or has more than one boundary.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    known = {(int(a), int(b)) for a, b in edges}
    following = {a: b for a, b in known if (b, a) not in known}
    if not following:
        raise ValueError("the mesh has no boundary")
    loop = [min(following)]
    while (after := following[loop[-1]]) != loop[0]:
        loop.append(after)
        if len(loop) > len(following):
            raise ValueError("the boundary of the mesh is no simple loop")
    if len(loop) != len(following):
        raise ValueError("the mesh has more than one boundary")
    return np.array(loop, dtype=np.int32)


def _checked(data: Any, path: Path, side: str) -> ManoModel:
    if not isinstance(data, dict):
        raise SourceError(f"{path}: holds a {type(data).__name__}, a MANO model is a dictionary")
    values: dict[str, NDArray[Any]] = {}
    for key, shape in _SHAPES.items():
        if key not in data:
            known = ", ".join(sorted(map(str, data))[:12])
            raise SourceError(f"{path}: lacks {key!r}, so it is no MANO model (found {known or 'nothing'})")
        value = np.asarray(data[key])
        if value.dtype == object or value.shape != shape:
            raise SourceError(f"{path}: {key} has shape {value.shape}, a MANO model has {shape}")
        if not np.isfinite(value.astype(np.float64)).all():
            raise SourceError(f"{path}: {key} holds nan or infinity; download the file again")
        values[key] = value
    faces = values["f"].astype(np.int64)
    parents = values["kintree_table"][0].astype(np.int64)
    if faces.min() < 0 or faces.max() >= VERTICES:
        raise SourceError(f"{path}: its faces name vertices up to {faces.max()}, there are {VERTICES}")
    if any(not 0 <= parent < j for j, parent in enumerate(parents.tolist()) if j):
        raise SourceError(f"{path}: its kinematic tree {parents.tolist()} is not one of a hand")
    try:
        loop = boundary_loop(faces.astype(np.int32))
    except (ValueError, KeyError) as error:
        raise SourceError(f"{path}: its mesh is not open at the wrist as MANO's is ({error})") from error
    numbers = {key: np.array(values[key], dtype=np.float64) for key in _SHAPES if key not in ("f", "kintree_table")}
    return ManoModel(
        side=side, parents=(-1, *parents[1:].tolist()), faces=faces.astype(np.int32), loop=loop, **numbers
    )  # fmt: skip


def _rows(values: ArrayLike, width: int, name: str) -> Array:
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{name} has shape {np.shape(values)}, expected [{width}] or [B, {width}]")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} holds nan or infinity")
    return rows
