"""FreiHAND's rendered masks on the miniature: against its full truth, its own tables, and with every kind of damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools import mask as coco_mask

from hodata.build import BuildOptions, build
from hodata.cli import cli
from hodata.errors import SampleError, SourceError
from hodata.labels import ARMS, MEANINGS, OBJECTS, Label
from hodata.pose.camera import project
from hodata.sample import Record, Sample
from hodata.shards.reader import ShardIndex
from hodata.sources.freihand import BASES, FreiHand
from hodata.synth.hand_model import hand_model
from hodata.synth.miniatures import write_miniatures

MODES = ("shipped", "rendered", "agree")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniature FreiHAND (8 bases, 4 evaluation pictures) and stand-in MANO."""
    out = tmp_path_factory.mktemp("raw")
    write_miniatures(out, ("freihand", "mano"), frames=36, seed=5, workers=1)
    return out


@pytest.fixture
def broken(raw: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(raw, tmp_path / "raw"))


def opened(raw: Path, masks: str, wrist_void: str = "auto") -> FreiHand:
    source = FreiHand(raw / "freihand", masks=masks, mano=raw / "mano", wrist_void=wrist_void)

    source.prepare()
    return source


def loaded(raw: Path, masks: str, wrist_void: str = "off") -> list[tuple[Record, Sample, np.ndarray]]:
    """Record, sample and true labels of every base picture."""
    source = opened(raw, masks, wrist_void=wrist_void)
    found = []
    for record in source.scan().records:
        if record.extra["version"] == 0:
            truth = raw / "freihand/truth" / Path(record.image).with_suffix(".png")
            found.append((record, source.load(record), np.asarray(Image.open(truth))))
    return found


def edit(path: Path, change: Callable[[list[Any]], object]) -> None:
    """Change the rows of a table in place."""
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


# ---- the three kinds of masks ----


def test_rendered_hands_are_the_true_ones_where_nothing_covers_them(raw: Path) -> None:
    for record, sample, truth in loaded(raw, "rendered"):
        covered = np.isin(truth, [*OBJECTS, *ARMS])
        hand, true = sample.mask == Label.RIGHT_HAND, truth == Label.RIGHT_HAND
        assert (hand & true).sum() / ((hand | true) & ~covered).sum() > 0.97, record.image
        assert (sample.meaning, record.mask_origin) == ("hand-rendered", "rendered")


@pytest.mark.parametrize("masks", MODES)
def test_no_pixel_contradicts_the_truth(raw: Path, masks: str) -> None:
    """Rendered and agreeing masks say of no pixel what it is not; shipped ones only at their lossy outlines."""
    for record, sample, truth in loaded(raw, masks):
        meaning = MEANINGS[sample.meaning]
        wrong = sum(
            int(np.count_nonzero((sample.mask == stored) & (truth == true)))
            for stored in map(Label, np.unique(sample.mask))
            for true in map(Label, np.unique(truth))
            if stored is not Label.VOID and not meaning.allows(stored, true)
        )
        assert wrong <= (0.01 * np.count_nonzero(truth == Label.RIGHT_HAND) if masks == "shipped" else 0), record.image


def test_agree_is_void_exactly_where_the_two_differ(raw: Path) -> None:
    shipped, rendered = loaded(raw, "shipped"), loaded(raw, "rendered")
    voids = 0
    for (record, sample, _), (_, drawn, _), (_, both, _) in zip(shipped, rendered, loaded(raw, "agree"), strict=True):
        void = both.mask == Label.VOID
        np.testing.assert_array_equal(void, sample.mask != drawn.mask)
        np.testing.assert_array_equal(both.mask[~void], sample.mask[~void])
        assert both.meaning == "hand-wrist"
        voids += np.count_nonzero(void)
        iou = np.count_nonzero(sample.mask & drawn.mask) / np.count_nonzero(sample.mask | drawn.mask)
        for each in (sample, drawn, both):
            assert each.quality["iou_silhouette"] == pytest.approx(iou), record.image
    assert voids > 1000, "held objects are void"


