"""The folder source: people's own masks, well described and badly described."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_images import png

from hodata.errors import HodataError, SampleError, SourceError
from hodata.labels import MEANINGS, Label
from hodata.sources import find_root, folders_in
from hodata.sources.folder import Folder
from hodata.splits import assign_splits

LABELS = """
name = "kitchen"
group = '^(r\\d+)_'
meaning = "hand-wrist"
[ids]
0 = "background"
128 = "left_hand"
255 = "void"
"""
IDS = np.zeros((24, 32), dtype=np.uint8)
IDS[3:9, 4:20] = 128
IDS[9, :] = 255


def write_image(path: Path, seed: int = 1, exif: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.Generator(np.random.Philox(seed)).integers(0, 255, (*IDS.shape, 3), np.uint8)
    tags = Image.Exif()
    tags[0x0112] = exif
    Image.fromarray(pixels).save(path, exif=tags)


def write_mask(path: Path, pixels: NDArray[np.uint8] | Image.Image = IDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path)


def make(root: Path, stems: tuple[str, ...] = ("r1_0007",), labels: str = LABELS) -> Path:
    for number, stem in enumerate(stems):
        write_image(root / "images" / f"{stem}.jpg", number)
        write_mask(root / "masks" / f"{stem}.png")
    (root / "labels.toml").write_text(labels)
    return root


def load_one(root: Path) -> NDArray[np.uint8]:
    source = Folder(root)
    (record,) = source.scan().records
    return pickle.loads(pickle.dumps(source)).load(record).mask


def test_the_real_folder_reads_as_it_is(samples: Path) -> None:
    source = Folder(samples / "utg")
    scan = source.scan()
    assert len(scan.records) == 855
    assert scan.left_out == []
    assert len({record.group for record in scan.records}) == 44
    assert source.default_name == "utg"
    (meaning,) = source.meanings
    assert meaning.sets[Label.HAND] == {Label.HAND, Label.ARM}
    assert meaning.sets[Label.BACKGROUND] == {Label.BACKGROUND, Label.OBJECT}
    record = scan.records[100]
    sample = source.load(record)
    drawn = np.asarray(Image.open(samples / "utg" / record.mask))
    assert ((sample.mask == Label.HAND) == (drawn == 255)).all()
    assert set(np.unique(sample.mask)) == {Label.BACKGROUND, Label.HAND}
    assert sample.meaning == meaning.name


def test_values_become_labels(tmp_path: Path) -> None:
    mask = load_one(make(tmp_path))
    assert (mask[IDS == 128] == Label.LEFT_HAND).all()
    assert (mask[IDS == 255] == Label.VOID).all()
    assert (mask[IDS == 0] == Label.BACKGROUND).all()
    assert Folder(tmp_path).meanings == (MEANINGS["hand-wrist"],)


def test_records_carry_recording_and_frame(tmp_path: Path) -> None:
    make(tmp_path, ("r1_0007", "r12_0100"))
    records = {record.frame: record for record in Folder(tmp_path).scan().records}
    assert records[7].group == "kitchen/r1"
    assert records[100].group == "kitchen/r12"
    assert records[100].image == "images/r12_0100.jpg"


def palette() -> Image.Image:
    image = Image.fromarray(IDS, mode="P")
    image.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    return image


@pytest.mark.parametrize("mask", [IDS, np.dstack([IDS] * 3), palette()], ids=["gray", "rgb", "palette"])
def test_gray_palette_and_equal_channels_read_alike(tmp_path: Path, mask: NDArray[np.uint8] | Image.Image) -> None:
    make(tmp_path)
    expected = load_one(tmp_path)
    write_mask(tmp_path / "masks/r1_0007.png", mask)
    assert (load_one(tmp_path) == expected).all()


def test_a_colour_mask_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    write_mask(tmp_path / "masks/r1_0007.png", np.dstack([IDS, IDS, IDS // 2]))
    with pytest.raises(SampleError, match="channels differ"):
        load_one(tmp_path)


def test_values_that_are_not_listed_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    wrong = IDS.copy()
    wrong[0, :5], wrong[1, 0] = 77, 3
    write_mask(tmp_path / "masks/r1_0007.png", wrong)
    with pytest.raises(SampleError, match=r"masks/r1_0007\.png: .*3 \(1 px\), 77 \(5 px\).*knows 0, 128, 255"):
        load_one(tmp_path)


def test_a_mask_of_another_size_and_damaged_images_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    write_mask(tmp_path / "masks/r1_0007.png", IDS[:-1])
    with pytest.raises(SampleError, match=r"32x23.*32x24"):
        load_one(tmp_path)
    write_mask(tmp_path / "masks/r1_0007.png", IDS)
    path = tmp_path / "images/r1_0007.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(SampleError, match="cannot be decoded"):
        load_one(tmp_path)
    write_image(path, exif=8)
    with pytest.raises(SampleError, match="EXIF orientation is 8"):
        load_one(tmp_path)


def test_files_without_a_partner_and_twins_are_listed(tmp_path: Path) -> None:
    make(tmp_path, ("r1_1", "r1_2", "r1_3"))
    (tmp_path / "masks/r1_2.png").unlink()
    (tmp_path / "images/r1_3.jpg").unlink()
    write_image(tmp_path / "images/r1_1.png")
    write_image(tmp_path / "images/.hidden.jpg")
    scan = Folder(tmp_path).scan()
    assert [record.image for record in scan.records] == ["images/r1_1.jpg"]
    assert [item.what for item in scan.left_out] == ["images/r1_1.png", "images/r1_2.jpg", "masks/r1_3.png"]


def test_the_rarer_kind_of_image_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, ("r1_1", "r1_2"))
    write_image(tmp_path / "images/r1_3.png")
    write_mask(tmp_path / "masks/r1_3.png")
    scan = Folder(tmp_path).scan()
    assert len(scan.records) == 2
    (item,) = scan.left_out
    assert item.what == "images/r1_3.png"
    assert "2 of 3 are jpg" in item.why


def test_subfolders_are_part_of_the_stem(tmp_path: Path) -> None:
    labels = LABELS.replace(r"^(r\d+)_", "^([^/]+)/")
    make(tmp_path, ("day1/cam.a/0001", "day2/cam.a/0001"), labels)
    records = Folder(tmp_path).scan().records
    assert {record.group for record in records} == {"kitchen/day1", "kitchen/day2"}
    assert len({record.key for record in records}) == 2


def test_images_whose_recording_is_unknown_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, ("r1_1", "other_2"))
    scan = Folder(tmp_path).scan()
    assert len(scan.records) == 1
    assert "does not match 'other_2'" in scan.left_out[0].why
    (tmp_path / "images/r1_1.jpg").unlink()
    with pytest.raises(SourceError, match="not one image can be used"):
        Folder(tmp_path).scan()


def test_each_image_may_be_its_own_recording(tmp_path: Path) -> None:
    make(tmp_path, ("a", "b"), LABELS.replace(r"'^(r\d+)_'", "'each'"))
    assert {record.group for record in Folder(tmp_path).scan().records} == {"kitchen/a", "kitchen/b"}


def black_and_white(root: Path, threshold: str) -> None:
    labels = f"""
