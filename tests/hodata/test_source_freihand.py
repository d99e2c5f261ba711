"""FreiHAND: the 4 x 32,560 rule, lossy masks, groups, partial downloads, bad input."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hodata.build import BuildOptions, build
from hodata.errors import SampleError, SourceError
from hodata.labels import Label
from hodata.shards.reader import ShardIndex
from hodata.sources import find_root
from hodata.sources.freihand import BASES, FreiHand
from hodata.splits import assign_splits


def test_every_version_gets_the_mask_of_its_base(freihand_root: Path) -> None:
    source = FreiHand(freihand_root)
    records = {record.image: record for record in source.scan().records}
    for version in range(4):
        record = records[f"training/rgb/{7 + BASES * version:08d}.jpg"]
        assert record.mask == "training/mask/00000007.jpg"
        sample = source.load(record)
        assert sample.background == ("green" if version == 0 else "composited")
        drawn = np.asarray(Image.open(freihand_root / record.mask))[..., 0]
        # The drawn rectangle is far from any threshold, its JPEG ringing is not.
        np.testing.assert_array_equal(sample.mask == Label.RIGHT_HAND, drawn >= 128)
        assert int((sample.mask > 0).sum()) == pytest.approx(120, abs=16)


def test_the_official_split_is_the_authors(freihand_root: Path) -> None:
    source = FreiHand(freihand_root)
    records = source.scan().records
    plan = assign_splits(records, source.split_rules, "official")
    assert {(record.subset, plan.split_of[record.key]) for record in records} == {
        ("training", "train"),
        ("evaluation", "test"),
    }


def test_views_of_one_instant_share_a_group_and_nothing_else_does(freihand_root: Path) -> None:
    groups: dict[str, set[int]] = {}
    for record in FreiHand(freihand_root).scan().records:
        if record.subset == "training":
            groups.setdefault(record.group, set()).add(record.frame % BASES)
    assert sorted(map(sorted, groups.values())) == [[2 * i, 2 * i + 1] for i in range(6)]


def test_views_that_differ_by_the_noise_of_their_fit_share_a_group(freihand_root: Path) -> None:
    """The same pose to four decimals is one instant, zeros of either sign too; a difference of 0.0002 is another."""
    path = freihand_root / "training_mano.json"
    poses = np.round(json.loads(path.read_text()), 3)
    poses[:, 0, 5:8] = 0.0
    poses[1::2, 0, 3:58] += np.where(np.arange(55) % 2, 1e-6, -1e-6)
    poses[1::2, 0, 7] = -0.0
    poses[11, 0, 20] += 2e-4
    path.write_text(json.dumps(poses.tolist()))
    groups: dict[str, set[int]] = {}
    for record in FreiHand(freihand_root).scan().records:
        if record.subset == "training":
            groups.setdefault(record.group, set()).add(record.frame % BASES)
    assert sorted(map(sorted, groups.values())) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10], [11]]


def test_without_pose_table_each_base_is_its_own_group(make_freihand: Callable[..., Path]) -> None:
    root = make_freihand(bases=3)
    (root / "training_mano.json").unlink()
    scan = FreiHand(root).scan()
    assert {record.group for record in scan.records} == {f"freihand/{base:08d}" for base in range(3)}
    assert any("training_mano.json" in note for note in scan.notes)


def test_partial_downloads_are_converted_and_said(make_freihand: Callable[..., Path]) -> None:
    root = make_freihand(bases=4, evaluation=2)
    (root / "training/mask/00000002.jpg").unlink()
    (root / "evaluation/segmap/00000001.png").unlink()
    scan = FreiHand(root).scan()
    assert len(scan.records) == 3 * 4 + 1
    assert {item.what for item in scan.left_out} == {
        *(f"training/rgb/{2 + BASES * version:08d}.jpg" for version in range(4)),
        "evaluation/rgb/00000001.jpg",
    }
    (root / "evaluation/segmap/00000000.png").unlink()
    (root / "evaluation/segmap").rmdir()
    assert any("FreiHAND_pub_v2_eval.zip" in note for note in FreiHand(root).scan().notes)


def _error(root: Path, image: str) -> str:
    source = FreiHand(root)
    record = next(record for record in source.scan().records if record.image == image)
    with pytest.raises(SampleError) as caught:
        source.load(record)
    return str(caught.value)


def test_bad_pictures_and_masks_are_named(freihand_root: Path) -> None:
    rgb, mask = freihand_root / "training/rgb", freihand_root / "training/mask"
    Image.new("RGB", (30, 24)).save(mask / "00000000.jpg")
    assert "mask is 30x24, its image training/rgb/00000000.jpg is 32x24" in _error(
        freihand_root, "training/rgb/00000000.jpg"
    )
    Image.new("RGB", (32, 24)).save(mask / "00000001.jpg")
    assert "shows no hand" in _error(freihand_root, "training/rgb/00000001.jpg")
    (rgb / "00000002.jpg").write_bytes((rgb / "00000002.jpg").read_bytes()[:300])
    assert "cannot be decoded" in _error(freihand_root, "training/rgb/00000002.jpg")
    (rgb / "00000003.jpg").write_bytes(b"")
    assert "is empty" in _error(freihand_root, "training/rgb/00000003.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24)).save(buffer, "JPEG", exif=exif)
    (rgb / "00000004.jpg").write_bytes(buffer.getvalue())
    assert "EXIF orientation is 6" in _error(freihand_root, "training/rgb/00000004.jpg")
    Image.new("RGB", (32, 24)).save(rgb / "00000005.jpg", "GIF")
    assert "is a GIF image" in _error(freihand_root, "training/rgb/00000005.jpg")


def test_wrong_folders_say_what_was_missed(
    tmp_path: Path, freihand_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_root("freihand", freihand_root) == freihand_root
    assert find_root("freihand", freihand_root.parent) == freihand_root  # one level down
    with pytest.raises(SourceError, match="nowhere: does not exist"):
        find_root("freihand", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no folder training/rgb"):
        find_root("freihand", tmp_path / "empty")
    monkeypatch.setenv("HODATA_ROOT", str(tmp_path))
    assert find_root("freihand", None) == freihand_root
    monkeypatch.setenv("HODATA_ROOT", str(tmp_path / "empty"))
    with pytest.raises(SourceError, match=r"(?s)empty/freihand: does not exist.*datasets/freihand.*HODATA_ROOT"):
        find_root("freihand", None)
    with pytest.raises(SourceError, match="is not FreiHAND: no folder training/rgb"):
        FreiHand(tmp_path / "empty")


def test_masks_saved_again_as_png_are_read(freihand_root: Path) -> None:
    path = freihand_root / "training/mask/00000002.jpg"
    with Image.open(path) as mask:
        mask.save(path.with_suffix(".png"))
    path.unlink()
    source = FreiHand(freihand_root)
    (record,) = (record for record in source.scan().records if record.image == "training/rgb/00000002.jpg")
    assert source.load(record).mask.any()


def test_broken_pose_table_is_named(freihand_root: Path) -> None:
    (freihand_root / "training_mano.json").write_text("[[[1, 2, 3]]]")
    with pytest.raises(SourceError, match=r"training_mano.json: row 0 .*shape \[1, 3\], expected \[1, 61\]"):
        FreiHand(freihand_root).scan()


def test_real_pictures_keep_hands_under_their_masks(samples: Path, tmp_path: Path) -> None:
    """The hand key points of 8 real pictures (drawn by others) fall on or beside the masks of the shards."""
    report = build(FreiHand(samples / "freihand_mini"), tmp_path / "shards", BuildOptions("freihand"))
    assert (sum(report.samples.values()), sum(report.groups.values())) == (8, 2)
    index = ShardIndex.open(tmp_path / "shards")
    reader = index.reader()
    truth = json.loads((samples / "freihand_mini/coco_keypoints.json").read_text())
    names = {image["id"]: Path(image["file_name"]).name for image in truth["images"]}
    points = {names[item["image_id"]]: np.reshape(item["keypoints"], (-1, 3))[:, :2] for item in truth["annotations"]}
    for row in range(len(index)):
        name = Path(reader.json(row)["original_file"]).name
        mask = reader.mask(row)
        columns, rows = np.clip(np.round(points[name]).astype(int), 0, 223).T
        assert np.mean(mask[rows, columns] == Label.RIGHT_HAND) >= 0.8