@pytest.mark.parametrize("masks", ["rendered", "agree"])
def test_only_a_band_at_the_open_wrist_is_left_undecided(raw: Path, masks: str) -> None:
    banded = 0
    for (record, kept, _), (_, open_, _) in zip(loaded(raw, masks), loaded(raw, masks, "auto"), strict=True):
        band = kept.mask != open_.mask
        assert (open_.mask[band] == Label.VOID).all()
        banded += np.count_nonzero(band)
        loop = np.array(kept.hands[0].wrist_loop)
        width = np.linalg.norm(loop[:, None] - loop, axis=-1).max()
        rows, columns = np.nonzero(band)
        if len(rows):
            away = np.linalg.norm(np.stack([columns, rows], axis=1)[:, None] - loop, axis=-1).min(axis=1)
            assert away.max() < 0.75 * width, record.image
    assert banded > 1000
    for (_, kept, _), (_, open_, _) in zip(loaded(raw, "shipped"), loaded(raw, "shipped", "auto"), strict=True):
        np.testing.assert_array_equal(kept.mask, open_.mask)


def test_rendered_instances_carry_their_whole_silhouette(raw: Path) -> None:
    for record, sample, truth in loaded(raw, "agree"):
        (hand,) = sample.instances
        decoded = coco_mask.decode({"size": list(truth.shape), "counts": hand.amodal_rle.encode()}).astype(bool)
        seen = sample.mask == Label.RIGHT_HAND
        assert not (seen & ~decoded).any() and hand.area == np.count_nonzero(seen)
        columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
        assert hand.box == [columns[0], rows[0], columns[-1], rows[-1]]
        true = np.count_nonzero(decoded & (truth == Label.RIGHT_HAND)) / np.count_nonzero(decoded)
        assert hand.visible_fraction == pytest.approx(true, abs=0.02), record.image
    for _, sample, _ in loaded(raw, "shipped"):
        assert [(hand.amodal_rle, hand.visible_fraction) for hand in sample.instances] == [("", -1.0)]


# ---- the JSON member ----


def test_samples_carry_camera_points_loop_and_pose(raw: Path) -> None:
    def rows(subset: str, table: str) -> np.ndarray:
        return np.array(json.loads((raw / f"freihand/{subset}_{table}.json").read_text()))

    loop = hand_model("right").loop
    hidden = 0
    for record, sample, _ in loaded(raw, "shipped"):
        row = record.frame
        K, xyz = rows(record.subset, "K")[row], rows(record.subset, "xyz")[row]
        (hand,) = sample.hands
        assert (sample.camera.model, sample.camera.size, sample.camera.K) == ("pinhole", [224, 224], K.tolist())
        assert (hand.side, hand.definition, hand.valid) == ("right", "freihand", [True] * 21)
        assert hand.keypoints_m == xyz.tolist(), "verbatim"
        np.testing.assert_allclose(hand.keypoints_px, project(xyz, K), atol=1e-3)
        edge = project(rows(record.subset, "verts")[row][loop], K)
        ours = np.array(hand.wrist_loop)
        assert ours.shape == (16, 2)
        np.testing.assert_allclose(ours[np.lexsort(ours.T)], edge[np.lexsort(edge.T)], atol=2e-3)
        assert sample.pose["mano"] == rows(record.subset, "mano")[row][0].tolist()
        assert sample.pose["scale"] == rows(record.subset, "scale")[row]
        assert "flat_hand_mean=False" in sample.pose_convention
        assert len(hand.in_front) == 21
        hidden += hand.in_front.count(False)
    assert 0 < hidden < 21 * 6, "some points are behind fingers, most are not"


def test_views_of_one_instant_say_so(raw: Path) -> None:
    instants: dict[str, set[int]] = {}
    for record in opened(raw, "rendered").scan().records:
        if record.subset == "training":
            instants.setdefault(record.instant, set()).add(record.frame % BASES)
    assert sorted(map(sorted, instants.values())) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_without_tables_the_fields_are_empty(freihand_root: Path) -> None:
    (freihand_root / "training_mano.json").unlink()
    source = FreiHand(freihand_root)
    sample = source.load(source.scan().records[0])
    (hand,) = sample.hands
    assert (hand.keypoints_px, hand.keypoints_m, hand.valid, hand.in_front, hand.wrist_loop) == ([], [], [], [], [])
    assert (hand.definition, sample.camera.K, sample.pose, sample.pose_convention) == ("", [], {}, "")
    assert sample.quality == {}


# ---- evaluation ----


