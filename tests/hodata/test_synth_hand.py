"""The stand-in hand: MANO's counts and tree, a clean surface, skinning as written down, grasps that touch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hodata.synth.grasp import close_fingers, free_pose, grasp
from hodata.synth.hand_model import OPENPOSE, PARENTS, TIPS, hand_model, mirror_pose
from hodata.synth.hand_shape import boundary_loop, rest_joints
from hodata.synth.solids import KINDS, TOOLS, make_solid


@pytest.mark.parametrize("side", ["left", "right"])
def test_counts_and_surface(side):
    model = hand_model(side)
    assert model.vertices.shape == (778, 3) and model.faces.shape == (1538, 3)
    assert set(model.faces.ravel()) == set(range(778))
    edges = Counter((int(f[k]), int(f[(k + 1) % 3])) for f in model.faces for k in range(3))
    assert max(edges.values()) == 1, "neighbouring faces walk their edge in opposite directions"
    open_edges = [edge for edge in edges if edge[::-1] not in edges]
    assert len(open_edges) == 16 and sorted(a for a, _ in open_edges) == sorted(model.loop)
    np.testing.assert_array_equal(boundary_loop(model.faces), np.roll(model.loop, -int(model.loop.argmin())))
    # Outside is outside: the signed volume (the wrist closed by a fan) is that of a hand, 0.2 to 0.6 litres.
    corners = model.vertices[model.faces]
    volume = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    ring, middle = model.vertices[model.loop], model.vertices[model.loop].mean(axis=0)
    volume += np.einsum("ij,ij->", np.tile(middle, (16, 1)), np.cross(np.roll(ring, -1, axis=0), ring)) / 6
    assert 2e-4 < volume < 6e-4
    np.testing.assert_allclose(model.weights.sum(axis=1), 1)
    assert model.weights.min() >= 0
    # No face is a sliver, and every tip carries its number.
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    assert area.min() > 1e-7
    tips = rest_joints()[1][[4, 0, 1, 3, 2]] * (1, 1, 1 if side == "right" else -1)
    assert np.linalg.norm(model.vertices[list(TIPS)] - tips, axis=1).max() < 0.006


def slow_pose(model, pose, betas, translation):
    """Skinning vertex by vertex with homogeneous matrices, as the MANO paper writes it."""
    joints = model.joints + np.einsum("jkb,b->jk", model.joint_dirs, betas)
    G = []
    for j in range(16):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_rotvec(pose[3 * j : 3 * j + 3]).as_matrix()
        local[:3, 3] = joints[j] - (joints[PARENTS[j]] if j else 0)
        G.append(G[PARENTS[j]] @ local if j else local)
    out = []
    for v in range(778):
        rest = np.append(model.vertices[v] + model.shape_dirs[v] @ betas, 1.0)
        moved = np.zeros(4)
        for j in range(16):
            back = np.eye(4)
            back[:3, 3] = -joints[j]
            moved += model.weights[v, j] * (G[j] @ back @ rest)
        out.append(moved[:3] + translation)
    return np.array(out), np.array([g[:3, 3] for g in G]) + translation


@pytest.mark.parametrize("side", ["left", "right"])
def test_skinning_agrees_with_a_slow_twin(side):
    rng = np.random.default_rng(1)
    model = hand_model(side)
    pose, betas, translation = rng.normal(0, 0.5, 48), rng.normal(size=10), rng.normal(size=3)
    vertices, joints = model.pose(pose, betas, translation)
    expected, expected_joints = slow_pose(model, pose, betas, translation)
    np.testing.assert_allclose(vertices, expected, atol=1e-12)
    np.testing.assert_allclose(joints, expected_joints, atol=1e-12)
    points = model.keypoints(vertices, joints)
    for place, source in enumerate(OPENPOSE):
        np.testing.assert_array_equal(points[place], joints[source] if source < 16 else vertices[TIPS[source - 16]])


def test_rest_pose_changes_nothing_and_left_mirrors_right():
    right, left = hand_model("right"), hand_model("left")
    np.testing.assert_allclose(right.pose(np.zeros(48))[0], right.vertices, atol=1e-15)
    rng = np.random.default_rng(2)
    pose, betas = rng.normal(0, 0.4, 48), rng.normal(size=10)
    a, _ = right.pose(pose, betas)
    b, _ = left.pose(mirror_pose(pose), betas)
    np.testing.assert_allclose(a * (1, 1, -1), b, atol=1e-12)


@pytest.mark.parametrize("kind", [*KINDS, "card", "block", "pawn", "crate", "bowl"])
def test_solids_are_closed_to_fingers_where_they_are_drawn(kind):
    """Distance is about 0 on the drawn surface, negative inside, and never changes faster than the place."""
    rng = np.random.default_rng(3)
    solid = make_solid(kind, rng)
    assert np.allclose(np.linalg.norm(solid.mesh.normals, axis=1), 1, atol=1e-6)
    surface = solid.mesh.vertices[solid.mesh.faces].mean(axis=1)
    distance = solid.distance(surface)
    # Hollows and what sticks inside another part lie within; a mug's handle alone stands outside.
    assert kind == "mug" or distance.max() < 0.003
    assert (np.abs(distance) < 0.003).mean() > 0.45
    assert solid.distance(np.zeros((1, 3)))[0] < 0
    points, step = rng.uniform(-0.2, 0.2, (500, 3)), rng.normal(0, 0.02, (500, 3))
    change = np.abs(solid.distance(points + step) - solid.distance(points))
    assert (change <= np.linalg.norm(step, axis=1) + 1e-9).all()
    if kind in TOOLS:
        assert solid.tip is not None and abs(solid.distance(solid.tip[None])[0]) < 0.002


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["can", "bottle", "mug", "ball", "box", "book", "hammer", "screwdriver"])
def test_a_grasp_touches_with_palm_and_fingers_and_hardly_enters(kind, side):
    rng = np.random.default_rng(4)
    betas = rng.normal(0, 0.7, 10)
    solid = make_solid(kind, rng)
    g = grasp(side, betas, solid, "wrap", rng)
    assert np.linalg.det(g.R) == pytest.approx(1) and not g.pose[:3].any()
    model = hand_model(side)
    vertices, _ = model.pose(g.pose, betas)
    gap = solid.distance((vertices - g.t) @ g.R)
    assert gap.min() == pytest.approx(g.gap, abs=3e-3)  # a mug's handle is no obstacle, and not symmetric
    assert gap.min() < 0.003 and gap.min() > -0.012
    fingers = [model.weights[:, 1 + 3 * k : 4 + 3 * k].sum(axis=1) > 0.5 for k in range(5)]
    assert sum(gap[finger].min() < 0.006 for finger in fingers) >= 3


def test_fingers_stay_open_round_what_is_not_there():
    rng = np.random.default_rng(5)
    solid = make_solid("can", rng)
    pose = close_fingers("right", np.zeros(10), solid, np.eye(3), np.array([0.0, 5.0, 0.0]), rng)
    assert np.isfinite(pose).all()
    for side in ("left", "right"):
        flex = free_pose(side, rng).reshape(16, 3)
        assert np.abs(flex).max() < 2.0 and flex[1:13].any()
