"""Rendering: every mesh by exact arithmetic and a plain argmin, and everything at once by `rasterize`."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rasterize import SIZE, K, exact_twin, random_soup

from hodata.pose import zbuffer
from hodata.pose.camera import flip_opengl, intrinsics, rodrigues
from hodata.pose.rasterize import rasterize
from hodata.pose.render import PosedMesh, Rendering, render

TRIANGLE = np.array([[-0.3, -0.3, 1.0], [0.3, -0.3, 1.0], [0.0, 0.3, 1.0]])
FACE = np.array([[0, 1, 2]])


def check_counts(rendering: Rendering) -> None:
    """Areas, boxes and visible fractions follow from `part` and `amodal`."""
    for number, silhouette in enumerate(rendering.amodal):
        visible = rendering.part == number
        assert not (visible & ~silhouette).any()
        assert rendering.areas[number] == visible.sum()
        assert rendering.visible_fraction[number] == (visible.sum() / silhouette.sum() if silhouette.any() else 0)
        rows, columns = np.nonzero(visible)
        box = [columns.min(), rows.min(), columns.max(), rows.max()] if len(rows) else [0, 0, -1, -1]
        assert rendering.boxes[number].tolist() == box
    assert ((rendering.part >= 0) == rendering.amodal.any(axis=0)).all()


@pytest.mark.parametrize("seed", range(3))
def test_same_as_every_mesh_alone_in_exact_arithmetic(seed):
    soups = [random_soup(10 * seed + k, count) for k, count in enumerate((5, 3, 4))]
    labels = np.array([2, 255, 4])
    rendering = render([PosedMesh(*soup, int(label)) for soup, label in zip(soups, labels, strict=True)], K, SIZE)
    depths = np.array([exact_twin(*soup)[0] for soup in soups])
    nearest = depths.argmin(axis=0)  # of equal ones the first
    empty = np.isinf(depths).all(axis=0)
    np.testing.assert_array_equal(rendering.amodal, np.isfinite(depths))
    np.testing.assert_array_equal(rendering.part, np.where(empty, -1, nearest))
    np.testing.assert_array_equal(rendering.labels, np.where(empty, 0, labels[nearest]))
    np.testing.assert_allclose(rendering.depth, depths.min(axis=0), rtol=1e-6)
    check_counts(rendering)
    assert len(np.unique(rendering.part)) == 4 and (rendering.visible_fraction < 1).any()


def random_meshes(rng: np.random.Generator) -> list[PosedMesh]:
    """Up to 4 meshes: anywhere, across the near plane, beside the picture, coplanar, tiny, enormous, empty."""
    meshes = []
    for _ in range(rng.integers(0, 5)):
        count = int(rng.integers(3, 20))
        center, spread = rng.normal([0, 0, rng.choice([0.2, 1.0, 3.0])], 0.5), rng.choice([0.01, 0.3, 3.0, 300.0])
        vertices = center + spread * rng.normal(size=(count, 3)) * [1, 1, rng.choice([0.0, 0.2, 1.0])]
        vertices[0, 2] = max(vertices[0, 2], 0.005)  # never wholly behind
        faces = rng.integers(0, count, (int(rng.integers(0, 25)), 3)).astype(
            rng.choice([np.int32, np.int64, np.uint16])
        )
        meshes.append(PosedMesh(vertices, faces, int(rng.integers(0, 256))))
        if rng.uniform() < 0.2:
            meshes.append(PosedMesh(vertices, faces[::-1], 77))  # equally deep everywhere
    return meshes


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_same_as_rasterising_everything_together_and_each_alone(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(n) for n in rng.choice([1, 2, 7, 40, 65], 2))
    camera = intrinsics(rng.uniform(2, 200), size, tuple(rng.uniform(-10, 60, 2)))
    camera[0, 1] = rng.choice([0.0, 3.0])
    near = float(rng.choice([0.01, 0.5]))
    meshes = random_meshes(rng)
    rendering = render(meshes, camera, size, near=near)
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    vertices = np.concatenate([np.zeros((0, 3)), *(mesh.vertices for mesh in meshes)])
    faces = [mesh.faces.astype(np.int64) + start for mesh, start in zip(meshes, starts[:-1], strict=True)]
    together = rasterize(vertices, np.concatenate([np.zeros((0, 3), np.int64), *faces]), camera, size, near)
    owner = np.repeat(np.arange(len(meshes)), [len(f) for f in faces])
    table = np.array([mesh.label for mesh in meshes] + [0])
    part = np.append(owner, -1)[together.face]
    np.testing.assert_array_equal(rendering.part, part)
    np.testing.assert_array_equal(rendering.labels, table[part])
    assert rendering.depth.tobytes() == together.depth.tobytes()
    for mesh, silhouette in zip(meshes, rendering.amodal, strict=True):
        alone = rasterize(mesh.vertices, mesh.faces, camera, size, near)
        np.testing.assert_array_equal(silhouette, alone.face >= 0)
    check_counts(rendering)


def test_types_shapes_and_nothing_at_all():
    rendering = render([], K, SIZE)
    shape = (SIZE[1], SIZE[0])
    assert (rendering.labels == 0).all() and (rendering.part == -1).all() and np.isinf(rendering.depth).all()
    assert rendering.amodal.shape == (0, *shape) and rendering.visible_fraction.shape == (0,)
    dtypes = {"labels": "u1", "depth": "f4", "part": "i2", "amodal": "?", "visible_fraction": "f8", "areas": "i8"}
    assert all(getattr(rendering, name).dtype == np.dtype(kind) for name, kind in dtypes.items())
    assert rendering.labels.shape == rendering.depth.shape == rendering.part.shape == shape


def test_a_mesh_beside_the_picture_or_before_the_near_plane_or_without_faces_has_no_pixels():
    beside = PosedMesh(TRIANGLE + np.array([50.0, 0, 0]), FACE, 2)
    too_near = PosedMesh(TRIANGLE * [1, 1, 0.005], FACE, 3)
    empty = PosedMesh(np.zeros((0, 3)), np.zeros((0, 3), int), 4)
    unused = PosedMesh(-TRIANGLE, np.zeros((0, 3), int), 4)
    rendering = render([beside, too_near, empty, unused, PosedMesh(TRIANGLE, FACE, 5)], K, SIZE)
    np.testing.assert_array_equal(rendering.visible_fraction, [0, 0, 0, 0, 1])
    assert not rendering.amodal[:4].any() and set(np.unique(rendering.labels)) == {0, 5}
    check_counts(rendering)


def test_the_first_of_equally_deep_meshes_is_seen_and_a_nearer_one_hides_both():
    twins = [PosedMesh(TRIANGLE, FACE, 9), PosedMesh(TRIANGLE, FACE[:, ::-1], 8)]
    np.testing.assert_array_equal(render(twins, K, SIZE).visible_fraction, [1, 0])
    np.testing.assert_array_equal(render(twins[::-1], K, SIZE).part, render(twins, K, SIZE).part)
    cover = PosedMesh(TRIANGLE * 0.5, FACE, 0)  # the same silhouette at half the distance; label 0 hides
    hidden = render([*twins, cover], K, SIZE)
    np.testing.assert_array_equal(hidden.visible_fraction, [0, 0, 1])
    assert not hidden.labels.any() and hidden.amodal.all(axis=0).any()


def test_a_label_on_a_box_is_seen_where_it_is_lifted_by_a_tenth_of_a_millimetre():
    """Planes at any angle, half a metre away: coplanar faces with other corners may win or lose, lifted ones win."""
    camera, size, rng = intrinsics(617.0, (640, 480)), (640, 480), np.random.default_rng(6)
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    coplanar = []
    for _ in range(12):
        R = rodrigues(rng.normal(size=3) * [0.8, 0.8, 3.0])
        box, label = (half * square @ R.T + [0.01, 0.02, 0.5] for half in (0.08, 0.03))
        toward = -R[:, 2] if R[:, 2] @ box.mean(axis=0) > 0 else R[:, 2]
        for lift in (0, 1e-4):
            seen = render([PosedMesh(box, faces, 1), PosedMesh(label + lift * toward, faces, 2)], camera, size)
            if lift:
                assert seen.visible_fraction[1] == 1
            else:
                coplanar.append(seen.visible_fraction[1])
    assert 0.05 < np.mean(coplanar) < 0.95


def test_same_bytes_again_and_in_threads():
    meshes = [PosedMesh(*random_soup(k), k + 1) for k in range(3)]

    def everything(_: int) -> list[bytes]:
        rendering = render(meshes, K, SIZE)
        return [getattr(rendering, name).tobytes() for name in Rendering.__annotations__]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(everything, range(40)))
    assert all(result == results[0] for result in results)


def test_read_only_and_strided_inputs_give_the_same_without_compiling_again():
    vertices, faces = random_soup(1)
    expected = render([PosedMesh(vertices, faces, 1)], K, SIZE)
    compiled = len(zbuffer.draw.signatures)
    odd = [np.asfortranarray(vertices), faces.astype(np.uint16)[:, ::-1], K.copy()]
    for array in odd:
        array.setflags(write=False)
    rendering = render([PosedMesh(odd[0], odd[1], 1)], odd[2], SIZE)
    np.testing.assert_array_equal(rendering.labels, expected.labels)
    assert len(zbuffer.draw.signatures) == compiled


NAN = np.where(np.arange(9).reshape(3, 3) == 4, np.nan, TRIANGLE)


@pytest.mark.parametrize(
    ("vertices", "faces", "label", "words"),
    [
        (NAN, FACE, 2, r"mesh 1 \(label 2\): vertices hold nan or infinity, first in row 1"),
        (TRIANGLE * [1, 1, np.inf], FACE, 2, "nan or infinity"),
        (TRIANGLE, FACE + 1, 2, r"vertices 1\.\.3, there are 3"),
        (TRIANGLE, FACE - 1, 2, r"vertices -1\.\.1"),
        (TRIANGLE, FACE + 2**32, 2, "there are 3"),
        (np.zeros((0, 3)), FACE, 2, "there are 0"),
        (TRIANGLE, FACE.astype(float), 2, "integers"),
        (TRIANGLE[:, :2], FACE, 2, r"\[V, 3\]"),
        (TRIANGLE, FACE[:, :2], 2, r"\[F, 3\]"),
        (TRIANGLE, FACE, 256, "0..255"),
        (TRIANGLE, FACE, -1, "0..255"),
        (flip_opengl(TRIANGLE), FACE, 2, "wholly behind the camera: z is -1.000 to -1.000 m.*flip_opengl"),
        (TRIANGLE * [1, 1, 0], FACE, 2, "wholly behind"),
    ],
)
def test_a_wrong_mesh_is_named(vertices, faces, label, words):
    with pytest.raises(ValueError, match=words):
        render([PosedMesh(TRIANGLE, FACE, 1), PosedMesh(vertices, faces, label)], K, SIZE)


@pytest.mark.parametrize(
    ("camera", "size", "near", "words"),
    [
        (np.zeros((3, 3)), SIZE, 0.01, "focal lengths K.0, 0. = 0.0 and K.1, 1. = 0.0 must be positive"),
        (np.diag([-35.0, 35, 1]), SIZE, 0.01, "focal lengths"),
        (K * np.nan, SIZE, 0.01, "finite"),
        (K[:2], SIZE, 0.01, "3x3"),
        (K.T, SIZE, 0.01, "upper triangular"),
        (K, (0, 30), 0.01, "size"),
        (K, (40, 10**6), 0.01, "size"),
        (K, SIZE, 0.0, "near"),
        (K, SIZE, np.nan, "near"),
    ],
)
def test_a_wrong_camera_is_named(camera, size, near, words):
    with pytest.raises(ValueError, match=words):
        render([PosedMesh(TRIANGLE, FACE, 1)], camera, size, near=near)


def test_importing_the_package_is_cheap_and_compiles_nothing():
    code = """
import sys, hodata.pose
assert not {"numba", "scipy", "trimesh"} & set(sys.modules)
import hodata.pose.render as module, hodata.pose.zbuffer as kernels
compiled = [f for m in (module, kernels) for f in vars(m).values() if getattr(f, "signatures", None)]
assert kernels.draw.signatures == [] and compiled == [], compiled
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
