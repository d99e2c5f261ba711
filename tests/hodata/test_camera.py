"""Pinhole cameras against closed forms, SciPy and their own inverses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from hodata.pose import camera


def test_projection_follows_the_formula_and_pixel_rays_undo_it():
    rng = np.random.default_rng(0)
    K = np.array([[500.0, 3.0, 320.0], [0.0, 480.0, 241.0], [0.0, 0.0, 1.0]])
    points = rng.uniform([-1, -1, 0.3], [1, 1, 4], (200, 3))
    pixels = camera.project(points, K)
    for (x, y, z), (u, v) in zip(points, pixels, strict=True):
        assert u == pytest.approx((500 * x + 3 * y) / z + 320)
        assert v == pytest.approx(480 * y / z + 241)
    np.testing.assert_allclose(camera.pixel_rays(pixels, K) * points[:, 2:], points, atol=1e-12)


def test_points_behind_the_camera_have_no_pixel():
    K = camera.intrinsics(100, (64, 48))
    assert np.isnan(camera.project([[0, 0, -1.0], [0, 0, 0.0]], K)).all()
    np.testing.assert_allclose(camera.project([0, 0, 1.0], K), [31.5, 23.5])


def test_opengl_flip_is_its_own_inverse_and_turns_up_to_down():
    np.testing.assert_array_equal(camera.flip_opengl([1.0, 2.0, -3.0]), [1, -2, 3])
    points = np.random.default_rng(1).normal(size=(7, 3))
    np.testing.assert_array_equal(camera.flip_opengl(camera.flip_opengl(points)), points)
    np.testing.assert_array_equal(camera.flip_opengl(points), points @ camera.OPENCV_FROM_OPENGL)


def test_look_at_centres_the_target_and_keeps_up_upward():
    eye, target = np.array([0.4, -1.0, 0.7]), np.array([0.1, 0.5, 0.2])
    T = camera.look_at(eye, target)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(camera.transform(T, eye), 0, atol=1e-12)
    np.testing.assert_allclose(camera.transform(T, target), [0, 0, np.linalg.norm(target - eye)], atol=1e-12)
    higher = camera.transform(T, target + np.array([0, 0, 0.1]))
    assert higher[1] < -0.05 and abs(higher[0]) < 1e-12
    np.testing.assert_allclose(camera.invert_rigid(T) @ T, np.eye(4), atol=1e-12)


@pytest.mark.parametrize("target", [(0.0, 0.0, 0.0), (0.0, 0.0, 2.0)])
def test_look_at_refuses_what_has_no_answer(target):
    with pytest.raises(ValueError, match="look_at"):
        camera.look_at((0.0, 0.0, 0.0), target)


@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3), st.floats(1e-9, 1))
def test_rodrigues_is_the_matrix_exponential(direction, scale):
    vector = np.array(direction) * scale
    x, y, z = vector
    np.testing.assert_allclose(
        camera.rodrigues(vector), expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])), atol=1e-12
    )


def test_rodrigues_and_axis_angle_in_batches_agree_with_scipy():
    vectors = np.random.default_rng(2).normal(size=(4, 5, 3))
    R = camera.rodrigues(vectors)
    assert R.shape == (4, 5, 3, 3)
    np.testing.assert_allclose(
        R.reshape(-1, 3, 3), Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix(), atol=1e-12
    )
    np.testing.assert_allclose(camera.rodrigues(camera.axis_angle(R)), R, atol=1e-12)
