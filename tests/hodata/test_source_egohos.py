"""EgoHOS trees of the exact layout, whole and broken."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hodata.errors import SampleError, SourceError
from hodata.labels import Label
from hodata.sources import find_root
from hodata.sources.egohos import EgoHOS
from hodata.splits import assign_splits, leak_report

WIDTH, HEIGHT = 48, 36
UUID = "0a1b2c3d-1111-2222-3333-444455556666"


def write_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), exif: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.Generator(np.random.Philox(len(path.name))).integers(0, 255, (size[1], size[0], 3), np.uint8)
    tags = Image.Exif()
    tags[0x0112] = exif
    Image.fromarray(pixels).save(path, exif=tags)


def write_label(path: Path, ids: np.ndarray | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ids is None:
        ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        ids[4:12, 5:20] = Label.LEFT_HAND
        ids[14:30, 22:40] = Label.SECOND_BOTH
    Image.fromarray(ids).save(path)
    return ids


def write_frame(root: Path, subset: str, stem: str) -> None:
    write_image(root / subset / "image" / f"{stem}.jpg")
    write_label(root / subset / "label" / f"{stem}.png")


def scan_one(root: Path):
    source = EgoHOS(root)
    (record,) = source.scan().records
    return source, record


def test_every_subset_on_disk_is_scanned_and_the_others_are_named(tmp_path: Path) -> None:
    write_frame(tmp_path, "train", f"ego4d_{UUID}_00012")
    write_frame(tmp_path, "test_outdomain", "youtube_a.b_c_7")
    scan = EgoHOS(tmp_path).scan()
    by_subset = {record.subset: record for record in scan.records}
    assert by_subset["train"].group == f"egohos/ego4d_{UUID}"
    assert by_subset["train"].frame == 12
    assert by_subset["test_outdomain"].group == "egohos/youtube_a.b_c"  # only the last dot is the extension's
    assert {record.key == record.key.lower() for record in scan.records} == {True}
    assert [note.split(":")[0] for note in scan.notes] == ["no val", "no test_indomain"]
    assert scan.left_out == []


def test_a_sample_is_what_the_files_hold(tmp_path: Path) -> None:
    write_frame(tmp_path, "val", "epic_P01_03_0000012")
    source, record = scan_one(tmp_path)
    sample = pickle.loads(pickle.dumps(source)).load(record)
    assert sample.image == (tmp_path / record.image).read_bytes()
    assert sample.image_kind == "jpg"
    assert (sample.mask == np.asarray(Image.open(tmp_path / record.mask))).all()
    assert sample.meaning == "egohos"
    assert [(item.label, item.box, item.area) for item in sample.instances] == [
        (Label.LEFT_HAND, [5, 4, 19, 11], 8 * 15),
        (Label.SECOND_BOTH, [22, 14, 39, 29], 16 * 18),
    ]
    assert [hand.side for hand in sample.hands] == ["left"]


def test_files_without_a_partner_are_listed(tmp_path: Path) -> None:
    write_frame(tmp_path, "train", "epic_a_1")
    write_image(tmp_path / "train/image/epic_a_2.jpg")
    write_label(tmp_path / "train/label/epic_a_3.png")
    write_image(tmp_path / "train/image/epic_a_1.png")
    scan = EgoHOS(tmp_path).scan()
    assert [record.image for record in scan.records] == ["train/image/epic_a_1.jpg"]
    assert [item.what for item in scan.left_out] == [
        "train/image/epic_a_1.png",
        "train/image/epic_a_2.jpg",
        "train/label/epic_a_3.png",
    ]
    assert "no mask" in scan.left_out[1].why
    assert "no image" in scan.left_out[2].why


def test_a_wrong_folder_names_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder train/image"):
        EgoHOS(tmp_path)
    with pytest.raises(SourceError, match="no folder train/image"):
        EgoHOS(tmp_path / "missing")
    write_image(tmp_path / "train/image/a_1.jpg")
    with pytest.raises(SourceError, match="no folder train/label"):
        EgoHOS(tmp_path)


def test_a_root_one_level_up_is_found(tmp_path: Path) -> None:
    write_frame(tmp_path / "egohos_dataset", "train", "a_1")
    assert find_root("egohos", tmp_path) == tmp_path / "egohos_dataset"


def test_a_label_of_three_equal_channels_is_read(tmp_path: Path) -> None:
    write_frame(tmp_path, "train", "a_1")
    source, record = scan_one(tmp_path)
    ids = write_label(tmp_path / record.mask)
    write_label(tmp_path / record.mask, np.dstack([ids] * 3))
    assert (source.load(record).mask == ids).all()


def test_a_colour_label_is_refused(tmp_path: Path) -> None:
    write_frame(tmp_path, "train", "a_1")
    source, record = scan_one(tmp_path)
    ids = write_label(tmp_path / record.mask)
    write_label(tmp_path / record.mask, np.dstack([ids, ids, ids + 1]))
    with pytest.raises(SampleError, match=r"train/label/a_1\.png: .*channels differ"):
        source.load(record)


def test_unknown_ids_are_named_with_their_pixels(tmp_path: Path) -> None:
    write_frame(tmp_path, "train", "a_1")
    source, record = scan_one(tmp_path)
    ids = write_label(tmp_path / record.mask)
    ids[0, :3], ids[1, 0] = 9, 255
    write_label(tmp_path / record.mask, ids)
    with pytest.raises(SampleError, match=r"9 \(3 px\), 255 \(1 px\)"):
        source.load(record)


def test_a_label_of_another_size_is_refused(tmp_path: Path) -> None:
    write_frame(tmp_path, "train", "a_1")
    source, record = scan_one(tmp_path)
    write_label(tmp_path / record.mask, np.zeros((HEIGHT, WIDTH + 1), dtype=np.uint8))
    with pytest.raises(SampleError, match=r"49x36.*48x36"):
        source.load(record)


def test_a_truncated_or_turned_image_is_refused(tmp_path: Path) -> None:
    write_frame(tmp_path, "train", "a_1")
    source, record = scan_one(tmp_path)
    path = tmp_path / record.image
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SampleError, match="decoded"):
        source.load(record)
    write_image(path, exif=6)
    with pytest.raises(SampleError, match="EXIF orientation is 6"):
        source.load(record)


def test_the_official_split_leaks_and_the_clean_one_does_not(tmp_path: Path) -> None:
    subsets = ("train", "val", "test_indomain")
    for video in range(12):
        for frame in range(6):
            write_frame(tmp_path, subsets[(frame + video) % 3], f"thu_v{video}_{frame}")
    for frame in range(4):
        write_frame(tmp_path, "test_outdomain", f"youtube_x_{frame}")
    source = EgoHOS(tmp_path)
    records = source.scan().records
    official = assign_splits(records, source.split_rules, "official")
    assert {(record.subset, official.split_of[record.key]) for record in records} == {
        ("train", "train"),
        ("val", "val"),
        ("test_indomain", "test"),
        ("test_outdomain", "test"),
    }
    assert leak_report(records, official.split_of)["groups_shared"] == 12
    clean = assign_splits(records, source.split_rules, "clean")
    assert leak_report(records, clean.split_of)["groups_shared"] == 0
    assert len(clean.split_of) == len(records)  # redrawn, nothing dropped
    out_of_domain = [record.key for record in records if record.subset == "test_outdomain"]
    assert {clean.split_of[key] for key in out_of_domain} == {"test"}
    assert sum(split == "test" for split in clean.split_of.values()) > len(out_of_domain)
