"""MANO: the model file, skinning against the public smplx package, and wrong files."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hodata.errors import SourceError
from hodata.pose.mano import TIPS_FREIHAND, ManoModel, boundary_loop, handedness, load_mano
from hodata.synth import mano_frame, native_mano
from hodata.synth.hand_model import hand_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mano")
    for side in ("right", "left"):
        native_mano.write(side, out, 0)
    return out / "models"


@pytest.fixture(scope="module")
def model(folder: Path) -> ManoModel:
    return load_mano(folder / "MANO_RIGHT.pkl", "right")


def with_blend_shapes(model: ManoModel, rng: np.random.Generator) -> ManoModel:
    """The stand-in has no pose blend shapes; these are as large as MANO's."""
    return replace(model, posedirs=rng.normal(0, 0.002, model.posedirs.shape))


@pytest.mark.parametrize("side", ["right", "left"])
def test_skinning_equals_smplx_on_random_hands(folder: Path, side: str) -> None:
    torch = pytest.importorskip("torch")
    lbs = pytest.importorskip("smplx.lbs").lbs
    rng = np.random.default_rng(5)
    model = with_blend_shapes(load_mano(folder / f"MANO_{side.upper()}.pkl", side), rng)
    poses, betas = rng.normal(0, 0.9, (1000, 48)), rng.normal(0, 1.5, (1000, 10))
    poses[0] = 0  # no rotation at all
    poses[1, :3] = (np.pi, 0, 0)
    moved = rng.normal(0, 1, (1000, 3))
    ours = model.pose(poses, betas, moved)
    tensors = (betas, poses, model.v_template, model.shapedirs, model.posedirs.reshape(-1, 135).T, model.J_regressor)
    vertices, joints = lbs(
        *(torch.tensor(np.ascontiguousarray(values)) for values in tensors),
        parents=torch.tensor(model.parents),
        lbs_weights=torch.tensor(model.weights),
    )
    assert np.abs(ours.vertices - moved[:, None] - vertices.numpy()).max() < 1e-6
    assert np.abs(ours.joints - moved[:, None] - joints.numpy()).max() < 1e-6


def test_a_batch_equals_its_hands_one_by_one(model: ManoModel) -> None:
    rng = np.random.default_rng(1)
    model = with_blend_shapes(model, rng)
    poses, betas, moved = rng.normal(0, 1, (5, 48)), rng.normal(0, 1, (5, 10)), rng.normal(0, 1, (5, 3))
    together = model.pose(poses, betas, moved)
    for k in range(5):
        alone = model.pose(poses[k], betas[k], moved[k])
        np.testing.assert_allclose(together.vertices[k], alone.vertices[0], atol=1e-12)
        np.testing.assert_allclose(together.joints[k], alone.joints[0], atol=1e-12)
    one_shape = model.pose(poses, betas[0])
    np.testing.assert_allclose(one_shape.vertices[3], model.pose(poses[3], betas[0]).vertices[0], atol=1e-12)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_file_poses_like_the_hand_it_was_written_from(folder: Path, side: str) -> None:
    rng = np.random.default_rng(2)
    model, hand = load_mano(folder / f"MANO_{side.upper()}.pkl", side), hand_model(side)
    pose, betas, moved = rng.normal(0, 0.6, 48), rng.normal(0, 1, 10), rng.normal(0, 1, 3)
    vertices, joints = hand.pose(pose, betas, moved)
    pose, moved = mano_frame.full_pose(side, pose), moved - mano_frame.wrist_joint(side, betas)
    posed = model.pose(pose, betas, moved)
    np.testing.assert_allclose(posed.vertices[0], vertices, atol=1e-9)
    np.testing.assert_allclose(posed.joints[0], joints, atol=1e-9)
    np.testing.assert_allclose(model.keypoints(posed, TIPS_FREIHAND)[0], hand.keypoints(vertices, joints), atol=1e-9)
    relative = model.pose(np.concatenate([pose[:3], pose[3:] - model.hands_mean]), betas, moved, flat_hand_mean=False)
    np.testing.assert_allclose(relative.vertices[0], vertices, atol=1e-9)


def test_the_root_turns_about_its_joint_and_not_about_the_origin(model: ManoModel) -> None:
    rest = model.pose(np.zeros(48)).joints[0, 0]
    turned = model.pose([1.0, -0.5, 0.3] + [0.0] * 45).joints[0, 0]
    np.testing.assert_allclose(rest, turned, atol=1e-12)
    assert np.linalg.norm(rest) > 0.09, "the origin is elsewhere"


