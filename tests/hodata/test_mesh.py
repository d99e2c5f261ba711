"""Meshes as they are shipped, and distances to their surfaces."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import trimesh

from hodata.errors import SourceError
from hodata.pose import contact
from hodata.pose.camera import intrinsics
from hodata.pose.contact import SPACING, surface_of
from hodata.pose.mesh import Mesh, read_mesh
from hodata.pose.render import PosedMesh, render
from hodata.synth.hand_model import hand_model

OBJ = """# three kinds of corners, as in textured_simple.obj
mtllib textured_simple.obj.mtl
usemtl material_0
v 0.01 0.02 0.03
v 0.11 0.02 0.03
v 0.01 0.12 0.03
v 0.11 0.12 0.04
vt 0 0
vt 1 0
vt 0 1
vn 0 0 1
f 1/1/1 2/2/1 3/3/1
usemtl material_1
f 2/2 4/3 3/1
"""


def brute_force(points: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Distance of each point to the nearest of all triangles, by minimising over a fine barycentric grid."""
    i, j = np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 41), indexing="ij")
    inside = i + j <= 1 + 1e-9
    weights = np.stack([i[inside], j[inside], 1 - i[inside] - j[inside]], axis=1)
    samples = np.einsum("wk,fkx->fwx", weights, mesh.vertices[mesh.faces]).reshape(-1, 3)
    return np.array([np.linalg.norm(samples - point, axis=1).min() for point in points])


def test_an_obj_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "textured_simple.obj"
    path.write_text(OBJ)
    mesh = read_mesh(path)
    assert len(mesh.faces) == 2 and len(mesh.sha256) == 64
    corners = {tuple(map(tuple, triangle.tolist())) for triangle in mesh.vertices[mesh.faces]}
    assert ((0.01, 0.02, 0.03), (0.11, 0.02, 0.03), (0.01, 0.12, 0.03)) in corners
    assert ((0.11, 0.02, 0.03), (0.11, 0.12, 0.04), (0.01, 0.12, 0.03)) in corners
    np.testing.assert_allclose(mesh.bounds, [[0.01, 0.02, 0.03], [0.11, 0.12, 0.04]])
    moved = mesh.moved(np.diag([1, -1, -1]), [0, 0, 1])
    np.testing.assert_allclose(moved, mesh.vertices * [1, -1, -1] + [0, 0, 1])


def test_vertices_of_an_obj_are_those_of_the_file_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "two materials.obj"
    path.write_text(OBJ)
    mesh = read_mesh(str(path))
    np.testing.assert_array_equal(
        mesh.vertices, [[0.01, 0.02, 0.03], [0.11, 0.02, 0.03], [0.01, 0.12, 0.03], [0.11, 0.12, 0.04]]
    )
    assert mesh.faces.tolist() == [[0, 1, 2], [1, 3, 2]]
    assert mesh.sha256 == hashlib.sha256(OBJ.encode()).hexdigest()


def test_ways_to_write_an_obj(tmp_path: Path) -> None:
    path = tmp_path / "m.obj"
    path.write_bytes(
        b"#v 9 9 9\r\no thing\r\n  v 0 0 0 1.0\r\nv\t1 0 0 0.5 0.5 0.5\r\nv 1e0 1 0 # a corner\r\nv 0 1 0\r\n"
        b"vn 0 0 1\r\n"
        b"f 1//1 \\\r\n2//1 3//1\r\nf 1 3/2 4 # the other half\r\nl 1 2"
    )
    mesh = read_mesh(path)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_an_obj_equals_what_trimesh_reads_of_triangles(tmp_path: Path) -> None:
    """Outside oracle: the triangles as points in space, whatever their vertices are numbered."""
    rng = np.random.default_rng(8)
    vertices, faces = rng.normal(size=(200, 3)), rng.integers(1, 201, (500, 3))
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}\nvt {x:.3f} 0.5" for x, y, z in vertices]
    lines += ["usemtl a", *(f"f {a}/{b} {b}/{c} {c}/{a}" for a, b, c in faces[:250])]
    lines += ["usemtl b", *(f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in faces[250:])]
    (tmp_path / "m.obj").write_text("\n".join(lines))
    mesh, found = read_mesh(tmp_path / "m.obj"), trimesh.load_mesh(tmp_path / "m.obj", process=False)
    assert len(mesh.vertices) == 200 < len(found.vertices)
    ours, theirs = mesh.vertices[mesh.faces].reshape(-1, 9), np.asarray(found.triangles).reshape(-1, 9)
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_corners_on_a_straight_edge_are_no_dents(tmp_path: Path) -> None:
    """Files round to micrometres, and a fan's sliver there may point anywhere."""
    rng = np.random.default_rng(3)
    for number in range(40):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        square = 0.05 * np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]) @ turn.T
        corners = np.insert(square, 1 + number % 4, (square + np.roll(square, -1, 0))[number % 4] / 2, axis=0)
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in corners]
        (tmp_path / f"{number}.obj").write_text("\n".join([*lines, "f 1 2 3 4 5", "f 1 2"]) + "\n")
        assert len(read_mesh(tmp_path / f"{number}.obj").faces) == 3  # a line is no face


