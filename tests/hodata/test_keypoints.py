"""Key points in front of or behind the rendered surface."""

from __future__ import annotations

import numpy as np
import pytest

from hodata.pose.camera import intrinsics
from hodata.pose.keypoints import DEPTHS, in_front
from hodata.pose.render import PosedMesh, render
from hodata.synth.hand_model import hand_model

SIZE = (64, 48)
K = intrinsics(100.0, SIZE)


def plane(z: float) -> np.ndarray:
    """A depth map whose left half is a wall at z; nothing is to the right of it."""
    depth = np.full((SIZE[1], SIZE[0]), np.inf, np.float32)
    depth[:, : SIZE[0] // 2] = z
    return depth


def test_points_behind_a_wall_are_hidden_and_points_just_under_it_are_not() -> None:
    points = np.array([[-0.05, 0, 0.49], [-0.05, 0, 0.51], [-0.05, 0, 0.53], [0.05, 0, 0.9], [0.0, 0, -0.5]])
    assert in_front(points, plane(0.5), K, 0.02).tolist() == [True, True, False, True, False]


def test_the_picture_ends_half_a_pixel_beyond_its_last_pixels() -> None:
    edges = np.array([[-0.49, 5], [-0.51, 5], [63.49, 5], [63.51, 5], [5, -0.51], [5, 47.49], [5, 47.51]])
    points = np.concatenate([(edges - K[:2, 2]) / 100.0, np.ones((len(edges), 1))], axis=1)
    assert in_front(points, plane(1.0), K, 0.02).tolist() == [True, False, True, False, False, True, False]


@pytest.mark.parametrize("side", ["palm", "back"])
def test_a_flat_hand_hides_none_of_its_points(side: str) -> None:
    """Whichever face of an open hand the camera sees, every joint is only under its own skin."""
    model = hand_model("right")
    turn = np.array([np.pi / 2, 0.0, 0.0]) * (1 if side == "palm" else -1)
    vertices, joints = model.pose(np.concatenate([turn, np.zeros(45)]))
    thin = np.argmin(np.ptp(vertices, axis=0))
    assert thin == 2, "the camera looks at the flat of the hand"
    shift = np.array([0.0, 0.0, 0.6]) - vertices.mean(axis=0)
    points = model.keypoints(vertices + shift, joints + shift)
    camera = intrinsics(500.0, (224, 224))
    depth = render([PosedMesh(vertices + shift, model.faces, 2)], camera, (224, 224)).depth
    assert in_front(points, depth, camera).all()
    # A second hand before it hides them all.
    wall = np.minimum(depth, np.float32(points[:, 2].min() - DEPTHS.max() - 0.01))
    assert not in_front(points, wall, camera).any()
