"""Miniature HO-3D: read with its authors' formulas it must agree with its own pictures, depth and truth."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial.transform import Rotation

from hodata.labels import LABELS, MEANINGS, Label
from hodata.pose.mano import ManoModel, load_mano
from hodata.pose.rasterize import Raster, label_map, rasterize
from hodata.synth import native_mano, native_ycb
from hodata.synth.hand_model import hand_model
from hodata.synth.ho3d_sequences import CAMERAS, SEQUENCES, plan_sequences
from hodata.synth.miniatures import write_miniatures
from hodata.synth.native_ho3d import V3
from hodata.synth.ycb_shapes import EXTENTS

FRAMES, SEED = 16, 5
FLIP = np.array([1.0, -1.0, -1.0])
SCALE = 0.00012498664727900177
# What a reader of downloaded annotations may admit: FORMATS of MANO and HO-3D.
ADMITTED = {
    "_codecs.encode", "numpy.ndarray", "numpy.dtype", "builtins.set",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
}  # fmt: skip
TRAIN = {
    "handPose": (48,), "handBeta": (10,), "handTrans": (3,), "handJoints3D": (21, 3), "camMat": (3, 3),
    "objRot": (3, 1), "objTrans": (3,), "objCorners3D": (8, 3), "objCorners3DRest": (8, 3),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("ho3d")
    report = write_miniatures(out, ["ho3d", "ho3d_v2"], frames=FRAMES, seed=SEED, workers=2)
    for name, suffix in (("ho3d", ".jpg"), ("ho3d_v2", ".png")):
        pictures = pictures_of(out / name)
        assert len(pictures) == report[name]["pictures"] == FRAMES
        assert {p.suffix for p in pictures} == {suffix}
        for p in pictures:
            assert (out / name / "truth" / p.relative_to(out / name)).with_suffix(".png").is_file()
    return out


@pytest.fixture(scope="module")
def meshes(tmp_path_factory) -> dict[str, trimesh.Trimesh]:
    out = tmp_path_factory.mktemp("ycb")
    for name in EXTENTS:
        native_ycb.write(name, out, 0)
    return {
        name: trimesh.load(out / "models" / name / "textured_simple.obj", process=False, force="mesh")
        for name in EXTENTS
    }


@pytest.fixture(scope="module")
def mano(tmp_path_factory) -> ManoModel:
    out = tmp_path_factory.mktemp("mano")
    native_mano.write("right", out, 0)
    return load_mano(out / "models" / "MANO_RIGHT.pkl")


def pictures_of(base: Path) -> list[Path]:
    return sorted(p for subset in ("train", "evaluation") for p in (base / subset).glob("*/rgb/*"))


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


class Reader(pickle.Unpickler):
    """The standard unpickler, which writes down the names that it is asked for."""

    names: set[str]

    def find_class(self, module: str, name: str) -> Any:
        Reader.names.add(f"{module}.{name}")
        return super().find_class(module, name)


def load(path: Path) -> dict[str, Any]:
    Reader.names = set()
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core
        return Reader(file, encoding="latin1").load()


def annotated(base: Path, subset: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(sequence, frame, annotation) of the listed frames that have one."""
    found = []
    for line in (base / f"{subset}.txt").read_text().split():
        sequence, frame = line.split("/")
        path = base / subset / sequence / "meta" / f"{frame}.pkl"
        if path.is_file() and (meta := load(path))["objRot"] is not None:
            found.append((sequence, frame, meta))
    return found


def drawn(
    meta: dict[str, Any], vertices: np.ndarray, mesh: trimesh.Trimesh, size=(640, 480)
) -> tuple[Raster, np.ndarray]:
    """Hand (vertices in the OpenGL frame) and object alone, by HO-3D's own formulas: (raster, 1 hand 2 object)."""
    thing = mesh.vertices @ Rotation.from_rotvec(np.ravel(meta["objRot"])).as_matrix().T + np.ravel(meta["objTrans"])
    faces = hand_model("right").faces
    K = np.array(meta["camMat"], dtype=np.float64)
    if size != (640, 480):
        K[:2, 2] += 0.5
        K[:2] *= size[0] / 640
        K[:2, 2] -= 0.5
    every = np.concatenate([vertices, thing]) * FLIP
    raster = rasterize(every, np.concatenate([faces, mesh.faces + len(vertices)]), K, size)
    return raster, label_map(raster.face, np.repeat([1, 2], [len(faces), len(mesh.faces)]))


