"""COCO files as annotation tools export them, and as nobody should."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from hodata.build import BuildOptions, make_plan
from hodata.errors import SampleError, SourceError
from hodata.labels import Label
from hodata.sample import Record, Sample
from hodata.sources.coco import Coco, segment
from hodata.sources.coco_json import looks_like_coco, safe_path

WIDTH, HEIGHT = 40, 30
LABELS = """
name = "lab"
group = '(rec\\d+)'
meaning = "exact"
[categories]
hand = "hand"
cup = "object"
unsure = "void"
"""
CATEGORIES = [{"id": 1, "name": "hand"}, {"id": 7, "name": "cup"}, {"id": 9, "name": "unsure"}]


def rectangle(x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def polygon(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def compressed(pixels: NDArray[np.bool_]) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}


def uncompressed(pixels: NDArray[np.bool_]) -> dict[str, Any]:
    flat = pixels.ravel(order="F")
    counts, current, run = [], False, 0
    for value in flat:
        if value != current:
            counts.append(run)
            current, run = value, 0
        run += 1
    return {"size": [HEIGHT, WIDTH], "counts": [*counts, run]}


def annotation(number: int, category: int, segmentation: Any, image: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def image_entry(name: str, number: Any = 1) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.Generator(np.random.Philox(3)).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_coco(
    path: Path,
    annotations: list[Any],
    images: list[Any] | None = None,
    categories: list[Any] | None = None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": images if images is not None else [image_entry("rec1_5.jpg")],
        "annotations": annotations,
        "categories": categories or CATEGORIES,
    }
    path.write_text(json.dumps(content))


def make(root: Path, annotations: list[Any], images: list[Any] | None = None, labels: str = LABELS) -> Path:
    write_image(root / "images/rec1_5.jpg")
    write_coco(root / "result.json", annotations, images)
    (root / "labels.toml").write_text(labels)
    return root


def load_one(root: Path) -> tuple[Record, Sample]:
    source = Coco(root)
    (record,) = source.scan().records
    source, record = pickle.loads(pickle.dumps((source, record)))
    return record, source.load(record)


@pytest.mark.parametrize("write", [compressed, uncompressed])
def test_run_lengths_give_their_pixels(tmp_path: Path, write) -> None:
    pixels = rectangle(3, 2, 17, 20) ^ rectangle(5, 5, 9, 9)
    record, sample = load_one(make(tmp_path, [annotation(1, 1, write(pixels))]))
    assert ((sample.mask == Label.HAND) == pixels).all()
    assert record.mask_origin == "human"
    assert record.tags == ("hand",)


def test_polygons_are_their_union_in_corner_coordinates(tmp_path: Path) -> None:
    outlines = polygon(2, 3, 10, 9) + polygon(8, 5, 20, 12)
    record, sample = load_one(make(tmp_path, [annotation(1, 7, outlines)]))
    assert ((sample.mask == Label.OBJECT) == (rectangle(2, 3, 10, 9) | rectangle(8, 5, 20, 12))).all()
    assert record.mask_origin == "polygon"
    assert (record.group, record.frame) == ("lab/rec1", 5)


def test_polygons_agree_with_cocos_library() -> None:
    random = np.random.Generator(np.random.Philox(11))
    for _ in range(50):
        flat = random.uniform(-3, 45, 2 * random.integers(3, 9)).tolist()
        expected = coco_mask.decode(coco_mask.frPyObjects([flat], HEIGHT, WIDTH))[..., 0].astype(bool)
        assert (segment([flat], (WIDTH, HEIGHT)) == expected).all()


def test_the_smaller_annotation_is_on_top_whatever_the_order(tmp_path: Path) -> None:
    large = annotation(1, 7, polygon(2, 2, 30, 25))
    small = annotation(2, 1, compressed(rectangle(10, 10, 20, 20)))
    unsure = annotation(3, 9, polygon(12, 12, 14, 14))
    masks = []
    for name, order in (("a", [large, small, unsure]), ("b", [unsure, small, large])):
        _, sample = load_one(make(tmp_path / name, order))
        masks.append(sample.mask)
        assert {(item.label, item.area) for item in sample.instances} == {
            (Label.OBJECT, 28 * 23 - 100),
            (Label.HAND, 100 - 4),
        }
    assert (masks[0] == masks[1]).all()
    expected = np.where(rectangle(2, 2, 30, 25), Label.OBJECT, Label.BACKGROUND)
    expected[rectangle(10, 10, 20, 20)] = Label.HAND
    expected[rectangle(12, 12, 14, 14)] = Label.VOID
    assert (masks[0] == expected).all()


def test_equal_areas_are_painted_in_the_order_of_ids(tmp_path: Path) -> None:
    hand, cup = annotation(5, 1, polygon(2, 2, 10, 10)), annotation(2, 7, polygon(2, 2, 10, 10))
    for name, order in (("a", [hand, cup]), ("b", [cup, hand])):
        _, sample = load_one(make(tmp_path / name, order))
        assert (sample.mask[rectangle(2, 2, 10, 10)] == Label.HAND).all()


def test_crowds_and_empty_outlines_are_told(tmp_path: Path) -> None:
    make(
        tmp_path,
        [
            annotation(1, 1, uncompressed(rectangle(3, 3, 9, 9)), iscrowd=1),
            annotation(2, 7, []),
            annotation(3, 7, [[1, 1, 5, 5]]),
        ],
    )
    notes = Coco(tmp_path).scan().notes
    assert any(note.startswith("1 annotations have iscrowd 1") for note in notes)
    assert any(note.startswith("2 annotations have no outline") for note in notes)
    _, sample = load_one(tmp_path)
    assert np.count_nonzero(sample.mask) == 36


def test_an_unknown_category_is_listed_with_the_line_to_add(tmp_path: Path) -> None:
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9))], labels=LABELS.replace('hand = "hand"\n', ""))
    with pytest.raises(SourceError, match=r'"hand" = "\.\.\."'):
        Coco(tmp_path).scan()


def test_without_labels_toml_one_is_proposed(tmp_path: Path) -> None:
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9))])
    (tmp_path / "labels.toml").unlink()
    assert Coco.detect(tmp_path).matched
    with pytest.raises(SourceError) as caught:
        Coco(tmp_path)
    text = str(caught.value)
    assert '"cup" = "hand"' in text
    assert 'meaning = "egohos"' in text
    proposed = text[text.index("name =") : text.index("\n\nlabels:")]
    (tmp_path / "labels.toml").write_text(proposed.replace(r"^(\d+)_", r"(rec\d+)"))
    assert len(Coco(tmp_path).scan().records) == 1


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "C:\\x.jpg", "a/../../secret.jpg", "http://x/a.jpg"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    make(
        root,
        [annotation(1, 1, polygon(1, 1, 9, 9), image=n) for n in (1, 2)],
        [image_entry("rec1_5.jpg", 1), image_entry(name, 2)],
    )
    write_image(tmp_path / "secret.jpg")
    scan = Coco(root).scan()
    assert [record.image for record in scan.records] == ["images/rec1_5.jpg"]
    assert "refused" in scan.left_out[0].why


@pytest.mark.parametrize("name", ["a\0b.jpg", "", ".", "..", "\\\\server\\x.jpg", "x/..\\..\\y.jpg", "//a"])
def test_safe_path_refuses(name: str) -> None:
    assert safe_path(name) is None


def test_windows_names_are_found(tmp_path: Path) -> None:
    record, _ = load_one(make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9))], [image_entry("images\\rec1_5.jpg")]))
    assert record.image == "images/rec1_5.jpg"


@pytest.mark.parametrize("name", ["a" * 5000 + ".jpg", "\ud800.jpg"])
def test_names_that_no_disk_can_hold_are_listed(tmp_path: Path, name: str) -> None:
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9))], [image_entry("rec1_5.jpg"), image_entry(name, 2)])
    plan = make_plan(Coco(tmp_path), BuildOptions("lab"))
    assert [item.why.split(" below")[0] for item in plan.left_out] == ["no such image"]
    plan.left_out[0].what.encode()  # a manifest can hold it


@pytest.mark.parametrize("segmentation", [[[10**400, 1, 2, 3, 4, 5]], {"size": [HEIGHT, WIDTH], "counts": [10**30]}])
def test_numbers_beyond_all_bounds_cost_one_sample(tmp_path: Path, segmentation: Any) -> None:
    make(tmp_path, [annotation(1, 1, segmentation)])
    with pytest.raises(SampleError, match="too large"):
        load_one(tmp_path)


def test_images_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    entries = [
        image_entry("rec1_5.jpg", 1),
        image_entry("rec1_6.jpg", 2),
        image_entry("images/rec1_5.jpg", 3),
        image_entry("rec2_1.jpg", 4),
        image_entry("rec1_5.jpg", 1),
        {"id": 8, "file_name": "rec1_9.jpg"},
        "nonsense",
    ]
    write_image(tmp_path / "images/rec2_1.jpg")
    outlines = polygon(1, 1, 9, 9)
    make(tmp_path, [annotation(n, 1, outlines, image=n) for n in (1, 2, 3, 55)] + [{"id": 3}], entries)
    scan = Coco(tmp_path).scan()
    assert len(scan.records) == 1
    why = {item.what.removeprefix("result.json: "): item.why for item in scan.left_out}
    assert "no such image" in why["rec1_6.jpg"]
    assert "the first is kept" in why["images/rec1_5.jpg"]
    assert 'empty = "background"' in why["rec2_1.jpg"]
    assert "listed twice" in why["image id 1"]
    assert "file_name" in why["images[5]"]
    assert "file_name" in why["images[6]"]
    assert "1 annotations" in why
    assert "category_id" in why["annotations[4]"]


@pytest.mark.parametrize(("empty", "records"), [("background", 1), ("skip", 0)])
def test_images_without_annotations_are_what_the_file_says(tmp_path: Path, empty: str, records: int) -> None:
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9))], labels=f'empty = "{empty}"\n' + LABELS)
    write_image(tmp_path / "rec2_1.jpg")
    content = json.loads((tmp_path / "result.json").read_text())
    content["images"].append(image_entry("rec2_1.jpg", 2))
    (tmp_path / "result.json").write_text(json.dumps(content))
    source = Coco(tmp_path)
    scan = source.scan()
    assert len(scan.records) == 1 + records
    if records:
        bare = next(record for record in scan.records if record.recording == "rec2")
        assert not source.load(bare).mask.any()


def test_one_file_a_subset_as_cvat_writes_it(tmp_path: Path) -> None:
    for number, subset in enumerate(("train", "val2017", "test")):
        name = f"rec{number}_1.jpg"
        write_image(tmp_path / "images" / subset.rstrip("2017") / name)
        write_coco(
            tmp_path / f"annotations/instances_{subset}.json",
            [annotation(1, 1, polygon(1, 1, 9, 9))],
            [image_entry(name)],
        )
    (tmp_path / "labels.toml").write_text(LABELS)
    source = Coco(tmp_path)
    records = source.scan().records
    assert [record.subset for record in records] == ["test", "train", "val"]
    assert records[1].image == "images/train/rec0_1.jpg"
    assert source.split_rules.official["val"] == "val"
    assert "test" in source.split_rules.clean_test


@pytest.mark.parametrize("names", [("Train", "Validation", "Test"), ("TRAIN", "VAL", "TEST")])
def test_subsets_are_known_in_any_case(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, subset in enumerate(names):
        write_image(tmp_path / "images" / subset / f"rec{number}_1.jpg")
        entries = [annotation(1, 1, polygon(1, 1, 9, 9))], [image_entry(f"rec{number}_1.jpg")]
        write_coco(tmp_path / f"annotations/instances_{subset}.json", *entries)
    (tmp_path / "labels.toml").write_text(LABELS)
    source = Coco(tmp_path)
    rules, found = source.split_rules, {record.recording: record.subset for record in source.scan().records}
    assert [rules.official[found[f"rec{number}"]] for number in range(3)] == ["train", "val", "test"]
    assert found["rec2"] in rules.clean_test and found["rec1"] in rules.clean_val


@pytest.mark.parametrize(
    ("file", "folder"), [("instances_default", "images/default"), ("instances_train2017", "train2017")]
)
def test_the_folders_of_cvat_and_coco_are_found(tmp_path: Path, file: str, folder: str) -> None:
    write_image(tmp_path / folder / "rec1_1.jpg")
    write_coco(
        tmp_path / f"annotations/{file}.json", [annotation(1, 1, polygon(1, 1, 9, 9))], [image_entry("rec1_1.jpg")]
    )
    (tmp_path / "labels.toml").write_text(LABELS)
    assert [record.image for record in Coco(tmp_path).scan().records] == [f"{folder}/rec1_1.jpg"]


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": [5, 5]}, "the picture has 1,200"),
        ({"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}, "is for size"),
        ({"size": [HEIGHT, WIDTH], "counts": [-5, WIDTH * HEIGHT + 5]}, "a run is"),
        ({"size": [HEIGHT, WIDTH], "counts": "no\ncounts"}, "compressed COCO"),
        ({"size": [HEIGHT, WIDTH]}, "no counts"),
        ([[1, 1, 5, 5, 9]], "flat list"),
        ([[1, 1, 5, "x", 9, 9]], "annotation 4"),
        ([[[1, 1], [5, 5], [9, 9]]], "flat list"),
        ([[1, 1, 5, 5, 1e30, 9]], "reaches to"),
        ([[1, 1, 5, 5, None, 9]], "annotation 4"),
        (3, "is a int"),
    ],
)
def test_broken_segmentations_cost_one_sample_with_a_reason(tmp_path: Path, segmentation: Any, words: str) -> None:
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9)), annotation(4, 1, segmentation)])
    with pytest.raises(SampleError, match=words):
        load_one(tmp_path)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    entry = {**image_entry("rec1_5.jpg"), "width": WIDTH + 1}
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9))], [entry])
    with pytest.raises(SampleError, match="is 40x30, its annotations are for 41x30"):
        load_one(tmp_path)


def test_other_json_is_not_coco(tmp_path: Path) -> None:
    for name, text in {
        "empty.json": "",
        "list.json": "[]",
        "labelme.json": '{"shapes": [], "imagePath": "a.jpg"}',
        "boxes.json": '{"images": [], "annotations": [{"segmentation": []}], "categories": []}',
    }.items():
        (tmp_path / name).write_text(text)
        assert not looks_like_coco(tmp_path / name)
    assert not Coco.detect(tmp_path).matched
    with pytest.raises(SourceError, match=r"no \*\.json"):
        Coco(tmp_path)
    with pytest.raises(SourceError, match=r"no \*\.json"):
        Coco(tmp_path / "missing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": {}}, "no list 'images'"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] needs an id and a name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "listed twice"),
    ],
)
def test_files_without_their_lists_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9))])
    content = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(SourceError, match=words):
        Coco(tmp_path).scan()


def test_damaged_json_is_refused(tmp_path: Path) -> None:
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9))])
    text = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(text[:-2])
    with pytest.raises(SourceError, match="not valid JSON"):
        Coco(tmp_path).scan()


def test_edited_annotations_are_another_plan(tmp_path: Path) -> None:
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 9))])
    before = Coco(tmp_path).options()
    make(tmp_path, [annotation(1, 1, polygon(1, 1, 9, 8))])
    assert Coco(tmp_path).options() != before