def test_evaluation_uses_what_there_is(broken: Path) -> None:
    root = broken / "freihand"

    def evaluation(masks: str) -> list[tuple[str, bool, str]]:
        source = opened(broken, masks)
        records = [record for record in source.scan().records if record.subset == "evaluation"]
        return [(record.extra["masks"], bool(record.mask), source.load(record).meaning) for record in records]

    assert evaluation("shipped") == [("shipped", True, "hand-wrist")] * 4
    assert evaluation("rendered") == [("rendered", True, "hand-rendered")] * 4
    assert evaluation("agree") == [("agree", True, "hand-wrist")] * 4
    (root / "evaluation/segmap/00000002.png").unlink()
    assert len(evaluation("shipped")) == 3
    assert evaluation("agree")[2] == ("rendered", False, "hand-rendered")
    shutil.rmtree(root / "evaluation/segmap")
    assert evaluation("shipped") == []
    assert evaluation("agree") == evaluation("rendered") == [("rendered", False, "hand-rendered")] * 4
    (root / "evaluation_verts.json").unlink()
    assert evaluation("rendered") == []
    notes = opened(broken, "rendered").scan().notes
    assert any("evaluation_verts.json" in note and "4 evaluation" in note for note in notes)


# ---- whole builds ----


@pytest.mark.parametrize("masks", MODES)
def test_builds_are_named_probed_and_complete(raw: Path, tmp_path: Path, masks: str) -> None:
    source = FreiHand(raw / "freihand", masks=masks, mano=raw / "mano" / "models" / "MANO_RIGHT.pkl")
    report = build(
        source, tmp_path, BuildOptions(source.default_name, workers=2 if masks == "agree" else 1, samples_per_shard=20)
    )
    assert report.name == {"shipped": "freihand"}.get(masks, f"freihand_{masks}")
    assert sum(report.samples.values()) == 8 * 4 + 4
    assert any(note.startswith("probe of 36 pictures") for note in report.notes)
    assert any("end at the wrist" in note for note in report.notes)
    index = ShardIndex.open([str(tmp_path)])
    assert (index.column("iou_silhouette") > 0.3).all()
    assert json.loads((tmp_path / f"{report.name}.manifest.json").read_text())["plan"]["options"]["masks"] == masks


def test_the_command_takes_masks_and_mano(raw: Path, tmp_path: Path) -> None:
    arguments = ["build", "--source", "freihand", "--root", str(raw / "freihand"), "--out", str(tmp_path)]
    done = CliRunner().invoke(cli, [*arguments, "--masks", "agree", "--mano", str(raw / "mano"), "--dry-run"])
    assert done.exit_code == 0 and "of the rendered hand lies inside" in done.output
    other = CliRunner().invoke(cli, ["build", "--source", "egohos", "--masks", "agree", "--out", "x"])
    assert other.exit_code == 2 and "--masks does not go with --source egohos" in other.output
    failed = CliRunner().invoke(cli, [*arguments, "--masks", "rendered", "--mano", str(tmp_path)])
    assert isinstance(failed.exception, SourceError) and "MANO_RIGHT.pkl" in str(failed.exception)


# ---- bad input ----


