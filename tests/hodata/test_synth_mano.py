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

from hodata.synth import native_mano
from hodata.synth.hand_model import PARENTS, hand_model
from hodata.synth.python2_pickle import Instance, dumps

NAMES = {
    "numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype", "scipy.sparse.csc csc_matrix",
    "chumpy.ch Ch", "chumpy.reordering Select", "__builtin__ set",
}  # fmt: skip
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
    for key, value in (("v_template", model.vertices), ("weights", model.weights), ("hands_mean", model.hands_mean)):
        np.testing.assert_array_equal(fields[key], value)
    assert (shape_dirs(fields) != 0).any(axis=(0, 1)).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_regressor_gives_the_joints_of_any_shaped_hand(folder, side, monkeypatch):
    fields, model = load(folder / f"MANO_{side.upper()}.pkl", monkeypatch), hand_model(side)
    dirs = shape_dirs(fields)
    if side == "left":
        assert not np.allclose(dirs, model.shape_dirs), "the real left file has this fault, and so has ours"
        dirs[:, 0, :] *= -1
    np.testing.assert_array_equal(dirs, model.shape_dirs)
    regressor = fields["J_regressor"]
    assert regressor.shape == (16, 778) and regressor.nnz <= 16 * 200
    np.testing.assert_allclose(np.asarray(regressor.sum(axis=1)).ravel(), 1, atol=1e-12)
    assert np.abs(regressor.data).max() < 0.2, "no joint hangs on a few vertices"
    betas = np.random.default_rng(4).normal(size=(20, 10))
    for b in betas:
        joints = regressor @ (fields["v_template"] + dirs @ b)
        np.testing.assert_allclose(joints, model.joints + model.joint_dirs @ b, atol=1e-12)


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
