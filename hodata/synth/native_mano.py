"""The stand-in hand as MANO's own model files: MANO_RIGHT.pkl and MANO_LEFT.pkl, with none of MANO's data.

Same keys, shapes, class names and Python-2 pickle protocol as the real files, so a reader of those reads these. Four
things to know:
* Hands lie and point as in the real files (`mano_frame`): the wrist joint off the origin, left mirrored in x.
* `posedirs` is all zeros: the stand-in hand is skinned without pose blend shapes, and so are the pictures.
* The left file has the fault of the real one: the x component of `shapedirs` has the wrong sign, so it equals the right
  one's (`shapedirs[:, 0, :] *= -1` cures it, smplx issue 48).
* `J_regressor` is exact: applied to any shaped mesh it gives the joints of the hand.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.synth.hand_model import BETAS, PARENTS, SIZE_PER_BETA, hand_model, mirror_pose
from hodata.synth.mano_frame import TURN, WRIST, finger_poses
from hodata.synth.python2_pickle import Instance, dumps
from hodata.synth.streams import stream

Array = NDArray[np.float64]

NAME = "mano"
SIDES = ("right", "left")
NEIGHBOURS = 160  # vertices that a joint is regressed from
SPARE = 4  # shape directions beyond the ten in use: `shapedirs` is a selection from a larger array
POSES = 96  # rows of `hands_coeffs`


def plan(frames: int, seed: int) -> list[str]:
    """One job for each side; neither number changes anything."""
    return list(SIDES)


def write(side: str, folder: Path, seed: int) -> None:
    """Write models/MANO_RIGHT.pkl or models/MANO_LEFT.pkl."""
    path = folder / "models" / f"MANO_{side.upper()}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dumps(model_fields(side)))


def finish(folder: Path, jobs: list[str], results: list[None]) -> None:
    """Nothing is left to write."""


def pictures(job: str) -> int:
    """Pictures in a job: none."""
    return 0


def model_fields(side: str) -> dict[str, Any]:
    """The model file of a side (`left` or `right`) as a dict, before pickling."""
    model, turn, wrist = hand_model(side), TURN[side], WRIST[side]
    components = _components()
    coefficients = stream(0, NAME, "coefficients").normal(0, 0.5, (POSES, 45))
    if side == "left":
        components = mirror_pose(components)
    shape_dirs = model.shape_dirs * turn[:, None]
    shape_dirs[..., 0] += SIZE_PER_BETA * wrist
    if side == "left":
        shape_dirs[:, 0, :] *= -1  # the fault of the real file
    return {
        "hands_components": finger_poses(side, components),
        "f": model.faces.astype(np.uint32),
        "J_regressor": _csc(joint_regressor()),
        "kintree_table": np.array([PARENTS, range(16)], dtype=np.int64).astype(np.uint32),
        "J": model.joints * turn + wrist,
        "hands_coeffs": coefficients,
        "weights": model.weights,
        "posedirs": np.zeros((len(model.vertices), 3, 135)),
        "hands_mean": finger_poses(side, model.hands_mean),
        "v_template": model.vertices * turn + wrist,
        "shapedirs": _selection(shape_dirs),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


@lru_cache(maxsize=1)
def _components() -> Array:
    """[45, 45] orthonormal rows; any will do, since full poses are used."""
    q, _ = np.linalg.qr(stream(0, NAME, "components").normal(size=(45, 45)))
    return np.ascontiguousarray(q)


@lru_cache(maxsize=1)
def joint_regressor() -> Array:
    """[16, 778] of either side: rows sum to 1; row j times any shaped mesh is joint j.

    For each joint the least-norm weights of the vertices near it that meet 34 linear conditions: their sum, the
    joint at rest (3) and its displacement by each shape number (30). Both sides share it, since a mirror changes
    signs only. Of a bent hand it gives other points than the chain of joints, as MANO's does.
    """
    model = hand_model("right")
    count = len(model.vertices)
    conditions = np.concatenate([np.ones((1, count)), model.vertices.T, model.shape_dirs.reshape(count, 3 * BETAS).T])
    regressor = np.zeros((16, count))
    for j in range(16):
        near = np.argsort(np.linalg.norm(model.vertices - model.joints[j], axis=1), kind="stable")[:NEIGHBOURS]
        wanted = np.concatenate([[1.0], model.joints[j], model.joint_dirs[j].ravel()])
        A = conditions[:, near]
        weights = np.linalg.lstsq(A, wanted, rcond=1e-12)[0]
        weights += np.linalg.lstsq(A, wanted - A @ weights, rcond=1e-12)[0]  # once more, for the last digits
        regressor[j, near] = weights
    return regressor


def _csc(matrix: Array) -> Instance:
    """A dense matrix as the state of SciPy's `csc_matrix`."""
    columns, rows = np.nonzero(matrix.T)
    starts = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=matrix.shape[1]))])
    state = {
        "format": "csc",
        "_shape": matrix.shape,
        "maxprint": 50,
        "indices": rows.astype(np.int32),
        "indptr": starts.astype(np.int32),
        "data": matrix[rows, columns],
    }
    return Instance("scipy.sparse.csc", "csc_matrix", state)


def _selection(array: Array) -> Instance:
    """[V, 3, 10] as chumpy keeps it: the first ten of a few more directions, `a.ravel()[idxs]` reshaped."""
    count, _, kept = array.shape
    more = 0.001 * stream(0, NAME, "spare").normal(size=(count, 3, SPARE))
    whole = np.concatenate([array, more], axis=2)
    places = np.arange(whole.size).reshape(whole.shape)[:, :, :kept]
    source = Instance("chumpy.ch", "Ch", {"x": whole, "_dirty_vars": set(), "_itr": None, "_depends_on_deps": {}})
    state = {
        "a": source,
        "idxs": places.ravel(),
        "preferred_shape": array.shape,
        "_dirty_vars": {"a"},
        "_itr": None,
        "_depends_on_deps": {},
    }
    return Instance("chumpy.reordering", "Select", state)
