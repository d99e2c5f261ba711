"""HO-3D: masks rendered from poses against the miniature's full truth, and everything that can be wrong in a tree."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hodata.build import BuildOptions, build
from hodata.cli import cli
from hodata.errors import HodataError, SampleError, SourceError
from hodata.labels import MEANINGS, TASKS, Label, task_table
from hodata.pose.camera import OPENCV_FROM_OPENGL, transform
from hodata.pose.safe_pickle import load_pickle
from hodata.report import worst_rows
from hodata.sample import Record, Sample
from hodata.shards.reader import ShardIndex
from hodata.sources.ho3d import HO3D
from hodata.sources.ho3d_checks import SEG_COLORS, SegColors, seg_iou
from hodata.sources.ho3d_frame import frame_of, posed_from_mano
from hodata.sources.ho3d_layout import mesh_path, sequence_of
from hodata.sources.ho3d_meta import read_meta, require_size_of_camera
from hodata.splits import assign_splits
from hodata.synth.miniatures import write_miniatures

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@dataclass(frozen=True)
class Trees:
    """Miniatures: HO-3D v3 and v2, MANO and YCB stand-ins."""

    root: Path

    @property
    def models(self) -> dict[str, Path]:
        return {"mano": self.root / "mano", "ycb": self.root / "ycb"}

    def source(self, version: str = "v3", root: Path | None = None, **options: Any) -> HO3D:
        folder = root or self.root / ("ho3d" if version == "v3" else "ho3d_v2")
        return HO3D(folder, **{**self.models, **options})

    def copy(self, to: Path, version: str = "v3") -> Path:
        """A tree that a test may damage."""
        return shutil.copytree(self.root / ("ho3d" if version == "v3" else "ho3d_v2"), to)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    out = tmp_path_factory.mktemp("miniatures")
    write_miniatures(out, ("ho3d", "ho3d_v2", "mano", "ycb"), frames=24)
    return Trees(out)


def loaded(source: HO3D) -> list[tuple[Record, Sample]]:
    """Every sample that is annotated."""
    source.prepare()
    records = source.scan().records
    source.probe(records)
    found = []
    for record in records:
        try:
            found.append((record, source.load(record)))
        except SampleError as error:
            assert "without annotation" in str(error)
    return found


def truth_of(source: HO3D, record: Record) -> np.ndarray:
    return np.asarray(Image.open((source.root / "truth" / record.image).with_suffix(".png")))


def edit(root: Path, change: Callable[[dict[str, Any]], None], only: str = "*") -> None:
    """Change the meta files of the training set."""
    for path in (root / "train").glob(f"{only}/meta/*.pkl"):
        meta = load_pickle(path.read_bytes(), path.name)
        if meta.get("objRot") is not None:
            change(meta)
            path.write_bytes(pickle.dumps(meta, 2))


def test_detect_tells_the_version_and_what_is_missing(trees: Trees, tmp_path: Path) -> None:
    assert (trees.source("v2").version, trees.source("v3").version) == ("v2", "v3")
    assert trees.source("v2").default_name == "ho3d_v2"
    assert not HO3D.detect(trees.root / "ycb").matched
    (tmp_path / "train/ABF10/rgb").mkdir(parents=True)
    assert "meta" in HO3D.detect(tmp_path).reason
    with pytest.raises(SourceError, match="is not HO-3D"):
        HO3D(tmp_path)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_no_pixel_contradicts_the_truth_and_hardly_any_is_lost(trees: Trees, version: str) -> None:
    source = trees.source(version)
    drawn, whole = dict.fromkeys("ho", 0), dict.fromkeys("ho", 0)
    for record, sample in loaded(source):
        truth, meaning = truth_of(source, record), MEANINGS[sample.meaning]
        pairs = np.unique(np.stack([sample.mask.ravel(), truth.ravel()]), axis=1, return_counts=True)
        for (stored, true), count in zip(pairs[0].T, pairs[1], strict=True):
            allowed = meaning.allows(Label(stored), Label(true))
            # The picture's hand and the posed model are the same mesh: a pixel may differ by rounding alone.
            assert allowed or count <= 4, (record.image, Label(stored), Label(true), int(count))
        if sample.meaning == "hand-object-wrist":
            for name, labels in (("h", [Label.RIGHT_HAND]), ("o", [Label.OBJECT_RIGHT, Label.OBJECT])):
                drawn[name] += int(np.isin(sample.mask, labels).sum())
                whole[name] += int(np.isin(truth, labels).sum())
    assert drawn["o"] / whole["o"] > 0.999
    assert 0.75 < drawn["h"] / whole["h"] < 1, "only the band at the wrist is left open"


def test_without_the_band_the_masks_are_the_truth(trees: Trees) -> None:
    source = trees.source("v3", wrist_void="off")
    for record, sample in loaded(source):
        truth = truth_of(source, record)
        hand = truth == Label.RIGHT_HAND
        assert not (sample.mask == Label.VOID).any()
        differ = int(((sample.mask == Label.RIGHT_HAND) & (truth == Label.BACKGROUND)).sum())
        assert differ <= 4 and int((hand & (sample.mask != Label.RIGHT_HAND)).sum()) <= 4, record.image


def test_evaluation_without_hand_poses_teaches_no_finger_as_object(trees: Trees) -> None:
    samples = [(r, s) for r, s in loaded(trees.source("v2")) if r.subset == "evaluation"]
    assert samples
    meaning = MEANINGS["object-amodal"]
    assert not meaning.scored
    table = task_table(meaning, TASKS["hand-object"])
    assert table[Label.OBJECT_RIGHT] == 0b110, "hand or object"
    assert table[Label.OBJECT] == 0b100
    for record, sample in samples:
        assert sample.meaning == "object-amodal" and not sample.hands
        truth = truth_of(trees.source("v2"), record)
        assert not ((truth == Label.RIGHT_HAND) & (sample.mask == Label.OBJECT)).any(), record.image


def test_splits_follow_recordings_and_list_what_they_leave_out(trees: Trees, tmp_path: Path) -> None:
    report = build(trees.source("v3"), tmp_path, BuildOptions("ho3d_v3"))
    index = ShardIndex.open(tmp_path)
    groups, splits = index.column("group"), index.column("split")
    assert not set(groups[splits == "train"]) & set(groups[splits == "test"])
    assert "ho3d/SB1" in set(groups[splits == "test"]), "SB11 is evaluation"
    assert any("ho3d/SB1 (train" in item.what for item in report.left_out_by_split), "SB10 trains nowhere"
    assert set(index.column("view")) == {"exo"}


def test_missing_and_empty_annotations_are_listed_and_never_fatal(trees: Trees, tmp_path: Path) -> None:
    root = trees.copy(tmp_path / "tree")
    metas = sorted((root / "train").glob("ABF10/meta/*.pkl"))
    metas[0].unlink()
    metas[1].write_bytes(pickle.dumps(dict.fromkeys(("objRot", "objTrans", "camMat", "handPose")), 2))
    report = build(trees.source(root=root), tmp_path / "out", BuildOptions("x"))
    reasons = {item.what: item.why for item in report.left_out}
    assert any(metas[0].stem in what and "without meta" in why for what, why in reasons.items())
    assert any(metas[1].stem in what and "without annotation" in why for what, why in reasons.items())
    with_limit = BuildOptions("y", on_error="skip", max_errors=0)
    assert build(trees.source(root=root), tmp_path / "out", with_limit).shards, "no error of the user's"


def test_a_partial_download_is_converted(trees: Trees, tmp_path: Path) -> None:
    root = trees.copy(tmp_path / "tree")
    shutil.rmtree(root / "evaluation")
    shutil.rmtree(root / "train/ABF10")
    for name in ("evaluation.txt", "train.txt", "evaluation_verts.json", "evaluation_xyz.json"):
        (root / name).unlink()
    scan = trees.source(root=root).scan()
    assert {record.sequence for record in scan.records} >= {"MC1", "ABF13"}
    assert any("no train.txt" in note for note in scan.notes)
    (root / "train.txt").write_text("ABF10/0000\nMC1/0000\n")
    scan = trees.source(root=root).scan()
    assert any(item.what == "train/ABF10" and "no such folder" in item.why for item in scan.left_out)


def test_json_fields_agree_with_each_other(trees: Trees) -> None:
    several: dict[str, list[np.ndarray]] = {}
    for record, sample in loaded(trees.source("v3")):
        hand, thing = sample.hands[0], sample.objects[0]
        K, points = np.array(sample.camera.K), np.array(hand.keypoints_m)
        projected = (points @ K.T)[:, :2] / points[:, 2:]
        np.testing.assert_allclose(projected, hand.keypoints_px, atol=0.01)
        assert len(hand.wrist_loop) == 16 and len(hand.in_front) == len(hand.valid) == 21
        assert any(hand.in_front)
        labels = [item.label for item in sample.instances]
        assert labels == [Label.RIGHT_HAND, Label.OBJECT_RIGHT if thing.held else Label.OBJECT]
        for item in sample.instances:
            pixels = sample.mask == item.label
            assert item.area == pixels.sum()
            rows, columns = np.nonzero(pixels)
            assert item.box == [columns.min(), rows.min(), columns.max(), rows.max()]
            assert 0 < item.visible_fraction <= 1
        assert "objRot" in sample.pose and (record.subset == "evaluation" or len(sample.pose["handPose"]) == 48)
        assert sample.quality["residual_joints_mm"] < 0.01
        assert sample.quality["residual_corners_mm"] < 0.5
        if record.camera and sample.camera.T_world_from_camera:
            world = transform(np.array(sample.camera.T_world_from_camera), points)
            several.setdefault(record.instant, []).append(world)
    views = [points for points in several.values() if len(points) > 1]
    for first, *others in views:
        for other in others:
            np.testing.assert_allclose(first, other, atol=2e-3)
    assert views, "cameras of one recording share their instants"


def test_amodal_silhouettes_hold_what_is_seen(trees: Trees) -> None:
    from pycocotools import mask as coco

    for _, sample in loaded(trees.source("v3"))[::3]:
        height, width = sample.mask.shape
        for item in sample.instances:
            whole = coco.decode({"size": [height, width], "counts": item.amodal_rle.encode()}).astype(bool)
            seen = sample.mask == item.label
            assert not (seen & ~whole).any()
            assert item.visible_fraction >= seen.sum() / whole.sum() - 5.0001e-5  # it has four decimals


def test_the_official_split_is_the_authors(trees: Trees) -> None:
    source = trees.source()
    records = source.scan().records
    plan = assign_splits(records, source.split_rules, "official")
    assert {(record.subset, plan.split_of[record.key]) for record in records} == {
        ("train", "train"),
        ("evaluation", "test"),
    }


def test_what_is_nearer_than_5_mm_or_touches_as_shipped_is_held(trees: Trees) -> None:
    """A thing is moved away from its hand by half millimetres, so the distances leave no wide gap."""
    source, distances = trees.source(), []
    record = next(record for record, _ in loaded(source) if record.subset == "train")
    meta = read_meta(source.root / record.extra["meta"], record.image)
    hand = posed_from_mano(source._models, meta)
    assert hand is not None and meta.corners is not None
    away = meta.corners.mean(0) - hand.vertices.mean(0)
    for step in np.arange(0, 0.1, 0.0005)[:, None] * away / np.linalg.norm(away):
        moved = replace(meta, t=meta.t + step, corners=meta.corners + step)
        frames = [
            frame_of(source._models, replace(moved, contact=contact), hand, record.image)
            for contact in (None, False, True)
        ]
        assert [frame.held for frame in frames] == [frames[0].distance_mm < 5] * 2 + [True]
        distances.append(frames[0].distance_mm)
    assert np.isin([4, 5], np.floor(distances)).all()


WRONG_READINGS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {}


def wrong(cause: str) -> Callable[[Callable[[dict[str, Any]], None]], None]:
    def note(change: Callable[[dict[str, Any]], None]) -> None:
        WRONG_READINGS[change.__name__] = change, cause

    return note


def _mean() -> np.ndarray:
    from hodata.synth.native_mano import model_fields

    return np.concatenate([np.zeros(3), model_fields("right")["hands_mean"]])


@wrong("mean pose was added to the poses once too often")
def mean_added_twice(meta: dict[str, Any]) -> None:
    meta["handPose"] = np.asarray(meta["handPose"], dtype=float).ravel() + _mean()


@wrong("relative to MANO's mean pose")
def mean_taken_away(meta: dict[str, Any]) -> None:
    meta["handPose"] = np.asarray(meta["handPose"], dtype=float).ravel() - _mean()


@wrong("OpenCV axes")
def flipped_joints(meta: dict[str, Any]) -> None:
    meta["handJoints3D"] = np.asarray(meta["handJoints3D"], dtype=float) @ OPENCV_FROM_OPENGL


@wrong("millimetres")
def joints_in_millimetres(meta: dict[str, Any]) -> None:
    meta["handJoints3D"] = np.asarray(meta["handJoints3D"], dtype=float) * 1000


@wrong("OpenCV axes")
def flipped_corners(meta: dict[str, Any]) -> None:
    meta["objCorners3D"] = np.asarray(meta["objCorners3D"], dtype=float) @ OPENCV_FROM_OPENGL


@pytest.mark.parametrize("name", WRONG_READINGS)
def test_a_wrong_reading_stops_the_build_with_its_cause(trees: Trees, tmp_path: Path, name: str) -> None:
    change, cause = WRONG_READINGS[name]
    root = trees.copy(tmp_path / "tree")
    shutil.rmtree(root / "evaluation")
    edit(root, change)
    with pytest.raises(SourceError, match=r"mm from the annotation in the median.*Likely cause: .*") as failure:
        build(trees.source(root=root), tmp_path / "out", BuildOptions("x"))
    assert cause in str(failure.value)
    assert not (tmp_path / "out").exists(), "nothing was written"


def without_proof(meta: dict[str, Any]) -> None:
    del meta["handJoints3D"], meta["objCorners3DRest"]


def wrist_alone(meta: dict[str, Any]) -> None:
    meta["handJoints3D"] = np.asarray(meta["handJoints3D"], dtype=float).reshape(21, 3)[0]


def test_frames_that_hold_no_proof_are_told_from_those_that_do(trees: Trees, tmp_path: Path) -> None:
    root = trees.copy(tmp_path / "tree")
    edit(root, without_proof, "GPMF10")
    edit(root, wrist_alone, "MC1")
    source = trees.source(root=root)
    notes = "\n".join(source.probe(source.scan().records))
    frames = {name: len(list((root / f"train/{name}/meta").glob("*.pkl"))) for name in ("GPMF10", "MC1")}
    assert re.search(r"probe of \d+ frames: hand joints 0\.00\d mm", notes), "the others are measured as before"
    unproved = {"GPMF10": 0, "MC1": 0}
    for record, sample in loaded(source):
        bare = record.sequence in unproved
        assert ("residual_joints_mm" in sample.quality) is not bare
        assert ("residual_corners_mm" in sample.quality) is (record.sequence != "GPMF10")
        assert sample.hands[0].definition == ("ho3d-posed" if bare else "ho3d")
        if bare:
            unproved[record.sequence] += 1
    assert all(0 < unproved[name] <= frames[name] for name in frames)
    assert f"{sum(unproved.values())} of the probed frames lack 21 joints in handJoints3D: nothing says" in notes
    assert f"{unproved['GPMF10']} of the probed frames lack objCorners3D and objCorners3DRest" in notes
    before, after = (
        {record.key: np.array(sample.hands[0].keypoints_m) for record, sample in loaded(each)}
        for each in (trees.source(), source)
    )
    assert before.keys() == after.keys()
    for key, points in before.items():
        np.testing.assert_allclose(after[key], points, atol=1e-5)


def test_a_wrist_alone_still_says_that_a_hand_is_elsewhere(trees: Trees, tmp_path: Path) -> None:
    root = trees.copy(tmp_path / "tree")
    edit(root, wrist_alone, "MC1")
    edit(root, far_off_hand, "MC1")
    with pytest.raises(SampleError, match=r"hand joints are 20\.0 mm from the annotation: is MANO_RIGHT"):
        build(trees.source(root=root), tmp_path / "out", BuildOptions("x"))


def moved_meshes(ycb: Path, to: Path, move: Callable[[np.ndarray], np.ndarray]) -> Path:
    for path in ycb.rglob("textured_simple.obj"):
        out = to / path.parent.name / path.name
        out.parent.mkdir(parents=True)
        lines = path.read_text().splitlines()
        places = [n for n, line in enumerate(lines) if line.startswith("v ")]
        vertices = move(np.array([lines[n].split()[1:4] for n in places], dtype=float))
        for n, vertex in zip(places, vertices, strict=True):
            lines[n] = "v " + " ".join(f"{value:.9f}" for value in vertex)
        out.write_text("\n".join(lines) + "\n")
    return to


@pytest.mark.parametrize(
    ("move", "cause"),
    [
        (lambda v: v - (v.min(axis=0) + v.max(axis=0)) / 2, "perhaps centred"),
        (lambda v: v[:, [0, 2, 1]], "axes are swapped"),
        (lambda v: 1000 * v, "other units"),
        (lambda v: v * [1.3, 1.1, 0.8], "another object"),
    ],
)
def test_changed_meshes_stop_the_build_with_their_cause(
    trees: Trees, tmp_path: Path, move: Callable[[np.ndarray], np.ndarray], cause: str
) -> None:
    ycb = moved_meshes(trees.root / "ycb", tmp_path / "ycb", move)
    with pytest.raises(SourceError, match=cause):
        build(trees.source(ycb=ycb), tmp_path / "out", BuildOptions("x"))


def test_models_that_are_missing_or_wrong_are_named(
    trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = trees.copy(tmp_path / "tree")
    with pytest.raises(SourceError, match=r"MANO_RIGHT\.pkl.*--mano"):
        HO3D(root, ycb=trees.models["ycb"])
    with pytest.raises(SourceError, match=r"YCB.*--ycb"):
        HO3D(root, mano=trees.models["mano"], ycb=tmp_path)
    left = tmp_path / "left/MANO_RIGHT.pkl"
    left.parent.mkdir()
    shutil.copy(trees.root / "mano/models/MANO_LEFT.pkl", left)
    with pytest.raises(SourceError, match="is the left hand, the right one is needed"):
        build(trees.source(root=root, mano=left), tmp_path / "out", BuildOptions("x"))


def zero_camera(meta: dict[str, Any]) -> None:
    meta["camMat"] = np.zeros((3, 3))


def nan_pose(meta: dict[str, Any]) -> None:
    meta["handPose"] = np.full(48, np.nan)


def behind_camera(meta: dict[str, Any]) -> None:
    for name in ("handTrans", "objTrans", "handJoints3D", "objCorners3D"):
        meta[name] = np.asarray(meta[name], dtype=float).reshape(-1, 3) + np.array([0, 0, 3.0])


def short_pose(meta: dict[str, Any]) -> None:
    meta["handPose"] = np.zeros(45)


def no_translation(meta: dict[str, Any]) -> None:
    del meta["handTrans"]


def unknown_object(meta: dict[str, Any]) -> None:
    meta["objName"] = "099_anvil"


def path_as_object(meta: dict[str, Any]) -> None:
    meta["objName"] = "../../../etc"


def far_off_thing(meta: dict[str, Any]) -> None:
    meta["objTrans"] = np.asarray(meta["objTrans"], dtype=float).ravel() + np.array([0, 0.03, 0])


def far_off_hand(meta: dict[str, Any]) -> None:
    meta["handTrans"] = np.asarray(meta["handTrans"], dtype=float).ravel() + np.array([0.02, 0, 0])


def another_size(meta: dict[str, Any]) -> None:
    meta["camMat"] = np.diag([0.5, 0.5, 1.0]) @ np.asarray(meta["camMat"], dtype=float)


BAD_FRAMES = {
    another_size: r"camMat is of a picture of about 3\d\dx2\d\d, this one is 640x480",
    zero_camera: "focal lengths",
    nan_pose: "nan",
    behind_camera: "behind the camera",
    short_pose: r"handPose has shape \(45,\), expected 48",
    no_translation: "without handBeta or handTrans",
    unknown_object: "099_anvil has no mesh",
    path_as_object: "is not one",
    far_off_thing: r"object corners are 30\.0 mm from the annotation",
    far_off_hand: r"20\.0 mm from the annotation",
}


@pytest.mark.parametrize("change", BAD_FRAMES, ids=lambda change: change.__name__)
def test_one_bad_frame_is_named_or_counted(
    trees: Trees, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    root = trees.copy(tmp_path / "tree")
    good = len(build(trees.source(root=root), tmp_path / "good", BuildOptions("x")).left_out)
    path = next(
        path
        for path in sorted((root / "train").glob("GPMF10/meta/*.pkl"))
        if load_pickle(path.read_bytes(), "m").get("objRot") is not None
    )
    meta = load_pickle(path.read_bytes(), path.name)
    change(meta)
    path.write_bytes(pickle.dumps(meta, 2))
    with pytest.raises(SampleError, match=BAD_FRAMES[change]) as failure:
        build(trees.source(root=root), tmp_path / "out", BuildOptions("x"))
    assert path.stem in str(failure.value)
    report = build(trees.source(root=root), tmp_path / "out", BuildOptions("x", on_error="skip"))
    assert len(report.left_out) == good + 1
    assert any(path.stem in item.what for item in report.left_out)


def as_lists_and_bytes(meta: dict[str, Any]) -> dict[str, Any]:
    numbers = {key: value.tolist() for key, value in meta.items() if isinstance(value, np.ndarray)}
    return meta | numbers | {"objName": meta["objName"].encode()}


def as_arrays_of_any_shape(meta: dict[str, Any]) -> dict[str, Any]:
    """Rows in place of columns, a root joint of (1, 3), names and labels as arrays without axes."""
    numbers = {key: np.asarray(meta[key])[None] for key in ("objTrans", "handTrans", "handPose") if key in meta}
    joints = np.asarray(meta["handJoints3D"])
    others = {"objName": np.array(meta["objName"]), "objLabel": np.array(meta["objLabel"])}
    return meta | numbers | others | {"objRot": meta["objRot"].ravel(), "handJoints3D": joints.reshape(-1, 3)}


@pytest.mark.parametrize("change", [as_lists_and_bytes, as_arrays_of_any_shape])
def test_annotations_in_other_forms_are_read_alike(
    trees: Trees, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Nobody has written down the types of the fields, and the miniatures have only those that the authors read."""
    read = 0
    for path in (path for tree in ("ho3d", "ho3d_v2") for path in (trees.root / tree).glob("*/*/meta/*.pkl")):
        shipped = load_pickle(path.read_bytes(), path.name)
        if shipped.get("objRot") is None:
            continue
        forged = tmp_path / "meta.pkl"
        forged.write_bytes(pickle.dumps(change(shipped), 4))
        ours, theirs = (asdict(read_meta(each, each.name)) for each in (path, forged))
        numbers, others = ours.pop("numbers"), theirs.pop("numbers")
        assert numbers.keys() == others.keys() and numbers["objName"] == others["objName"]
        for name, value in ours.items():
            np.testing.assert_array_equal(theirs[name], value)
        read += 1
    assert read > 20