name = "bw"
group = "each"
meaning = "exact"
{threshold}
[ids]
0 = "background"
255 = "hand"
"""
    make(root, ("a",), labels)
    (root / "masks/a.png").unlink()
    white = np.where(IDS > 0, 255, 0).astype(np.uint8)
    Image.fromarray(white).convert("RGB").save(root / "masks/a.jpg", quality=60)


def test_jpeg_masks_need_a_threshold(tmp_path: Path) -> None:
    black_and_white(tmp_path, "")
    with pytest.raises(SourceError, match="threshold = 128"):
        Folder(tmp_path).scan()
    black_and_white(tmp_path / "cured", "threshold = 128")
    mask = load_one(tmp_path / "cured")
    assert ((mask == Label.HAND) == (IDS > 0)).mean() > 0.98
    assert set(np.unique(mask)) == {Label.BACKGROUND, Label.HAND}


def test_a_threshold_is_of_colours_not_of_a_palette_s_ids(tmp_path: Path) -> None:
    make(
        tmp_path,
        ("r1_1",),
        "threshold = 128\n" + LABELS.partition("[ids]")[0] + '[ids]\n0 = "background"\n255 = "hand"\n',
    )
    with Image.open(next((tmp_path / "images").iterdir())) as picture:
        drawn = np.ones(picture.size[::-1], np.uint8)
    drawn[:5, :7] = 0
    mask = Image.fromarray(drawn, "P")
    mask.putpalette([255, 255, 255, 0, 0, 0])  # white first
    mask.save(next((tmp_path / "masks").iterdir()))
    source = Folder(tmp_path)
    found = source.load(source.scan().records[0]).mask
    np.testing.assert_array_equal(found > 0, drawn == 0)


def test_a_threshold_is_of_gray_values_whatever_their_bits(tmp_path: Path) -> None:
    values = LABELS.partition("[ids]")[0] + '[ids]\n0 = "background"\n255 = "hand"\n'
    make(tmp_path, ("r1_1",), "threshold = 128\n" + values)
    drawn = np.zeros(IDS.shape, np.int64)
    drawn[:5, :7], drawn[5:9, :7] = 15, 6  # of 0..15
    next((tmp_path / "masks").iterdir()).write_bytes(png(drawn, 4, 0))
    source = Folder(tmp_path)
    np.testing.assert_array_equal(source.load(source.scan().records[0]).mask > 0, drawn == 15)


def test_a_link_takes_nobody_s_name(tmp_path: Path) -> None:
    labels = LABELS.replace("^", "")
    make(tmp_path, ("run2/r1_1", "run3/r2_1"), labels)
    (tmp_path / "images" / "0").symlink_to(tmp_path / "images" / "run2")
    (tmp_path / "masks" / "latest").symlink_to(tmp_path / "masks" / "run3")
    scan = Folder(tmp_path).scan()
    assert [record.image for record in scan.records] == ["images/run2/r1_1.jpg", "images/run3/r2_1.jpg"]
    assert not scan.left_out


def test_a_link_that_leads_nowhere_is_left_out_and_told(tmp_path: Path) -> None:
    make(tmp_path, ("r1_1", "r2_1"), LABELS.replace("^", ""))
    (tmp_path / "images" / "r1_1.jpg").unlink()
    (tmp_path / "images" / "r1_1.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "images" / "r2_1.jpeg").symlink_to(tmp_path / "gone.jpg")  # and takes the place of no picture
    scan = Folder(tmp_path).scan()
    assert [record.image for record in scan.records] == ["images/r2_1.jpg"]
    left_out = {item.what: item.why for item in scan.left_out}
    assert left_out.pop("masks/r1_1.png").startswith("no image named")
    assert left_out == dict.fromkeys(("images/r1_1.jpg", "images/r2_1.jpeg"), "is a link to a file that is gone")


def test_folders_behind_links_are_read_and_closed_ones_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = LABELS.replace("^", "")
    make(tmp_path / "data", ("a/r1_1",), labels)
    make(tmp_path / "elsewhere", ("r2_1",))
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind / "b").symlink_to(tmp_path / "elsewhere" / kind)
        (tmp_path / "data" / kind / "a" / "again").symlink_to(tmp_path / "data" / kind)  # for ever, if it was followed
    assert [record.image for record in Folder(tmp_path / "data").scan().records] == [
        "images/a/r1_1.jpg",
        "images/b/r2_1.jpg",
    ]

    def closed(path: object) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)  # type: ignore[call-overload]

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(SourceError, match="/b: cannot be read"):
        Folder(tmp_path / "data").scan()


def test_a_jpeg_that_calls_itself_png_is_seen(tmp_path: Path) -> None:
    make(tmp_path)
    Image.fromarray(IDS).save(tmp_path / "masks/r1_0007.png", format="JPEG")
    with pytest.raises(SampleError, match="is a JPEG"):
        load_one(tmp_path)


@pytest.mark.parametrize(
    "split",
    ["split = '^(training|dev|testing)/'", "[split]\ntrain = '^training/'\nval = '^dev/'\ntest = '^testing/'"],
    ids=["pattern", "table"],
)
def test_a_split_of_ones_own(tmp_path: Path, split: str) -> None:
    labels = LABELS.replace(r"^(r\d+)_", "([^/]+)_")
    table = split.startswith("[")
    make(tmp_path, ("training/a_1", "dev/b_1", "testing/c_1"), labels + split if table else split + labels)
    source = Folder(tmp_path)
    records = source.scan().records
    rules = source.split_rules
    assert sorted(rules.official[record.subset] for record in records) == ["test", "train", "val"]
    assert {record.recording for record in records if record.subset in rules.clean_test} == {"c"}
    assert {record.recording for record in records if record.subset in rules.clean_val} == {"b"}


@pytest.mark.parametrize(
    ("words", "split"),
    [("train training Train", "train"), ("val valid validation VAL", "val"), ("test testing TEST", "test")],
)
def test_words_for_the_splits(tmp_path: Path, words: str, split: str) -> None:
    stems = tuple(f"{word}/{number}_1" for number, word in enumerate(words.split()))
    labels = "split = '^([^/]+)/'" + LABELS.replace(r"^(r\d+)_", "([^/]+)_")
    source = Folder(make(tmp_path, stems, labels))
    plan = assign_splits(source.scan().records, source.split_rules, "official")
    assert len(plan.split_of) == len(stems) and set(plan.split_of.values()) == {split}


def test_masks_that_a_model_made_are_no_official_test(tmp_path: Path) -> None:
    make(tmp_path, ("r1_1",), "mask_origin = 'model:sam'\nsplit = '^(r1)'" + LABELS)
    source = Folder(tmp_path)
    assert source.split_rules.clean_test == frozenset()
    assert source.scan().records[0].mask_origin == "model:sam"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('meaning = "hand-wrist"', "", 'meaning = "egohos"   # hand with the whole visible arm'),
        ('"hand-wrist"', '"wrists"', "unknown meaning 'wrists'"),
        ('meaning = "hand-wrist"', 'meaning = {hand = ["paw"]}', "unknown label 'paw'"),
        ('meaning = "hand-wrist"', "meaning = {hand = []}", "empty"),
        ('meaning = "hand-wrist"', "meaning = {hand = 3}", "maps a label to a list"),
        ('meaning = "hand-wrist"', "meaning = {hand = [3]}", "meaning"),
        ("group = '^(r\\d+)_'", "", "`group` is missing.*recording"),
        ("'^(r\\d+)_'", "'^(r'", "not a regular expression"),
        ("'^(r\\d+)_'", "7", "must be a text"),
        ('name = "kitchen"', "", "`name` must be"),
        ('name = "kitchen"', 'name = "../kitchen"', "`name` must be"),
        ('128 = "left_hand"', '128 = "left_paw"', "unknown label 'left_paw'; known labels: background"),
        ('128 = "left_hand"', '300 = "left_hand"', "'300' is not a value"),
        ('128 = "left_hand"', 'a = "left_hand"', "'a' is not a value"),
        ("[ids]", "[idz]", "unknown setting idz; known: categories"),
        ('[ids]\n0 = "background"\n128 = "left_hand"\n255 = "void"', "", r"needs a table\n\[ids\]"),
        ('meaning = "hand-wrist"', 'meaning = "exact"\nthreshold = 128', "two values"),
        ('meaning = "hand-wrist"', 'meaning = "exact"\nthreshold = true', "whole number"),
        ('meaning = "hand-wrist"', 'meaning = "exact"\nmask_origin = "guess"', "mask_origin"),
        ('meaning = "hand-wrist"', 'meaning = "exact"\nview = "bird"', "must be one of ego, exo"),
        ('meaning = "hand-wrist"', 'meaning = "exact"\nsplit = 3', "`split` must be"),
        ('name = "kitchen"', "name = kitchen", "is not valid TOML"),
    ],
)
def test_every_mistake_in_labels_toml_is_explained(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in LABELS
    make(tmp_path, labels=LABELS.replace(old, new))
    with pytest.raises(SourceError, match=words) as caught:
        Folder(tmp_path)
    assert "labels.toml" in str(caught.value)


def test_a_labels_file_that_is_none(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "labels.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="not valid TOML"):
        Folder(tmp_path)
    (tmp_path / "labels.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(SourceError, match="larger than"):
        Folder(tmp_path)


def test_folders_that_are_closed_are_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ext4 disk has a `lost+found`."""
    make(tmp_path / "mine")
    (tmp_path / "lost+found").mkdir()
    access = os.access

    def closed(path: Path, mode: int) -> bool:
        return Path(path).name != "lost+found" and access(path, mode)

    monkeypatch.setattr(os, "access", closed)
    assert folders_in(tmp_path) == [tmp_path / "mine"]
    assert find_root("folder", tmp_path) == tmp_path / "mine"


def test_wrong_folders_say_what_they_lack(tmp_path: Path) -> None:
    root = tmp_path / "unpacked"
    for name in ("images", "masks"):
        with pytest.raises(SourceError, match=f"no folder {name}"):
            Folder(root)
        (root / name).mkdir(parents=True)
    with pytest.raises(SourceError, match=r"no labels\.toml"):
        Folder(root)
    with pytest.raises(HodataError, match=r"no labels\.toml"):
        find_root("folder", root)
    make(root)
    assert find_root("folder", tmp_path) == root