def test_the_wrist_loop_is_the_open_boundary(model: ManoModel) -> None:
    loop = model.loop
    assert len(loop) == 16 and set(loop.tolist()) == set(hand_model("right").loop.tolist())
    edges = {frozenset(face[[a, b]].tolist()) for face in model.faces for a, b in ((0, 1), (1, 2), (2, 0))}
    assert all(frozenset((int(a), int(b))) in edges for a, b in zip(loop, np.roll(loop, -1), strict=True))
    closed = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]], dtype=np.int32)
    with pytest.raises(ValueError, match="no boundary"):
        boundary_loop(closed)


def test_left_and_right_are_told_by_geometry(folder: Path, model: ManoModel) -> None:
    assert handedness(model) == "right"
    assert handedness(load_mano(folder / "MANO_LEFT.pkl", "left")) == "left"
    with pytest.raises(SourceError, match="is the left hand, the right one is needed: give MANO_RIGHT"):
        load_mano(folder / "MANO_LEFT.pkl", "right")


def test_the_left_model_is_mended_once(folder: Path, model: ManoModel) -> None:
    mended = load_mano(folder / "MANO_LEFT.pkl", "left")
    shipped = load_mano(folder / "MANO_LEFT.pkl", "left", mend_left=False)
    np.testing.assert_array_equal(mended.shapedirs, model.shapedirs * [[-1], [1], [1]])
    np.testing.assert_array_equal(shipped.shapedirs, model.shapedirs)
    again = load_mano(folder / "MANO_LEFT.pkl", "left")
    np.testing.assert_array_equal(again.shapedirs, mended.shapedirs)


def test_wrong_files_are_named_with_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    from hodata.pose.safe_pickle import load_pickle

    data = load_pickle((folder / "MANO_RIGHT.pkl").read_bytes(), "m", model=True)
    cases = {
        "no MANO model": {key: value for key, value in data.items() if key != "posedirs"},
        "has shape": {**data, "weights": data["weights"][:700]},
        "nan or infinity": {**data, "v_template": np.full((778, 3), np.nan)},
        "faces name vertices": {**data, "f": np.full((1538, 3), 778)},
        "kinematic tree": {**data, "kintree_table": np.zeros((2, 16)) + 9},
        "not open at the wrist": {**data, "f": np.zeros((1538, 3), dtype=int)},
        "a MANO model is a dictionary": [1, 2],
    }
    for number, (message, content) in enumerate(cases.items()):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(SourceError, match=message):
            load_mano(path, "right")
    with pytest.raises(SourceError, match="cannot be read"):
        load_mano(tmp_path / "missing.pkl", "right")
    (tmp_path / "evil.pkl").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(SourceError, match=r"evil\.pkl.*posix\.system"):
        load_mano(tmp_path / "evil.pkl", "right")


def test_numbers_that_are_no_pose_are_refused(model: ManoModel) -> None:
    for arguments in ((np.zeros(45),), (np.zeros(48), np.zeros(9)), (np.full(48, np.nan),)):
        with pytest.raises(ValueError, match=r"expected \[|nan"):
            model.pose(*arguments)


def test_a_model_that_was_loaded_cannot_be_written_into(folder: Path) -> None:
    path = str(folder / "MANO_LEFT.pkl")
    model = load_mano(path, "left")
    before = model.shapedirs.copy()
    for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "faces", "loop", "hands_mean"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(model, name)[:] *= -1
    np.testing.assert_array_equal(load_mano(path, "left").shapedirs, before)


def test_a_left_file_that_was_mended_already_is_told_by_the_right_one(folder: Path, tmp_path: Path) -> None:
    right = load_mano(folder / "MANO_RIGHT.pkl", "right")
    mirror = np.array([-1.0, 1.0, 1.0])
    fields = {
        "v_template": right.v_template * mirror,
        "shapedirs": right.shapedirs * mirror[:, None],
        "hands_mean": (right.hands_mean.reshape(-1, 3) * [1, -1, -1]).ravel(),
        "f": right.faces[:, ::-1],
        "kintree_table": np.array([[0, *right.parents[1:]], range(16)]),
        **{name: getattr(right, name) for name in ("posedirs", "J_regressor", "weights")},
    }
    true = fields["shapedirs"]
    for name, sign in (("shipped", -1), ("mended", 1)):
        for beside in (True, False):
            path = tmp_path / f"{name}_{beside}" / "MANO_LEFT.pkl"
            path.parent.mkdir()
            path.write_bytes(pickle.dumps({**fields, "shapedirs": true * [[sign], [1], [1]]}))
            if beside:
                shutil.copy(folder / "MANO_RIGHT.pkl", path.parent)
            mended, as_it_is = load_mano(path, "left"), load_mano(path, "left", mend_left=False)
            np.testing.assert_array_equal(as_it_is.shapedirs[:, 0], sign * true[:, 0])
            # Alone, each counts as shipped.
            expected = true[:, 0] if beside else -sign * true[:, 0]
            np.testing.assert_array_equal(mended.shapedirs[:, 0], expected, err_msg=str(path))
