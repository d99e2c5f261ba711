"""The rasteriser against two slow twins: exact rational arithmetic with the same rounding, and plain ray casting."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from hodata.pose.camera import intrinsics, pixel_rays
from hodata.pose.rasterize import barycentric, interpolate, label_map, rasterize

SIZE = (40, 30)
K = intrinsics(35.0, SIZE)


def random_soup(seed: int, count: int = 12, near: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vertices = rng.uniform([-0.6, -0.5, near], [0.6, 0.5, 2.0], (3 * count, 3))
    return vertices, np.arange(3 * count).reshape(-1, 3)


def exact_twin(vertices, faces):
    """Rounded corners, half-plane tests and 1/z in rational numbers; nothing shared with the fast code."""
    width, height = SIZE
    depth, face = np.full((height, width), np.inf), np.full((height, width), -1)
    corners = []
    for x, y, z in vertices:
        u, v = K[0, 0] * x * (1.0 / z) + K[0, 2], K[1, 1] * y * (1.0 / z) + K[1, 2]
        corners.append((int(np.floor(u * 256 + 0.5)), int(np.floor(v * 256 + 0.5)), Fraction(1) / Fraction(z)))
    for number, f in enumerate(faces):
        a, b, c = (corners[i] for i in f)
        twice = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if twice == 0:
            continue
        if twice < 0:
            b, c, twice = c, b, -twice
        for row in range(height):
            for col in range(width):
                weights, covered = [], True
                for p, q in ((b, c), (c, a), (a, b)):
                    dx, dy = q[0] - p[0], q[1] - p[1]
                    value = dx * (256 * row - p[1]) - dy * (256 * col - p[0])
                    left_or_top = dy < 0 or (dy == 0 and dx > 0)
                    covered &= value > 0 or (value == 0 and left_or_top)
                    weights.append(value)
                if covered:
                    z = 1 / (sum(w * corner[2] for w, corner in zip(weights, (a, b, c), strict=True)) / twice)
                    if z < depth[row, col]:
                        depth[row, col], face[row, col] = z, number
    return depth, face


@pytest.mark.parametrize("seed", range(4))
def test_same_pixels_as_exact_arithmetic(seed):
    vertices, faces = random_soup(seed)
    raster = rasterize(vertices, faces, K, SIZE)
    depth, face = exact_twin(vertices, faces)
    np.testing.assert_array_equal(raster.face, face)
    np.testing.assert_allclose(raster.depth, depth, rtol=1e-6)
    assert (face >= 0).sum() > 100


def cast_rays(vertices, faces, K, size, near=0.01):
    """Depth of the nearest hit (Moller and Trumbore 1997) of every pixel's ray with every face, in float64."""
    width, height = size
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    rays = pixel_rays(pixels, K)
    depth, face = np.full((height, width), np.inf), np.full((height, width), -1)
    for number, (a, b, c) in enumerate(vertices[faces]):
        normal = np.cross(b - a, c - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (a @ normal) / (rays @ normal)
            p = rays * t[..., None]
            inside = t >= near
            for q, r in ((a, b), (b, c), (c, a)):
                inside &= np.cross(r - q, p - q) @ normal >= 0
        closer = inside & (t < depth)
        depth[closer], face[closer] = t[closer], number
    return depth, face


@pytest.mark.parametrize("near", [0.3, -1.0])
def test_agrees_with_ray_casting_even_where_faces_cross_the_camera(near):
    size, wide = (160, 120), intrinsics(120.0, (160, 120))
    differ = total = 0
    for seed in range(6):
        vertices, faces = random_soup(seed, 10, near)
        raster = rasterize(vertices, faces, wide, size)
        depth, face = cast_rays(vertices, faces, wide, size)
        differ += (raster.face != face).sum()
        total += face.size
        same = (raster.face == face) & (face >= 0)
        np.testing.assert_allclose(raster.depth[same], depth[same], rtol=2e-2)
        assert np.median(np.abs(raster.depth[same] / depth[same] - 1)) < 1e-3
    assert differ / total < 2e-3


def test_a_sheet_is_covered_once_whatever_its_triangles():
    """Corners on pixel centres and between them: drawn one by one, the faces of a sheet tile it."""
    rng = np.random.default_rng(3)
    xs, ys = np.meshgrid(np.arange(4, 36, 4), np.arange(3, 27, 4))
    grid = np.stack([xs, ys], axis=-1).astype(float)
    grid[1:-1, 1:-1] += rng.choice([0, 0, 0.5, -1.25, 1 / 256], (grid.shape[0] - 2, grid.shape[1] - 2, 2))
    vertices = pixel_rays(grid.reshape(-1, 2), K) * 1.0
    columns = grid.shape[1]
    faces = []
    for i in range(grid.shape[0] - 1):
        for j in range(columns - 1):
            a = i * columns + j
            one, two = ((a, a + 1, a + columns + 1), (a, a + columns + 1, a + columns))
            if rng.uniform() < 0.5:
                one, two = ((a, a + 1, a + columns), (a + 1, a + columns + 1, a + columns))
            faces += [rng.permutation(one), rng.permutation(two)]  # any orientation
    count = sum((rasterize(vertices, [face], K, SIZE).face >= 0).astype(int) for face in faces)
    x0, x1, y0, y1 = 4, 32, 3, 23
    assert (count[y0:y1, x0:x1] == 1).all()
    assert count.sum() == (x1 - x0) * (y1 - y0), "left and top edges are in, right and bottom ones out"


def test_a_floor_that_runs_under_the_camera_reaches_the_lower_edge():
    floor = np.array([[-50, 0.5, -50], [50, 0.5, -50], [50, 0.5, 50], [-50, 0.5, 50.0]])
    raster = rasterize(floor, [[0, 1, 2], [0, 2, 3]], K, SIZE)
    rows = np.arange(SIZE[1])
    below = rows > K[1, 2] + K[1, 1] * 0.5 / 49
    assert (raster.face[below] >= 0).all() and (raster.face[rows < K[1, 2]] == -1).all()
    expected = K[1, 1] * 0.5 / (rows[below] - K[1, 2])
    np.testing.assert_allclose(raster.depth[below], np.repeat(expected[:, None], SIZE[0], 1), rtol=0.05)


def test_nothing_in_front_of_the_near_plane_and_enormous_faces_do_not_overflow():
    behind = np.array([[-1, -1, -2.0], [1, -1, -2], [0, 1, -0.5]])
    assert (rasterize(behind, [[0, 1, 2]], K, SIZE).face == -1).all()
    wall = np.array([[-1e7, -1e7, 3.0], [1e7, -1e7, 3.0], [0, 2e7, 3.0]])
    raster = rasterize(wall, [[0, 1, 2]], K, SIZE)
    assert (raster.face == 0).all()
    np.testing.assert_allclose(raster.depth, 3.0, rtol=1e-6)


def test_both_sides_are_drawn_and_the_first_of_equal_faces_wins():
    triangle = np.array([[-0.5, -0.4, 1.0], [0.5, -0.4, 1.0], [0.0, 0.5, 1.0]])
    one = rasterize(triangle, [[0, 1, 2]], K, SIZE)
    other = rasterize(triangle, [[0, 2, 1]], K, SIZE)
    np.testing.assert_array_equal(one.face, other.face)
    np.testing.assert_array_equal(rasterize(triangle, [[0, 1, 2], [1, 2, 0]], K, SIZE).face.max(), 0)


def test_interpolation_is_perspective_correct_and_labels_follow_faces():
    vertices, faces = random_soup(5)
    raster = rasterize(vertices, faces, K, SIZE)
    drawn = raster.face >= 0
    weights = barycentric(raster, vertices, faces, K)
    np.testing.assert_allclose(weights[drawn].sum(axis=1), 1)
    assert weights.min() >= 0 and not weights[~drawn].any()
    # The points themselves, interpolated, lie on the pixels' rays at the drawn depth.
    points = interpolate(raster, vertices, vertices, faces, K)[drawn]
    pixels = np.stack(np.nonzero(drawn)[::-1], axis=1)
    error = np.abs(points[:, :2] / points[:, 2:] @ K[:2, :2].T + K[:2, 2] - pixels)
    assert np.quantile(error, 0.98) < 1e-9 and error.max() < 0.05  # the clamp moves a few at edges
    labels = np.arange(10, 10 + len(faces))
    expected = np.zeros_like(raster.face)
    for number in range(len(faces)):
        expected[raster.face == number] = 10 + number
    np.testing.assert_array_equal(label_map(raster.face, labels), expected)


@pytest.mark.parametrize(
    ("vertices", "faces", "words"),
    [
        (np.zeros((3, 2)), [[0, 1, 2]], "V, 3"),
        (np.ones((3, 3)), [[0, 1, 3]], "there are 3"),
        (np.full((3, 3), np.nan), [[0, 1, 2]], "nan"),
        (np.ones((3, 3)), [[0.0, 1.0, 2.0]], "faces are float64, they must be integers"),
    ],
)
def test_wrong_input_is_named(vertices, faces, words):
    with pytest.raises(ValueError, match=words):
        rasterize(vertices, faces, K, SIZE)


@pytest.mark.parametrize(
    ("camera", "size", "near", "words"),
    [
        (K * np.nan, SIZE, 0.01, "rasterize: K must be 3x3 finite numbers"),
        (np.diag([0.0, 35.0, 1.0]), SIZE, 0.01, "focal lengths"),
        (np.diag([35.0, -35.0, 1.0]), SIZE, 0.01, "focal lengths"),
        (K.T, SIZE, 0.01, "upper triangular"),
        (K, (40, 40_000), 0.01, "must be in 1..16384 pixels"),
        (K, SIZE, np.inf, "near"),
    ],
)
def test_a_camera_that_cannot_be_drawn_with_is_named(camera, size, near, words):
    with pytest.raises(ValueError, match=words):
        rasterize(np.eye(3), [[0, 1, 2]], camera, size, near)


def test_nothing_drawn_is_interpolated_to_nothing():
    for faces in (np.zeros((0, 3), dtype=int), np.zeros((0, 3))):
        nothing = rasterize(np.zeros((0, 3)), faces, K, SIZE)
        assert not interpolate(nothing, np.zeros((0, 2)), np.zeros((0, 3)), faces, K).any()
    vertices, faces = random_soup(5)
    # The last face is behind the camera, and nobody knows its values.
    vertices = np.concatenate([vertices, [[0, 0, -1.0], [0.1, 0, -1.0], [0, 0.1, -1.0]]])
    faces = np.concatenate([faces, [[36, 37, 38]]])
    values = np.where(np.arange(39) < 36, 1.0, np.nan)[:, None]
    raster = rasterize(vertices, faces, K, SIZE)
    np.testing.assert_allclose(interpolate(raster, values, vertices, faces, K)[..., 0], raster.face >= 0)