def hand_of(meta: dict[str, Any], mano: ManoModel) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and 21 joints in the OpenGL frame, from pose, shape and translation."""
    posed = mano.pose(meta["handPose"], meta["handBeta"], meta["handTrans"])
    vertices = posed.vertices[0]
    return vertices, np.concatenate([posed.joints[0], vertices[[744, 333, 444, 555, 672]]])


def test_the_same_bytes_from_any_process(root, tmp_path):
    jobs = plan_sequences(FRAMES, SEED)
    for number in (4, 0):
        V3.write(jobs[number], tmp_path, SEED)
    made = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(made) > 20
    for path in made:
        assert path.read_bytes() == (root / "ho3d" / path.relative_to(tmp_path)).read_bytes(), path


@pytest.mark.parametrize("name", ["ho3d", "ho3d_v2"])
def test_the_tree(root, name):
    base = root / name
    for subset in ("train", "evaluation"):
        lines = (base / f"{subset}.txt").read_text().split("\n")
        assert lines.pop() == "" and all(re.fullmatch(r"[A-Za-z]+\d+/\d{4}", line) for line in lines)
        listed, there = set(lines), {f"{p.parent.parent.name}/{p.stem}" for p in pictures_of(base) if subset in p.parts}
        with_meta = {f"{p.parent.parent.name}/{p.stem}" for p in base.glob(f"{subset}/*/meta/*.pkl")}
        with_depth = {f"{p.parent.parent.name}/{p.stem}" for p in base.glob(f"{subset}/*/depth/*.png")}
        full = {f"{sequence}/{frame}" for sequence, frame, _ in annotated(base, subset)}
        assert listed <= there == with_depth and with_meta <= there
        if subset == "train":  # one of each kind of flaw
            assert (len(there - listed), len(listed - with_meta), len((listed & with_meta) - full)) == (1, 1, 1)
        else:
            assert there == listed == full
        suffix = ".png" if name == "ho3d" else ".jpg"
        segmented = {f"{p.parent.parent.name}/{p.stem}" for p in base.glob(f"{subset}/*/seg/*{suffix}")}
        assert segmented == (full if name == "ho3d_v2" or subset == "train" else set())
    assert (base / "calibration").exists() == (name == "ho3d")
    assert (base / "evaluation_xyz.json").exists() == (base / "evaluation_verts.json").exists() == (name == "ho3d")
    split = {p.parent.parent.parent.name: p.parent.parent.name for p in pictures_of(base)}
    assert set(split) == {"train", "evaluation"}
    both = [{s.recording for s in SEQUENCES[:8] if s.subset == subset} for subset in split]
    assert both[0] & both[1] == {"SB1"}, "the leak of the official split"
    for path in pictures_of(base):
        assert read(path).shape == (480, 640, 3)


@pytest.mark.parametrize("name", ["ho3d", "ho3d_v2"])
def test_annotations_have_the_real_keys_and_several_types(root, name):
    contact = {
        "handVertContact": (778,),
        "handVertDist": (778,),
        "handVertIntersec": (778,),
        "handVertObjSurfProj": (778, 3),
    }
    kinds: dict[str, set[str]] = {}
    protocols = set()
    for subset in ("train", "evaluation"):
        for sequence, frame, meta in annotated(root / name, subset):
            assert Reader.names <= ADMITTED
            data = (root / name / subset / sequence / "meta" / f"{frame}.pkl").read_bytes()
            protocols.add((data[1], b"_codecs" in data))
            shapes = dict(TRAIN)
            if subset == "evaluation":
                shapes = {k: v for k, v in TRAIN.items() if k.startswith(("obj", "cam"))}
                assert meta.pop("handJoints3D").shape == (3,) and len(meta.pop("handBoundingBox")) == 4
            else:
                assert [int(c) for c in meta.pop("camIDList")] == list(CAMERAS.get(sequence[:-1], (0,)))
                shapes |= contact if name == "ho3d" else {}
            assert set(meta) == {*shapes, "objName", "objLabel"}
            for key, shape in shapes.items():
                assert isinstance(meta[key], np.ndarray) and meta[key].shape == shape, key
            assert type(meta["objName"]) is str
            for key, value in meta.items():
                kinds.setdefault(key, set()).add(str(getattr(value, "dtype", type(value).__name__)))
    assert {protocol for protocol, _ in protocols} == {2, 3, 4}
    assert {coded for protocol, coded in protocols if protocol == 2} == {False, True}, "of Python 2, and of Python 3"
    assert kinds["objTrans"] == kinds["camMat"] == {"float32", "float64"}
    assert kinds["objLabel"] == {"int", "int64"}


@pytest.mark.parametrize("name", ["ho3d", "ho3d_v2"])
def test_the_authors_reader_takes_every_annotation(root, meshes, name):
    """By the formulas of vis_HO3D.py, which calls methods of arrays and joins names as text: no lists, no bytes."""

    def project_3d(cam_mat, points):
        points = points.dot(np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]).T)
        proj = points.dot(cam_mat.T)
        return np.stack([proj[:, 0] / proj[:, 2], proj[:, 1] / proj[:, 2]], axis=1)

    for subset in ("train", "evaluation"):
        for _, _, anno in annotated(root / name, subset):
            mesh = meshes[(Path("models") / anno["objName"]).name]
            vertices = np.matmul(mesh.vertices, Rotation.from_rotvec(anno["objRot"].squeeze()).as_matrix().T)
            vertices += anno["objTrans"]
            corners = project_3d(anno["camMat"], anno["objCorners3D"])
            assert (np.ptp(project_3d(anno["camMat"], vertices), axis=0) <= np.ptp(corners, axis=0) + 1).all()
            joints = anno["handJoints3D"]
            pixels = project_3d(anno["camMat"], joints if subset == "train" else np.expand_dims(joints, 0))
            assert pixels.shape == (21 if subset == "train" else 1, 2)
            if subset == "evaluation":
                x0, y0, x1, y1 = anno["handBoundingBox"]
                assert x0 - 60 < pixels[0, 0] < x1 + 60 and y0 - 60 < pixels[0, 1] < y1 + 60


def test_hands_and_objects_lie_where_the_picture_shows_them(root, meshes, mano):
    """LBS, the mesh file, both flips and camMat, against truth, depth, segmentation and the stored joints."""
    base, meaning = root / "ho3d", MEANINGS["hand-object-wrist"]
    allowed = np.array([[meaning.allows(s, t) for t in LABELS] for s in LABELS])
    place = np.zeros(256, dtype=int)
    place[[int(x) for x in LABELS]] = range(len(LABELS))
    held = set()
    for sequence, frame, meta in annotated(base, "train"):
        mesh = meshes[np.array(meta["objName"]).astype(str).item()]
        vertices, joints = hand_of(meta, mano)
        np.testing.assert_allclose(joints, meta["handJoints3D"], atol=2e-6)
        corners = np.asarray(meta["objCorners3DRest"])
        np.testing.assert_allclose(corners.min(axis=0), mesh.bounds[0], atol=1e-6)
        np.testing.assert_allclose(corners.max(axis=0), mesh.bounds[1], atol=1e-6)
        R = Rotation.from_rotvec(np.ravel(meta["objRot"])).as_matrix()
        np.testing.assert_allclose(corners @ R.T + np.ravel(meta["objTrans"]), meta["objCorners3D"], atol=1e-6)
        raster, pair = drawn(meta, vertices, mesh)
        truth = read(base / "truth" / "train" / sequence / "rgb" / f"{frame}.png")
        (thing,) = set(np.unique(truth)) & {Label.OBJECT, Label.OBJECT_RIGHT}
        held.add(thing)
        inner = maximum_filter(truth, 5) == minimum_filter(truth, 5)
        stored = np.array([0, Label.RIGHT_HAND, thing], dtype=np.uint8)[pair]
        assert not (~allowed[place[stored], place[truth]] & inner).any()
        assert ((truth == Label.RIGHT_HAND) != (pair == 1)).mean() < 2e-4
        rows, columns = np.nonzero(truth == Label.RIGHT_HAND)
        assert 70 < max(np.ptp(columns), np.ptp(rows)) < 260 and len(rows) > 1000
        picture = read(base / "train" / sequence / "depth" / f"{frame}.png").astype(np.float64)
        depth = (picture[..., 0] + 256 * picture[..., 1]) * SCALE
        seen = (pair > 0) & (stored == truth)
        error = np.abs(depth - raster.depth)[seen]  # larger only where a float32 annotation meets a grazing face
        assert np.percentile(error, 99.5) < 0.51 * SCALE + 2e-5 and error.max() < 2e-3
        seg = read(base / "train" / sequence / "seg" / f"{frame}.png")
        assert set(map(tuple, seg.reshape(-1, 3))) == {(0, 0, 0), (0, 0, 255), (0, 255, 0)}
        np.testing.assert_array_equal(
            drawn(meta, vertices, mesh, (160, 120))[1], (seg[..., 2] > 0) + 2 * (seg[..., 1] > 0)
        )
        large = np.kron((seg[..., 2] > 0) + 2 * (seg[..., 1] > 0), np.ones((4, 4), dtype=int))
        for part in (1, 2):
            assert ((large == part) & (pair == part)).sum() / ((large == part) | (pair == part)).sum() > 0.85
    assert Label.OBJECT_RIGHT in held


def test_misread_poses_put_the_hand_elsewhere(root, mano):
    """As with real files: hands that are turned about the origin, centred at the wrist, or flipped by their pose."""
    for _, _, meta in annotated(root / "ho3d", "train")[::4]:
        pose, betas, moved = (np.asarray(meta[name], float) for name in ("handPose", "handBeta", "handTrans"))
        stored = np.asarray(meta["handJoints3D"])[:16]
        turn = Rotation.from_rotvec(pose[:3]).as_matrix()
        flat = np.concatenate([np.zeros(3), pose[3:]])
        about_origin = mano.pose(flat, betas).joints[0] @ turn.T + moved
        centred = mano.pose(pose, betas).joints[0]
        centred = centred - centred[0] + moved
        flipped = np.concatenate([Rotation.from_matrix(np.diag(FLIP) @ turn).as_rotvec(), pose[3:]])
        by_pose = mano.pose(flipped, betas, moved * FLIP).joints[0] * FLIP
        assert np.linalg.norm(mano.pose(pose, betas, moved).joints[0] - stored, axis=1).max() < 1e-5
        for wrong in (about_origin, centred, by_pose):
            assert np.linalg.norm(wrong - stored, axis=1).min() > 0.015


def test_contacts_agree_with_trimesh(root, meshes, mano):
    deepest, touching = [], 0
    for _, _, meta in annotated(root / "ho3d", "train")[::3]:
        mesh = meshes[np.array(meta["objName"]).astype(str).item()]
        R, t = Rotation.from_rotvec(np.ravel(meta["objRot"])).as_matrix(), np.ravel(meta["objTrans"])
        vertices = hand_of(meta, mano)[0]
        pick = np.argsort(meta["handVertDist"])[::25]
        _, wanted, _ = trimesh.proximity.closest_point_naive(mesh, (vertices[pick] - t) @ R)
        np.testing.assert_allclose(meta["handVertDist"][pick], wanted, atol=6e-4)
        reach = np.linalg.norm(meta["handVertObjSurfProj"] - vertices, axis=1)
        np.testing.assert_allclose(reach, meta["handVertDist"], atol=1e-6)
        np.testing.assert_array_equal(
            meta["handVertContact"], meta["handVertIntersec"] | (meta["handVertDist"] < 0.004)
        )
        touching += meta["handVertContact"].sum() > 5
        deepest.append((meta["handVertDist"] * meta["handVertIntersec"]).max())
    assert touching >= 2 and max(deepest) < 0.009, "the flesh gives way by less than 9 mm"


def test_evaluation_tells_the_root_and_the_ground_truth_the_rest(root, meshes):
    base = root / "ho3d"
    xyz, verts = (np.array(json.loads((base / f"evaluation_{name}.json").read_text())) for name in ("xyz", "verts"))
    frames = annotated(base, "evaluation")
    assert xyz.shape == (len(frames), 21, 3) and verts.shape == (len(frames), 778, 3)
    for (sequence, frame, meta), joints, vertices in zip(frames, xyz, verts, strict=True):
        np.testing.assert_allclose(joints[0], np.ravel(meta["handJoints3D"]), atol=1e-6)
        np.testing.assert_allclose(joints[16:], vertices[[744, 333, 444, 555, 672]], atol=1e-7)
        truth = read(base / "truth" / "evaluation" / sequence / "rgb" / f"{frame}.png")
        pair = drawn(meta, vertices, meshes[np.array(meta["objName"]).astype(str).item()])[1]
        assert ((truth == Label.RIGHT_HAND) != (pair == 1)).mean() < 2e-4
        x0, y0, x1, y1 = meta["handBoundingBox"]
        rows, columns = np.nonzero(truth == Label.RIGHT_HAND)
        assert x0 <= columns.min() and columns.max() <= x1 and y0 <= rows.min() and rows.max() <= y1


def test_calibration_puts_all_cameras_into_one_frame(root):
    base = root / "ho3d"
    frames = {(s, f): m for s, f, m in annotated(base, "train")}
    folders = sorted(p.parent for p in base.glob("calibration/*/calibration/cam_orders.txt"))
    assert [f.parent.name for f in folders] == ["ABF1", "AP1", "GPMF1", "SB1"]
    places = {}
    for folder in folders:
        recording = folder.parent.name
        order = np.loadtxt(folder / "cam_orders.txt").astype("uint8").tolist()
        assert sorted(order) == list(CAMERAS[recording]) != order, "file numbers are not camera digits"
        for i, digit in enumerate(order):
            T = np.loadtxt(folder / f"trans_{i}.txt")
            np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
            assert float((folder / f"cam_{i}_depth_scale.txt").read_text()) == SCALE
            line = (folder / f"cam_{i}_intrinsics.txt").read_text()
            fx, fy, ppx, ppy = (float(word.split(":")[1]) for word in line.split(","))
            for (sequence, frame), meta in frames.items():
                if sequence == f"{recording}{digit}":
                    K = [[fx, 0, ppx], [0, fy, ppy], [0, 0, 1]]
                    np.testing.assert_allclose(meta["camMat"], K, rtol=1e-6)
                    joints = np.asarray(meta["handJoints3D"]) * FLIP @ T[:3, :3].T + T[:3, 3]
                    places.setdefault((recording, frame), []).append(joints)
    shared = [found for found in places.values() if len(found) > 1]
    assert shared, "ABF10 and ABF13 show the same instants"
    for first, second in shared:
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_subject_has_the_same_hands_in_every_recording(root):
    betas: dict[str, list[np.ndarray]] = {}
    for sequence, _, meta in annotated(root / "ho3d", "train"):
        (subject,) = {s.subject for s in SEQUENCES if s.name == sequence}
        betas.setdefault(subject, []).append(meta["handBeta"])
    for found in betas.values():
        np.testing.assert_allclose(found, np.tile(found[0], (len(found), 1)), atol=1e-6)
    assert len(np.unique(np.round([found[0] for found in betas.values()], 4), axis=0)) == len(betas) > 2


def test_both_versions_show_the_same_instants_in_their_own_colours(root):
    for path in pictures_of(root / "ho3d"):
        other = root / "ho3d_v2" / path.relative_to(root / "ho3d").with_suffix(".png")
        assert np.abs(read(path).astype(int) - read(other)).mean() < 4  # JPEG
        depth = path.parent.parent / "depth" / f"{path.stem}.png"
        np.testing.assert_array_equal(read(depth), read(root / "ho3d_v2" / depth.relative_to(root / "ho3d")))
    for path in (root / "ho3d").glob("train/*/seg/*.png"):
        new = read(path)
        old = read(root / "ho3d_v2" / path.relative_to(root / "ho3d").with_suffix(".jpg")).astype(int)
        hand, thing = new[..., 2] > 128, new[..., 1] > 128
        assert (old[..., 0] > 128)[hand].mean() > 0.8 and (old[..., 2] > 128)[thing].mean() > 0.8


def test_default_size_has_many_sequences_of_both_subsets():
    jobs = plan_sequences(600, 0)
    assert len(jobs) == 33 and sum(len(job.frames) for job in jobs) == 600
    assert sum(len(job.frames) for job in jobs if job.sequence.subset == "evaluation") == 108
    recordings = {(job.sequence.subset, job.sequence.recording) for job in jobs}
    assert [sum(subset == name for subset, _ in recordings) for name in ("train", "evaluation")] == [23, 4]
    assert {job.sequence.thing for job in jobs} >= set(list(EXTENTS)[:4])
    assert len({s.name for s in SEQUENCES}) == len(SEQUENCES) and all(
        s.camera in CAMERAS.get(s.recording, (0,)) for s in SEQUENCES
    )
    states = {state for job in jobs for _, state in job.frames}
    assert states == {"annotated", "none", "missing", "unlisted"}
