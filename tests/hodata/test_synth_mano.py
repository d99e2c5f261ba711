"""The stand-in MANO files: keys, shapes and names of the real ones, and the hand they describe."""

from __future__ import annotations

import pickle
import pickletools
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hodata.synth import mano_frame, native_mano
from hodata.synth.hand_model import PARENTS, hand_model
from hodata.synth.python2_pickle import Instance, dumps

NAMES = {
    "numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype", "scipy.sparse.csc csc_matrix",
    "chumpy.ch Ch", "chumpy.reordering Select", "__builtin__ set",
}  # fmt: skip
TURNED = np.array([-1.0, 1.0, -1.0])  # the right hand of the scenes, in the file: half a turn about y
SHAPES = {
    "v_template": (778, 3), "posedirs": (778, 3, 135), "weights": (778, 16), "kintree_table": (2, 16), "f": (1538, 3),
    "hands_mean": (45,), "hands_components": (45, 45), "J": (16, 3),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mano")
    for side in native_mano.SIDES:
        native_mano.write(side, out, 0)
    return out / "models"


def load(path: Path, monkeypatch) -> dict[str, Any]:
    """As everybody reads it, with empty classes in chumpy's place."""
    for name, member in (("chumpy", ""), ("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        module = types.ModuleType(name)
        if member:
            setattr(module, member, type(member, (), {}))
        monkeypatch.setitem(sys.modules, name, module)
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # scipy.sparse.csc, numpy.core
        return pickle.load(file, encoding="latin1")


def shape_dirs(fields: dict[str, Any]) -> np.ndarray:
    """The value of chumpy's Select."""
    select = fields["shapedirs"]
    return select.a.x.ravel()[select.idxs].reshape(select.preferred_shape)


def posed(fields: dict[str, Any], pose: np.ndarray) -> np.ndarray:
    """[778, 3]: the template skinned as the MANO paper writes it, matrix by matrix."""
    joints = fields["J_regressor"] @ fields["v_template"]
    G = []
    for j, turn in enumerate(Rotation.from_rotvec(pose.reshape(16, 3)).as_matrix()):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = turn, joints[j] - (joints[PARENTS[j]] if j else 0)
        G.append(G[PARENTS[j]] @ local if j else local)
    for j in range(16):
        back = np.eye(4)
        back[:3, 3] = -joints[j]
        G[j] = G[j] @ back
    rest = np.column_stack([fields["v_template"], np.ones(778)])
    return np.einsum("vj,jab,vb->va", fields["weights"], np.array(G), rest)[:, :3]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_file_is_a_python_2_pickle_of_seven_names(folder, side):
    ops = [(op.name, arg) for op, arg, _ in pickletools.genops((folder / f"MANO_{side.upper()}.pkl").read_bytes())]
    assert ops[0] == ("PROTO", 2)
    assert {arg for name, arg in ops if name == "GLOBAL"} == NAMES
    assert not [name for name, _ in ops if "UNICODE" in name or name in ("BINBYTES", "SHORT_BINBYTES", "STACK_GLOBAL")]
    assert {"SHORT_BINSTRING", "BINSTRING"} <= {name for name, _ in ops}


@pytest.mark.parametrize("side", ["left", "right"])
def test_keys_shapes_and_dtypes(folder, side, monkeypatch):
    fields = load(folder / f"MANO_{side.upper()}.pkl", monkeypatch)
    assert set(fields) == {*SHAPES, "shapedirs", "J_regressor", "hands_coeffs", "bs_type", "bs_style"}
    for key, shape in SHAPES.items():
        assert fields[key].shape == shape, key
        assert np.isfinite(fields[key]).all()
    assert fields["kintree_table"].dtype == fields["f"].dtype == np.uint32
    assert fields["kintree_table"].tolist() == [[4294967295, *PARENTS[1:]], list(range(16))]
    assert fields["hands_coeffs"].shape[1] == 45
    assert (fields["bs_type"], fields["bs_style"]) == ("lrotmin", "lbs")
    np.testing.assert_allclose(fields["hands_components"] @ fields["hands_components"].T, np.eye(45), atol=1e-12)
    model = hand_model(side)
    np.testing.assert_array_equal(fields["f"], model.faces)
    np.testing.assert_array_equal(fields["weights"], model.weights)
    assert (shape_dirs(fields) != 0).any(axis=(0, 1)).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_regressor_gives_the_joints_of_any_shaped_hand(folder, side, monkeypatch):
    fields, model = load(folder / f"MANO_{side.upper()}.pkl", monkeypatch), hand_model(side)
    dirs = shape_dirs(fields)
    if side == "left":
        dirs[:, 0, :] *= -1  # the fault of the file
    regressor = fields["J_regressor"]
    assert regressor.shape == (16, 778) and regressor.nnz <= 16 * 200
    np.testing.assert_allclose(np.asarray(regressor.sum(axis=1)).ravel(), 1, atol=1e-12)
    assert np.abs(regressor.data).max() < 0.2, "no joint hangs on a few vertices"
    np.testing.assert_allclose(regressor @ fields["v_template"], fields["J"], atol=1e-12)
    for b in np.random.default_rng(4).normal(size=(20, 10)):
        joints = regressor @ (fields["v_template"] + dirs @ b)
        moved = joints[0] - model.joints[0] - model.joint_dirs[0] @ b
        turned = (model.joints + model.joint_dirs @ b) * (TURNED if side == "right" else 1)
        np.testing.assert_allclose(joints, turned + moved, atol=1e-12)


def test_hands_lie_and_point_as_in_the_real_files(folder, monkeypatch):
    """The wrist joint beside the origin, fingers to -x or +x, palms down, thumbs to +z, left = right mirrored in x."""
    right, left = (load(folder / f"MANO_{side}.pkl", monkeypatch) for side in ("RIGHT", "LEFT"))
    mirror = np.array([-1.0, 1.0, 1.0])
    np.testing.assert_array_equal(right["J"][0], [0.096, 0.006, 0.006])
    for side, fields in ((1, right), (-1, left)):
        tips = fields["v_template"][[744, 320, 443, 555, 672]] - fields["J"][0]
        assert (side * tips[1:, 0] < -0.1).all() and np.abs(tips[1:, 2]).max() < 0.07
        assert tips[0, 2] > tips[1:, 2].max(), "the thumb's side"
        flat, bent = (
            posed(fields, np.concatenate([np.zeros(3), mean])) for mean in (np.zeros(45), fields["hands_mean"])
        )
        assert (bent - flat)[[320, 443, 555, 672], 1].max() < -0.01, "fingers bend to -y"
    np.testing.assert_array_equal(left["v_template"], right["v_template"] * mirror)
    np.testing.assert_array_equal(left["J"], right["J"] * mirror)
    # The fault of the left file: x is not mirrored. Public code knows unmended files by exactly this.
    np.testing.assert_array_equal(shape_dirs(left), shape_dirs(right))
    for key in ("hands_mean", "hands_components"):  # mirrored hands: y and z of each axis-angle are negated
        np.testing.assert_array_equal(left[key].reshape(-1, 15, 3), right[key].reshape(-1, 15, 3) * (1, -1, -1))


def test_poses_are_mirrored_by_negating_y_and_z(folder, monkeypatch):
    right, left = (load(folder / f"MANO_{side}.pkl", monkeypatch) for side in ("RIGHT", "LEFT"))
    pose = np.random.default_rng(6).normal(0, 0.5, (16, 3))
    there = posed(left, (pose * (1, -1, -1)).ravel())
    np.testing.assert_allclose(there, posed(right, pose.ravel()) * (-1, 1, 1), atol=1e-12)
    for signs in ((-1, -1, 1), (-1, 1, -1), (1, 1, 1)):  # mirrored in z, in y, not at all
        assert np.abs(posed(left, (pose * signs).ravel()) - there).max() > 0.03


@pytest.mark.parametrize("side", ["left", "right"])
def test_poses_of_scenes_look_the_same_with_the_files_hand(folder, side, monkeypatch):
    fields, model = load(folder / f"MANO_{side.upper()}.pkl", monkeypatch), hand_model(side)
    dirs = shape_dirs(fields)
    if side == "left":
        dirs[:, 0, :] *= -1
    rng = np.random.default_rng(7)
    pose, betas = rng.normal(0, 0.6, 48), rng.normal(size=10)
    wanted, _ = model.pose(pose, betas)
    shaped = fields | {"v_template": fields["v_template"] + dirs @ betas}
    theirs = posed(shaped, mano_frame.full_pose(side, pose))
    np.testing.assert_allclose(theirs - mano_frame.wrist_joint(side, betas), wanted, atol=1e-12)
    assert np.abs(mano_frame.wrist_joint(side, betas) - mano_frame.wrist_joint(side, np.zeros(10))).max() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_root_turns_about_the_wrist_joint(folder, side, monkeypatch):
    fields = load(folder / f"MANO_{side.upper()}.pkl", monkeypatch)
    pose = np.zeros(48)
    pose[:3] = (0.4, 1.0, -0.3)
    R = Rotation.from_rotvec(pose[:3]).as_matrix()
    wrist, rest = fields["J"][0], fields["v_template"]
    np.testing.assert_allclose(posed(fields, pose), (rest - wrist) @ R.T + wrist, atol=1e-12)
    assert np.linalg.norm(posed(fields, pose) - rest @ R.T, axis=1).min() > 0.05, "about the origin is far off"


def test_python_2_pickles_come_back_as_they_were():
    value = {
        "text": "a" * 300, "short": "b", "numbers": [0, 255, 256, -1, 2**40, 1.5, True, None], "pair": (1, (2, ())),
        "set": {3, 1}, "array": np.arange(6, dtype=np.float32).reshape(2, 3), "scalar": np.float64(0.25),
        "flags": np.array([True, False]), "empty": np.zeros((0, 3)), "zero": np.array(7), "turned": np.eye(3)[:, :2],
    }  # fmt: skip
    data = dumps(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        back = pickle.loads(data, encoding="latin1")
    assert list(back) == list(value)
    for key, wanted in value.items():
        assert type(back[key]) is type(wanted), key
        np.testing.assert_equal(back[key], wanted)
        assert getattr(back[key], "dtype", None) == getattr(wanted, "dtype", None)
    assert dumps(Instance("a.b", "C", {})) != dumps(Instance("a.b", "D", {}))
    with pytest.raises(TypeError, match="complex"):
        dumps({"x": 1j})