def test_polygons_are_fans_and_concave_ones_are_refused(tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = "".join(f"v {np.cos(a):.6f} {np.sin(a):.6f} 0.5\n" for a in angles)
    (tmp_path / "octagon.obj").write_text(ring + "f 1 2 3 4 5 6 7 8\n")
    octagon = read_mesh(tmp_path / "octagon.obj")
    assert octagon.faces.tolist() == [[0, k, k + 1] for k in range(1, 7)]
    areas = np.linalg.norm(
        np.cross(*(octagon.vertices[octagon.faces][:, k] - octagon.vertices[0] for k in (1, 2))), axis=1
    )
    assert areas.sum() / 2 == pytest.approx(8 * 0.5 * np.sin(np.pi / 4), abs=1e-5)
    # An L: round its inner corner it is a fan, round the end of one of its arms it is not.
    corners = "v 0 0 0\nv 2 0 0\nv 2 1 0\nv 1 1 0\nv 1 2 0\nv 0 2 0\n"
    (tmp_path / "fan.obj").write_text(corners + "f 4 5 6 1 2 3\n")
    assert len(read_mesh(tmp_path / "fan.obj").faces) == 4
    (tmp_path / "concave.obj").write_text(corners + "f 1 2 3\nf 2 3 4 5 6 1\n")
    with pytest.raises(SourceError, match=r"concave\.obj: its face 2 has 6 corners and is concave.*triangulate"):
        read_mesh(tmp_path / "concave.obj")


@pytest.mark.parametrize(("line", "named"), [("f -3 -2 -1", -3), ("f 0 1 2", 0), ("f 1/1 2/2 -1/-1", -1)])
def test_numbers_of_vertices_that_do_not_count_from_1_are_refused(tmp_path: Path, line: str, named: int) -> None:
    (tmp_path / "m.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 0 1\nf 1 2 3\n{line}\n")
    with pytest.raises(
        SourceError, match=rf"m\.obj: its faces name vertex {named}; write it with vertices that count from 1"
    ):
        read_mesh(tmp_path / "m.obj")


@pytest.mark.parametrize("suffix", ["obj", "ply"])
def test_a_mesh_that_was_read_cannot_be_written_into(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    trimesh.creation.box().export(path)
    for array in (read_mesh(path).vertices, read_mesh(path).faces):
        with pytest.raises(ValueError, match="read-only"):
            array[:] *= 2
    # Drawing and measuring take them as they are.
    mesh = read_mesh(path)
    there = PosedMesh(mesh.moved(np.eye(3), [0, 0, 3]), mesh.faces, 1)
    assert render([there], intrinsics(20.0, (30, 30)), (30, 30)).areas[0] > 20
    assert surface_of(mesh).nearest([[0, 0, 0.75]]) == pytest.approx(0.25)


def test_files_that_are_no_mesh_are_named(tmp_path: Path) -> None:
    for name, content in {
        "empty.obj": "",
        "points.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\n",
        "nan.obj": "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "beyond.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
        "text.ply": "not a mesh",
        "line.obj": "v 0 0 0\nv 1 0 0\nf 1 2\n",
        "flat.obj": "v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n",
        "word.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 x\n",
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(SourceError, match=name):
            read_mesh(tmp_path / name)
    with pytest.raises(SourceError, match="cannot be read"):
        read_mesh(tmp_path / "missing.obj")
    with pytest.raises(SourceError, match="known kind"):
        read_mesh(tmp_path / "mesh.blend")


def test_a_mesh_file_opens_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "m.obj").write_text(OBJ.replace("textured_simple.obj.mtl", "../../etc/passwd"))
    assert len(read_mesh(tmp_path / "m.obj").faces) == 2


def test_distances_equal_a_slow_search() -> None:
    rng = np.random.default_rng(3)
    vertices = rng.uniform(-0.05, 0.05, (30, 3))
    faces = rng.permutation(30).reshape(10, 3)
    mesh = Mesh(vertices, faces.astype(np.int32))
    points = rng.uniform(-0.1, 0.1, (60, 3))
    slow, surface = brute_force(points, mesh), surface_of(mesh)
    fast = surface.distances(points)
    assert (fast <= slow + 1e-9).all() or (fast - slow).max() < SPACING
    assert (slow - fast).max() < 0.002, "a grid point of the slow search lies within 2 mm"
    assert surface.nearest(points) == pytest.approx(slow.min(), abs=SPACING)


def test_meshes_of_too_many_faces_are_sampled_as_well_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    # A thousand faces of a millimetre, and one of half a metre beside them.
    small = rng.uniform(-0.05, 0.05, (1000, 1, 3)) + rng.uniform(-0.0005, 0.0005, (1000, 3, 3))
    large = np.array([[[0.2, 0, 0], [0.7, 0, 0], [0.2, 0.5, 0]]])
    mesh = Mesh(np.concatenate([small, large]).reshape(-1, 3), np.arange(3003, dtype=np.int32).reshape(-1, 3))
    points = rng.uniform([-0.1, -0.1, 0.01], [0.5, 0.3, 0.1], (50, 3))
    slow = brute_force(points, mesh)
    for most in (10, 3002, 10**6):
        monkeypatch.setattr(contact, "MAX_SAMPLES", most)
        surface = surface_of(mesh)
        assert len(surface.sample_faces) <= max(most, 6 * 1001)
        assert surface.spacing == SPACING if most == 10**6 else SPACING < surface.spacing < 0.03
        assert surface.distances(points) == pytest.approx(slow, abs=surface.spacing)
        assert surface.nearest(points) == pytest.approx(slow.min(), abs=surface.spacing)
        assert surface.nearest([[0.35, 0.15, 0.06]]) == pytest.approx(0.06, abs=1e-9), "the large face has samples"


@pytest.mark.parametrize("away", [0.0, 0.004, 0.015, 0.05, 0.15, 0.9])
def test_nearest_is_the_smallest_distance_at_any_range(away: float) -> None:
    hand = hand_model("right").vertices
    box = Mesh(
        np.array([[x, y, z] for x in (0, 0.1) for y in (-0.2, 0.2) for z in (-0.2, 0.2)]),
        np.array([[0, 1, 3], [0, 3, 2], [4, 5, 7], [4, 7, 6]], dtype=np.int32),
    )
    surface = surface_of(box)
    moved = hand - [hand[:, 0].max() + away, 0, 0]
    assert surface.nearest(moved) == pytest.approx(away, abs=1e-9)
    assert surface.nearest(moved) == pytest.approx(surface.distances(moved).min(), abs=1e-12)


def test_the_authors_key_points_lie_on_the_meshes(samples: Path) -> None:
    found = 0
    for path in sorted((samples / "ho3d_object_keypoints").glob("*.npy")):
        model = samples / "ycb/models" / path.stem / "textured_simple.obj"
        if not model.exists():
            continue
        keypoints = np.load(path)
        mesh = read_mesh(model)
        distances = surface_of(mesh).distances(keypoints)
        assert distances.max() < 0.003, path.stem
        assert distances.max() <= brute_force(keypoints, mesh).max() + SPACING
        flipped = surface_of(mesh).distances(keypoints * [1, -1, -1])
        assert flipped.max() > 0.003, "the other reading of the axes is told apart"
        found += 1
    assert found >= 5