def test_pictures_of_another_size_than_their_cameras_are_refused(trees: Trees) -> None:
    path = next((trees.root / "ho3d/train").glob("GPMF10/meta/*.pkl"))
    meta = replace(
        read_meta(path, path.name), K=np.array([[617.0, 0, 312], [0, 617, 241], [0, 0, 1]])
    )  # as HO-3D's own
    require_size_of_camera(meta, (640, 480), path.name)
    for size in ((800, 600), (720, 540), (576, 432), (544, 408), (320, 240), (640, 360)):
        with pytest.raises(SampleError, match=rf"camMat is of .* {size[0]}x{size[1]}: it was resized"):
            require_size_of_camera(meta, size, path.name)


def test_hostile_metas_are_refused_and_named(trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = trees.copy(tmp_path / "tree")
    listed = next(record for record in trees.source(root=root).scan().records if record.sequence == "GPMF10")
    (root / listed.extra["meta"]).write_bytes(b"cposix\nsystem\n(S'touch hodata_was_run'\ntR.")
    with pytest.raises(SampleError, match=r"GPMF10/meta/\d+\.pkl: names posix\.system"):
        build(trees.source(root=root), tmp_path / "out", BuildOptions("x"))
    assert not (tmp_path / "hodata_was_run").exists()


def test_evaluation_tables_of_another_version_are_refused(trees: Trees, tmp_path: Path) -> None:
    root = trees.copy(tmp_path / "tree")
    rows = json.loads((root / "evaluation_verts.json").read_text())
    (root / "evaluation_verts.json").write_text(json.dumps(rows[:-1]))
    with pytest.raises(SourceError, match=r"rows, evaluation\.txt lists"):
        trees.source(root=root).scan()
    shifted = rows[1:] + rows[:1]
    (root / "evaluation_verts.json").write_text(json.dumps(shifted))
    with pytest.raises(HodataError, match="mm from the annotation"):
        build(trees.source(root=root), tmp_path / "out", BuildOptions("x"))
    rows[0][5] = [float("nan")] * 3
    (root / "evaluation_verts.json").write_text(json.dumps(rows))
    with pytest.raises(SampleError, match="row 0 of the evaluation tables"):
        build(trees.source(root=root), tmp_path / "out", BuildOptions("x"))


def test_the_order_of_the_evaluation_points_is_found_out(trees: Trees, tmp_path: Path) -> None:
    from hodata.pose.mano import OPENPOSE

    root = trees.copy(tmp_path / "tree")
    path = root / "evaluation_xyz.json"
    path.write_text(json.dumps(np.array(json.loads(path.read_text()))[:, list(OPENPOSE)].tolist()))
    before, after = (
        {record.key: sample.hands for record, sample in loaded(source) if record.subset == "evaluation"}
        for source in (trees.source(), trees.source(root=root))
    )
    assert before == after


def test_colours_of_the_segmentation_are_measured_not_assumed(trees: Trees) -> None:
    for version, colors in (("v2", SEG_COLORS[0]), ("v3", SEG_COLORS[1])):
        source = trees.source(version)
        samples = loaded(source)
        assert source._seg_colors == colors
        quality = [sample.quality["iou_seg"] for _, sample in samples if "iou_seg" in sample.quality]
        assert quality and np.mean(quality) > 0.9 and min(quality) > 0.75, "160x120 pixels, lossy in v2"
    part = np.full((8, 8), -1, np.int16)
    part[:4, :4], part[4:, 4:] = 0, 1
    seg = np.zeros((4, 4, 3), np.uint8)
    seg[:2, :2, 2], seg[2:, 2:, 1] = 255, 255
    assert seg_iou(seg, part, SegColors(2, 1)) == 1
    assert seg_iou(seg, part, SegColors(0, 2)) == 0


def test_inspect_shows_the_worst_frames_first(trees: Trees, tmp_path: Path) -> None:
    root = trees.copy(tmp_path / "tree")
    source, worst = trees.source(root=root), {}
    annotated = [r for r, _ in loaded(source) if r.subset == "train" and r.recording != "SB1"]
    for millimetres, record in zip((3.0, 1.5), annotated[:2], strict=True):
        path = root / record.extra["meta"]
        meta = load_pickle(path.read_bytes(), path.name)
        meta["handTrans"] = np.asarray(meta["handTrans"], dtype=float).ravel() + np.array([millimetres / 1000, 0, 0])
        path.write_bytes(pickle.dumps(meta, 2))
        worst[f"ho3d_v3_{record.key}"] = millimetres
    build(trees.source(root=root), tmp_path / "out", BuildOptions("ho3d_v3"))
    index = ShardIndex.open(tmp_path / "out")
    rows, values = worst_rows(index, "joints", 2)
    assert index.column("key")[rows].tolist() == list(worst)
    np.testing.assert_allclose(values, list(worst.values()), atol=0.01)
    _, ious = worst_rows(index, "seg", 500)
    assert len(ious) and (np.diff(ious) >= 0).all() and -1 not in ious
    with pytest.raises(HodataError, match="no sample of this selection has iou_silhouette"):
        worst_rows(index, "silhouette", 5)
    sheet = tmp_path / "worst.png"
    arguments = ["inspect", str(tmp_path / "out"), "--worst", "2", "--by", "joints", "--sheet", str(sheet)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0 and done.output.index(next(iter(worst))) < done.output.index(list(worst)[1])
    assert Image.open(sheet).size[0] > 400
    assert CliRunner().invoke(cli, ["inspect", str(tmp_path / "out"), "--worst", "2"]).exit_code == 2


@pytest.mark.parametrize(
    ("name", "recording", "camera"),
    [("ABF12", "ABF1", "2"), ("SMu40", "SMu4", "0"), ("SMu1", "SMu1", ""), ("SB14", "SB1", "4"), ("SM2", "SM2", ""),
     ("MC6", "MC6", ""), ("SiBF10", "SiBF1", "0"), ("SiS1", "SiS1", ""), ("ND2", "ND2", ""), ("XY31", "XY3", "1")],
)  # fmt: skip
def test_recordings_and_cameras_from_names(name: str, recording: str, camera: str) -> None:
    found = sequence_of(name, frozenset({"XY3"}))
    assert (found.recording, found.camera) == (recording, camera)


def test_every_recording_of_several_cameras_is_known() -> None:
    """As the authors list them; any of these cameras may be in another split than its recording's others."""
    for recording in ("ABF1", "BB1", "GPMF1", "GSF1", "MDF1", "SB1", "ShSu1", "SiBF1", "SMu4", "MPM1", "AP1"):
        for camera in "01234":
            found = sequence_of(recording + camera, frozenset())
            assert (found.recording, found.camera) == (recording, camera)


def test_object_names_stay_inside_the_folder_of_meshes(tmp_path: Path) -> None:
    assert mesh_path(tmp_path, "003_cracker_box").parent.parent == tmp_path
    for name in ("..", "a/b", "/etc", "a..b", "", "a" * 99, "x\0y"):
        with pytest.raises(ValueError, match="is not one"):
            mesh_path(tmp_path, name)