def test_what_rendering_needs_is_named(broken: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(broken / "freihand", tmp_path / "elsewhere/freihand")
    with pytest.raises(SourceError, match=r"MANO_RIGHT\.pkl was not found in .*--mano DIR"):
        FreiHand(alone, masks="rendered")
    assert FreiHand(broken / "freihand", masks="rendered").masks == "rendered", "found beside the dataset"
    (broken / "mano/models/MANO_LEFT.pkl").replace(broken / "mano/models/MANO_RIGHT.pkl")
    with pytest.raises(SourceError, match="is the left hand"):
        opened(broken, "shipped")
    with pytest.raises(SourceError, match="knows shipped, rendered, agree"):
        FreiHand(broken / "freihand", masks="both")


def test_missing_tables_are_named(broken: Path) -> None:
    (broken / "freihand/training_verts.json").unlink()
    with pytest.raises(SourceError, match=r"--masks agree needs training_verts\.json"):
        opened(broken, "agree")
    source = opened(broken, "shipped")
    records = source.scan().records
    assert source.probe(records)[0].startswith("probe of 4 pictures"), "those of evaluation"
    assert source.load(records[0]).quality == {}
    (broken / "freihand/evaluation_K.json").unlink()
    source = opened(broken, "shipped")
    (note,) = source.probe(records)
    assert "nothing was probed: no picture has a mask and rows in training_K.json" in note


def test_without_mano_the_probe_says_how_to_get_one(raw: Path, tmp_path: Path) -> None:
    source = FreiHand(shutil.copytree(raw / "freihand", tmp_path / "elsewhere/freihand"))
    source.prepare()
    (note,) = source.probe(source.scan().records)
    assert "nothing was probed" in note and "--mano DIR" in note
    sample = source.load(source.scan().records[0])
    assert sample.hands[0].keypoints_px and not sample.hands[0].wrist_loop and not sample.hands[0].in_front


@pytest.mark.parametrize(
    ("table", "value", "said"),
    [
        ("verts", lambda rows: rows[0][5].__setitem__(1, float("nan")), "vertices hold nan"),
        ("verts", lambda rows: [v.__setitem__(2, -v[2]) for v in rows[0]], "behind the camera"),
        ("verts", lambda rows: [v.__setitem__(0, v[0] + 9.0) for v in rows[0]], "beside the picture"),
        ("K", lambda rows: rows.__setitem__(0, np.zeros((3, 3)).tolist()), "camera matrix"),
        ("K", lambda rows: rows[0][0].__setitem__(2, float("nan")), "camera matrix"),
        ("xyz", lambda rows: rows[0][20].__setitem__(0, float("inf")), "key points hold nan or infinity"),
        ("xyz", lambda rows: rows[0][20].__setitem__(2, -0.1), "key points lie behind the camera"),
    ],
)
def test_one_bad_row_is_one_bad_sample(
    broken: Path, tmp_path: Path, table: str, value: Callable[[list[Any]], object], said: str
) -> None:
    edit(broken / f"freihand/training_{table}.json", value)
    source = opened(broken, "rendered")
    records = {record.image: record for record in source.scan().records}
    with pytest.raises(SampleError, match=said) as caught:
        source.load(records["training/rgb/00000000.jpg"])
    assert caught.value.where == "training/rgb/00000000.jpg"
    source.load(records["training/rgb/00000001.jpg"])
    options = BuildOptions("freihand", on_error="skip")
    report = build(source, tmp_path / "out", options)
    assert {item.what for item in report.left_out} == {f"training/rgb/{BASES * v:08d}.jpg" for v in range(4)}


def test_a_hand_that_misses_its_mask_is_one_bad_sample(broken: Path) -> None:
    drawn = np.zeros((224, 224), np.uint8)
    drawn[:8, :8] = 255
    Image.fromarray(drawn).save(broken / "freihand/training/mask/00000000.jpg")
    source = opened(broken, "shipped")
    records = {record.image: record for record in source.scan().records}
    with pytest.raises(SampleError, match="do not touch"):
        source.load(records["training/rgb/00000000.jpg"])


def _flip(rows: list[Any]) -> None:
    for row in rows:
        row[:] = (np.array(row) * [1.0, -1.0, -1.0]).tolist()


def _mirror(rows: list[Any]) -> None:
    for row in rows:
        row[:] = (np.array(row) * [-1.0, -1.0, 1.0]).tolist()


def _millimetres(rows: list[Any]) -> None:
    for row in rows:
        row[:] = (np.array(row) * [1000.0, 1000.0, 1.0]).tolist()


@pytest.mark.parametrize("change", [_flip, _mirror, _millimetres, lambda rows: rows.sort()])
def test_tables_that_are_read_wrong_stop_the_build(
    broken: Path, tmp_path: Path, change: Callable[[list[Any]], object]
) -> None:
    for subset in ("training", "evaluation"):
        edit(broken / f"freihand/{subset}_verts.json", change)
    with pytest.raises(SourceError, match=r"(?s)only \d+% of the rendered hand lies inside .*axes.*--mano.*resized"):
        build(opened(broken, "shipped"), tmp_path / "out", BuildOptions("freihand"))
    assert not (tmp_path / "out").exists()


def test_masks_that_hold_arms_get_another_meaning(broken: Path, tmp_path: Path) -> None:
    root = broken / "freihand"
    for path in sorted((root / "training/mask").iterdir()):
        truth = np.asarray(Image.open(root / "truth/training/rgb" / f"{path.stem}.png"))
        Image.fromarray(np.where(np.isin(truth, [Label.RIGHT_HAND, *ARMS]), 255, 0).astype(np.uint8)).save(path)
    source = opened(broken, "shipped")
    report = build(source, tmp_path / "out", BuildOptions("freihand"))
    assert any("hold arms, meaning hand-arm" in note for note in report.notes), report.notes
    index = ShardIndex.open([str(tmp_path / "out")])
    meanings = dict(zip(index.column("subset"), index.column("meaning"), strict=True))
    assert meanings == {"training": "hand-arm", "evaluation": "hand-wrist"}


def test_real_pictures_without_tables_build_as_before(samples: Path, tmp_path: Path) -> None:
    report = build(FreiHand(samples / "freihand_mini"), tmp_path, BuildOptions("freihand"))
    assert sum(report.samples.values()) == 8
    assert any("nothing was probed" in note for note in report.notes)
