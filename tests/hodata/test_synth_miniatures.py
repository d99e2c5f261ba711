"""Miniatures: native layouts as shipped, the same bytes from any number of workers, never against their own truth."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat
from scipy.ndimage import binary_dilation, maximum_filter, minimum_filter

from hodata.errors import HodataError
from hodata.labels import LABELS, MEANINGS, Label
from hodata.lock import only_one
from hodata.pose.camera import project
from hodata.pose.mano import TIPS_FREIHAND, load_mano
from hodata.sources import egohands
from hodata.synth import miniatures, native_egohands
from hodata.synth.miniatures import write_miniatures

SOURCES = ("freihand", "egohos", "egohands", "mano")  # HO-3D has a file of its own


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("miniatures")
    calls: list[tuple[int, int]] = []
    report = write_miniatures(out, SOURCES, frames=24, seed=3, workers=2, progress=lambda *c: calls.append(c))
    assert sorted(report) == sorted(SOURCES)
    assert calls[-1][0] == calls[-1][1] == sum(r["pictures"] for r in report.values())
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    for name in SOURCES:
        images = [p for p in (out / name).rglob("*") if p.suffix == ".jpg" and "mask" not in p.parts]
        assert len(images) == report[name]["pictures"]
        for image in images:
            assert (out / name / "truth" / image.relative_to(out / name)).with_suffix(".png").is_file()
    return out


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def contradictions(stored: np.ndarray, truth: np.ndarray, meaning: str) -> np.ndarray:
    """bool [H, W]: where the meaning forbids the truth, more than 2 pixels from any border in the truth."""
    allowed = np.zeros((256, 256), dtype=bool)
    for s in LABELS:
        for t in LABELS:
            allowed[s, t] = MEANINGS[meaning].allows(s, t)
    inner = maximum_filter(truth, 5) == minimum_filter(truth, 5)
    return ~allowed[stored, truth] & inner


def digest(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


def test_the_same_bytes_from_any_number_of_workers(root, tmp_path):
    write_miniatures(tmp_path, SOURCES, frames=24, seed=3, workers=1)
    assert digest(tmp_path) == digest(root)
    other = tmp_path / "other"
    write_miniatures(other, ["freihand"], frames=24, seed=4)
    assert digest(other / "freihand") != digest(root / "freihand")


def test_freihand_layout(root):
    base = root / "freihand"
    tables = {p.stem: json.loads(p.read_text()) for p in base.glob("*_*.json")}
    masks = sorted((base / "training" / "mask").iterdir())
    count = len(masks)
    ids = sorted(int(p.stem) for p in (base / "training" / "rgb").iterdir())
    assert [int(p.stem) for p in masks] == list(range(count))
    assert ids == sorted(b + 32560 * v for b in range(count) for v in range(4))
    assert all(re.fullmatch(r"\d{8}", p.stem) for p in masks)
    for subset, rows in (("training", count), ("evaluation", len(list((base / "evaluation" / "rgb").iterdir())))):
        for table in ("K", "xyz", "verts", "mano", "scale"):
            assert len(tables[f"{subset}_{table}"]) == rows
    model = load_mano(root / "mano" / "models" / "MANO_RIGHT.pkl")
    astray = 0.0
    for row in range(count):
        K, xyz = np.array(tables["training_K"][row]), np.array(tables["training_xyz"][row])
        verts, mano = np.array(tables["training_verts"][row]), np.array(tables["training_mano"][row])
        assert K.shape == (3, 3) and xyz.shape == (21, 3) and verts.shape == (778, 3) and mano.shape == (1, 61)
        assert tables["training_scale"][row] == pytest.approx(np.linalg.norm(xyz[9] - xyz[10]))
        # As FreiHAND's viewer does: root joint from the last three numbers, pose relative to the mean.
        focal, (u, v), scale = 0.5 * (K[0, 0] + K[1, 1]), mano[0, 58:60], mano[0, 60]
        np.testing.assert_allclose(np.array([u - K[0, 2], v - K[1, 2], focal]) / scale, xyz[9], atol=1e-6)
        posed = model.pose(mano[0, :48], mano[0, 48:58], flat_hand_mean=False)
        # Their joints are regressed from the posed vertices; those of the chain lie elsewhere.
        regressed = replace(posed, joints=(model.J_regressor @ posed.vertices[0])[None])
        theirs, chain = (model.keypoints(p, TIPS_FREIHAND)[0] for p in (regressed, posed))
        move = xyz[9] - theirs[9]
        np.testing.assert_allclose(posed.vertices[0] + move, verts, atol=1e-5)
        np.testing.assert_allclose(theirs + move, xyz, atol=1e-5)
        astray = max(astray, float(np.linalg.norm(chain + move - xyz, axis=1).max()))
        mask = read(masks[row])
        assert mask.shape == (224, 224, 3) and 0 < (mask[..., 0] >= 128).mean() < 0.6
        seen = project(verts, K)
        inside = (seen > 1).all(axis=1) & (seen < 222).all(axis=1)
        hit = mask[seen[inside, 1].round().astype(int), seen[inside, 0].round().astype(int), 0] >= 128
        assert hit.mean() > 0.35  # the rest hides behind the held thing
    assert astray > 0.002
    poses = np.array([row[0][3:58] for row in tables["training_mano"]])
    assert len(np.unique(poses, axis=0)) == (count + 1) // 2, "two views share the pose of an instant"


def test_freihand_masks_do_not_contradict_the_truth(root):
    base = root / "freihand"
    for path in sorted((base / "training" / "mask").iterdir()):
        stored = np.where(read(path)[..., 0] >= 128, np.uint8(Label.RIGHT_HAND), np.uint8(0))
        for version in range(4):
            number = int(path.stem) + 32560 * version
            truth = read(base / "truth" / "training" / "rgb" / f"{number:08d}.png")
            assert not contradictions(stored, truth, "hand-wrist").any()
    for path in (base / "evaluation" / "segmap").iterdir():
        parts = read(path)
        truth = read(base / "truth" / "evaluation" / "rgb" / path.name)
        assert parts.ndim == 2 and parts.max() <= 16
        np.testing.assert_array_equal(parts > 0, truth == Label.RIGHT_HAND)


def test_egohos_layout_and_truth(root):
    base = root / "egohos"
    videos: dict[str, set[str]] = {}
    seen, touched = set(), 0
    for subset in ("train", "val", "test_indomain", "test_outdomain"):
        stems = sorted(p.stem for p in (base / subset / "image").glob("*.jpg"))
        assert stems
        for kind in ("label", "contact"):
            assert sorted(p.stem for p in (base / subset / kind).glob("*.png")) == stems
        for stem in stems:
            video, frame = stem.rsplit("_", 1)
            assert frame.isdigit() and (video.startswith("youtube_") == (subset == "test_outdomain"))
            videos.setdefault(video, set()).add(subset)
            label = read(base / subset / "label" / f"{stem}.png")
            truth = read(base / "truth" / subset / "image" / f"{stem}.png")
            assert label.dtype == np.uint8 and label.ndim == 2 and label.max() <= 8
            assert label.shape == read(base / subset / "image" / f"{stem}.jpg").shape[:2]
            assert not contradictions(label, truth, "egohos").any()
            contact = read(base / subset / "contact" / f"{stem}.png")
            touched = max(touched, int(contact.max()))
            hands, things = np.isin(label, (1, 2)), np.isin(label, (3, 4, 5))
            for _ in range(int(label.shape[1] / 456)):
                hands, things = (binary_dilation(part, np.ones((5, 5))) for part in (hands, things))
            np.testing.assert_array_equal(contact, hands & things)
            seen |= set(np.unique(label).tolist())
    assert len(videos) >= 16
    assert any(len(subsets) > 1 for subsets in videos.values()), "videos leak over the official splits, as they do"
    assert {0, 1, 2, 3, 4, 5} <= seen and touched == 1, "contacts are 1, not 255"


def paint(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Even-odd fill at pixel centres of a 1-based polygon, inside its box."""
    inside = np.zeros(shape, dtype=bool)
    if polygon.size < 6:
        return inside
    p = polygon - 1
    x0, y0 = np.maximum(np.floor(p.min(axis=0)).astype(int), 0)
    x1, y1 = np.ceil(p.max(axis=0)).astype(int) + 1
    y, x = np.mgrid[y0 : min(y1, shape[0]), x0 : min(x1, shape[1])]
    part = np.zeros(y.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(p, np.roll(p, -1, axis=0), strict=True):
        if ay != by:
            part ^= ((ay <= y) != (by <= y)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    inside[y0 : min(y1, shape[0]), x0 : min(x1, shape[1])] = part
    return inside


def test_default_egohands_has_every_video_of_the_real_one():
    """Each of four people plays each of four games once at each of three places; the official splits are among them."""
    jobs = native_egohands.plan(600, 0)
    names = {"_".join(words) for words, _ in jobs}
    assert {len(frames) for _, frames in jobs} == {5}
    seats = {(game, place, viewer) for (game, place, viewer, _), _ in jobs}
    assert len(jobs) == len(names) == len(seats) == 4 * 3 * 4
    assert all(f"{game}_{place}_{partner}_{viewer}" in names for (game, place, viewer, partner), _ in jobs)
    assert names > egohands._TEST | egohands._VALID


def test_egohands_layout_and_truth(root):
    base = root / "egohands"
    videos = sorted(p for p in (base / "_LABELLED_SAMPLES").iterdir())
    meta = loadmat(base / "metadata.mat")["video"]
    assert meta.shape == (1, len(videos)) and len(videos) >= 8
    games = {tuple(sorted(v.name.split("_")[2:])) + tuple(v.name.split("_")[:2]) for v in videos}
    assert len(games) == len(videos) // 2, "both players' views of every game"
    official = {"CARDS_COURTYARD_B_T", "CARDS_OFFICE_S_B", "CHESS_COURTYARD_B_T", "CHESS_LIVINGROOM_T_H"}
    official |= {"JENGA_LIVINGROOM_S_T", "JENGA_OFFICE_H_T", "PUZZLE_COURTYARD_H_T", "PUZZLE_LIVINGROOM_T_B"}
    assert official & {v.name for v in videos}
    both = 0
    for k, video in enumerate(videos):
        frames = sorted(video.glob("frame_*.jpg"))
        polygons = loadmat(video / "polygons.mat")["polygons"]
        entry = meta[0, k]
        assert entry["video_id"][0] == video.name
        activity, location, viewer, partner = video.name.split("_")
        assert entry["partner_video_id"][0] == f"{activity}_{location}_{partner}_{viewer}"
        assert polygons.shape == entry["labelled_frames"].shape == (1, len(frames))
        for n, frame in enumerate(frames):
            labelled = entry["labelled_frames"][0, n]
            assert int(labelled["frame_num"][0, 0]) == int(frame.stem[6:])
            truth = read(base / "truth" / frame.relative_to(base).with_suffix(".png"))
            assert read(frame).shape == (720, 1280, 3) and truth.shape == (720, 1280)
            stored = np.zeros_like(truth)
            for field, label in (
                ("yourleft", Label.LEFT_HAND), ("yourright", Label.RIGHT_HAND),
                ("myleft", Label.LEFT_HAND), ("myright", Label.RIGHT_HAND),
            ):  # fmt: skip
                polygon = polygons[0, n][field]
                np.testing.assert_array_equal(polygon, labelled[field])
                stored[paint(polygon, truth.shape)] = label
            both += any(polygons[0, n][f].size for f in ("yourleft", "yourright"))
            hands = np.isin(truth, (1, 2))
            assert not contradictions(stored, truth, "hand-wrist").any()
            assert (hands != np.isin(stored, (1, 2))).sum() <= 0.02 * hands.sum() + 5
    assert both >= len(videos) // 2


def test_foreign_folders_are_left_alone(tmp_path):
    precious = tmp_path / "egohos" / "train" / "image" / "a.jpg"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"real")
    with pytest.raises(HodataError, match="did not write"):
        write_miniatures(tmp_path, ["egohos"], frames=2)
    assert precious.read_bytes() == b"real" and [p.name for p in tmp_path.iterdir()] == ["egohos"]


def test_what_was_put_into_a_miniature_later_is_not_removed_with_it(tmp_path, monkeypatch):
    """Real data unpacked into, or over, a miniature: its marker no longer speaks for all that is there."""
    write_miniatures(tmp_path, ["mano"])
    models, drawn = tmp_path / "mano" / "models", digest(tmp_path)
    write_miniatures(tmp_path, ["mano"])  # as it was written: replaced
    assert digest(tmp_path) == drawn
    monkeypatch.setattr(miniatures, "_draw", lambda *_: pytest.fail("refused before anything is drawn"))

    def refused(message: str) -> None:
        before = digest(tmp_path)
        with pytest.raises(HodataError, match=message):
            write_miniatures(tmp_path, ["mano"])
        assert digest(tmp_path) == before

    (models / "SMPLH.pkl").write_bytes(b"real")
    refused(r"mano/models/SMPLH\.pkl is not as synth wrote it")
    (models / "SMPLH.pkl").unlink()
    (models / "webuser").symlink_to(tmp_path)
    refused("mano/models/webuser is not as synth wrote it")
    (models / "webuser").unlink()
    with (models / "MANO_LEFT.pkl").open("ab") as file:
        file.write(b"real")
    refused(r"mano/models/MANO_LEFT\.pkl is not as synth wrote it")
    marker = tmp_path / "mano" / "SYNTHETIC.json"
    facts = json.loads(marker.read_text())
    for damaged in ("", "[]", json.dumps({**facts, "files": 3}), json.dumps({"source": "mano"})):
        marker.write_text(damaged)
        refused(r"SYNTHETIC\.json does not list what synth wrote")


def test_what_is_unpacked_while_it_draws_is_not_removed(tmp_path, monkeypatch):
    write_miniatures(tmp_path, ["mano"])
    draw = miniatures._draw

    def unpacking(*arguments):
        (tmp_path / "mano" / "real.pkl").write_bytes(b"real")
        return draw(*arguments)

    monkeypatch.setattr(miniatures, "_draw", unpacking)
    with pytest.raises(HodataError, match=r"mano/real\.pkl is not as synth wrote it"):
        write_miniatures(tmp_path, ["mano"])
    assert (tmp_path / "mano" / "real.pkl").exists() and [p.name for p in tmp_path.iterdir()] == ["mano"]


def test_places_that_cannot_be_written_are_named_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(miniatures, "_draw", lambda *_: pytest.fail("refused before anything is drawn"))
    file = tmp_path / "file"
    file.write_bytes(b"")
    for out, message in ((file, "file is a file"), (file / "raw", r"cannot write to .*/raw .*nothing was replaced")):
        with pytest.raises(HodataError, match=message):
            write_miniatures(out, ["mano"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mano").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HodataError, match="out/mano is a link"):
        write_miniatures(tmp_path / "out", ["mano"])
    with (
        only_one(tmp_path / "out" / ".synth.lock", HodataError("busy")),
        pytest.raises(HodataError, match="another run is writing to"),
    ):
        write_miniatures(tmp_path / "out", ["ycb"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mano"]


def test_a_disk_that_fails_at_the_end_is_told_as_it_is(tmp_path, monkeypatch):
    """Of two miniatures the first is in its place when the second cannot be put there: the old one comes back."""
    for name in ("mano", "ycb"):
        write_miniatures(tmp_path, [name], seed=1)
    before = digest(tmp_path)
    rename, rmtree = Path.rename, shutil.rmtree

    def failing(self: Path, target: Path) -> Path:
        if self.name == ".ycb.partial":
            raise OSError(5, "Input/output error", str(self))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(HodataError, match=r"Input/output error.*; only mano is new there$"):
            write_miniatures(tmp_path, ["mano", "ycb"], seed=2)
    after = digest(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"mano/SYNTHETIC.json"}
    assert after.keys() == before.keys()

    def kept(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(13, "Permission denied", str(path))
        rmtree(path, ignore_errors=True)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kept)
        with pytest.raises(HodataError, match=r"only mano is new there; remove \S+/\.mano\.old$"):
            write_miniatures(tmp_path, ["mano"], seed=3)
    assert json.loads((tmp_path / "mano" / "SYNTHETIC.json").read_text())["seed"] == 3
    write_miniatures(tmp_path, ["mano"], seed=3)
    assert not (tmp_path / ".mano.old").exists()


@pytest.mark.parametrize(
    ("source", "most"), [("freihand", 144_711), ("egohands", 324_000), ("ho3d", 167_000), ("ho3d_v2", 167_000)]
)
def test_more_pictures_than_file_names_are_refused(source, most):
    """Real numbering ends somewhere; beyond it one picture would take another one's name."""
    writer = miniatures._writer(source)
    jobs = writer.plan(most, 0)
    if source.startswith("ho3d"):
        assert max(number for job in jobs for number, _ in job.frames) <= 9999
    if source == "freihand":
        assert max(first + count for subset, first, count in jobs if subset == "training") <= 32560
    with pytest.raises(HodataError, match=r"synth: \S+ has room for at most [\d,]+ .*--frames"):
        writer.plan(most + 1000, 0)


def test_a_failure_leaves_nothing_half_made_and_a_rerun_replaces(tmp_path, monkeypatch):
    from hodata.synth import native_freihand

    write_miniatures(tmp_path, ["freihand"], frames=8, seed=1)
    before = digest(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(native_freihand, "write_jpeg", fail)
        with pytest.raises(HodataError, match="No space left"):
            write_miniatures(tmp_path, ["freihand"], frames=8, seed=2)
    assert digest(tmp_path) == before
    write_miniatures(tmp_path, ["freihand"], frames=8, seed=2)
    assert digest(tmp_path) != before


@pytest.mark.parametrize(("sources", "frames"), [(["moon"], 5), (["freihand"], 0)])
def test_wrong_requests_are_named(tmp_path, sources, frames):
    with pytest.raises(HodataError, match="synth"):
        write_miniatures(tmp_path, sources, frames=frames)
