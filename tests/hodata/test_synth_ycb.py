"""The stand-in YCB meshes: closed, of about the real sizes, not centred, the same in file and picture."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from hodata.synth import native_ycb
from hodata.synth.lofts import closest_on_triangle
from hodata.synth.ycb_shapes import EXTENTS, LABELS, stand_in


@pytest.mark.parametrize("name", EXTENTS)
def test_mesh_file(name, tmp_path):
    native_ycb.write(name, tmp_path, 0)
    folder = tmp_path / "models" / name
    lines = (folder / "textured_simple.obj").read_text().splitlines()
    v, vt, vn = (
        np.array([[float(w) for w in x.split()[1:]] for x in lines if x.startswith(k + " ")]) for k in ("v", "vt", "vn")
    )
    faces = np.array([[[int(n) for n in w.split("/")] for w in x.split()[1:]] for x in lines if x.startswith("f ")]) - 1
    assert faces.shape[1:] == (3, 3) and 1500 < len(faces) < 20000
    assert faces.min() == 0 and [faces[..., k].max() + 1 for k in range(3)] == [len(v), len(vt), len(vn)]
    np.testing.assert_allclose(v.max(axis=0) - v.min(axis=0), EXTENTS[name], atol=1e-6)
    assert np.abs(v.mean(axis=0)).max() > 0.005, "not centred, as the real ones"
    assert vt.min() >= 0 and vt.max() <= 1
    mesh = trimesh.Trimesh(v, faces[..., 0], process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert mesh.area_faces.min() > 1e-8  # a hundredth of a square millimetre
    np.testing.assert_allclose(np.linalg.norm(vn, axis=1), 1, atol=2e-4)
    assert (vn[faces[..., 2]] * mesh.face_normals[:, None]).sum(axis=2).min() > 0.3
    points = np.loadtxt(folder / "points.xyz")
    assert cKDTree(v).query(points)[0].max() < 1e-6
    np.testing.assert_allclose(stand_in(name).surface.vertices, v, atol=1e-7)
    drawn = stand_in(name).solid.mesh
    np.testing.assert_array_equal(drawn.vertices[drawn.faces], stand_in(name).surface.vertices[faces[..., 0]])


@pytest.mark.parametrize("name", ["004_sugar_box", "011_banana", "010_potted_meat_can"])
def test_distance_to_a_skin(name):
    stand = stand_in(name)
    mesh = trimesh.Trimesh(stand.surface.vertices, stand.surface.faces, process=False)
    rng = np.random.default_rng(3)
    points = np.concatenate(
        [rng.uniform(mesh.bounds[0] - 0.05, mesh.bounds[1] + 0.05, (150, 3)), mesh.vertices[::40] * 1.01]
    )
    _, wanted, _ = trimesh.proximity.closest_point_naive(mesh, points)
    distance = stand.skin.distance(points)
    np.testing.assert_allclose(np.abs(distance), wanted, atol=6e-4)
    sure = wanted > 1e-4
    np.testing.assert_array_equal((distance < 0)[sure], mesh.contains(points)[sure])
    assert stand.skin.gap(points) == pytest.approx(wanted.min(), abs=6e-4)


def test_closest_point_on_a_triangle():
    rng = np.random.default_rng(5)
    triangles, points = rng.normal(size=(400, 3, 3)), 2 * rng.normal(size=(400, 3))
    wanted = trimesh.triangles.closest_point(triangles, points)
    found = [np.array(closest_on_triangle(p, *t)) @ t for p, t in zip(points, triangles, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_names():
    assert set(LABELS) == set(EXTENTS) == set(native_ycb.plan(1, 0)) and len(EXTENTS) == 10
    with pytest.raises(ValueError, match="024_bowl"):
        stand_in("024_bowl")
