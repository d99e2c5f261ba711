"""The shard format: PNG masks, deterministic tars, index, checked reads, verification, and stock readers."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image

from hodata.build import BuildOptions, build
from hodata.errors import HodataError, ShardError
from hodata.labels import LABELS, Label
from hodata.sample import Instance, ObjectPose, Record, Sample
from hodata.shards.index import IndexInfo, read_index, schema
from hodata.shards.locate import find_shards
from hodata.shards.png import decode_mask, encode_mask
from hodata.shards.reader import ShardIndex
from hodata.shards.verify import verify
from hodata.shards.writer import ShardWriter
from hodata.sources.folder import Folder
from hodata.sources.freihand import FreiHand


@pytest.fixture
def built(freihand_root: Path, tmp_path: Path) -> Path:
    """Shards of 48 + 3 samples, 10 a shard."""
    build(FreiHand(freihand_root), tmp_path / "out", BuildOptions("freihand", samples_per_shard=10))
    return tmp_path / "out"


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_masks_survive_and_any_reader_sees_the_same_ids(mask: np.ndarray) -> None:
    data = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(data), mask)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), mask)


def test_masks_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_mask(np.zeros((4, 4), np.int64))  # type: ignore[arg-type]
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="grayscale"):
        decode_mask(buffer.getvalue())


def test_tar_is_plain_ustar_with_adjacent_members(built: Path) -> None:
    index = ShardIndex.open(built)
    for path in index.shards:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert all((m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) == (0, 0, 0, "", "", 0o644) for m in members)
        keys = [member.name.split(".")[0] for member in members]
        assert keys[::3] == keys[1::3] == keys[2::3]
        assert [member.name.split(".", 1)[1] for member in members[:3]] == ["jpg", "mask.png", "json"]


def test_reader_gives_what_tarfile_gives_and_images_as_shipped(built: Path, freihand_root: Path) -> None:
    index = ShardIndex.open(built)
    reader = pickle.loads(pickle.dumps(index.reader()))
    assert len(index) == 51
    for row in range(len(index)):
        path = index.shards[index.shard_number[row]]
        key = index.column("key")[row]
        with tarfile.open(path) as tar:
            stored = {name: tar.extractfile(f"{key}.{name}").read() for name in ("jpg", "mask.png", "json")}  # type: ignore[union-attr]
        assert reader.image(row) == stored["jpg"]
        np.testing.assert_array_equal(reader.mask(row), np.asarray(Image.open(io.BytesIO(stored["mask.png"]))))
        fields = reader.json(row)
        assert (freihand_root / fields["original_file"]).read_bytes() == stored["jpg"]
        counts = np.bincount(reader.mask(row).ravel(), minlength=256)
        assert [index.column(f"pixels_{label.label_name}")[row] for label in LABELS] == [counts[i] for i in LABELS]


def test_json_members_all_have_the_same_keys_and_types_and_no_null(built: Path) -> None:
    index = ShardIndex.open(built)
    reader = index.reader()

    def shape(value: object) -> object:
        assert value is not None
        return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else type(value)

    members = []
    for path in index.shards:
        with tarfile.open(path) as tar:
            members += [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
    shapes = [shape(member) for member in members]
    assert len(shapes) == len(index)
    assert all(other == shapes[0] for other in shapes)
    for row in range(len(index)):
        facts = reader.json(row)
        assert [hand["side"] for hand in facts["hands"]] == ["right"]
        assert facts["instances"][0]["area"] == np.count_nonzero(reader.mask(row))
        assert facts["camera"]["K"] == []


def test_index_has_no_nulls_and_the_merged_one_equals_the_parts(built: Path) -> None:
    whole, info = read_index(built / "freihand.index")
    assert whole.schema.remove_metadata() == schema()
    assert all(column.null_count == 0 for column in whole.columns)
    index = ShardIndex.open(built)
    (built / "freihand.index").unlink()
    again = ShardIndex.open(built)
    assert again.table.equals(index.table)
    assert sorted(tar.name for tar in info.tars) == [path.name for path in index.shards]
    assert sum(tar.samples for tar in info.tars) == len(whole)


def test_columns_of_things_are_those_of_the_samples(tmp_path: Path) -> None:
    """Two hands and a thing that is held, one hand that is painted over, and nothing at all."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 6)).save(picture, "PNG")

    def sample(things: dict[str, bool], *instances: Instance) -> Sample:
        objects = [ObjectPose(name=name, held=held) for name, held in things.items()]
        mask = np.zeros((6, 8), np.uint8)
        return Sample(picture.getvalue(), "png", mask, "exact", objects=objects, instances=list(instances))

    box = [1, 1, 2, 2]
    samples = [
        sample(
            {"cup": False, "knife": True},
            Instance(Label.LEFT_HAND, [0, 0, 1, 1], 4, visible_fraction=0.25),
            Instance(Label.RIGHT_HAND, box, 4, visible_fraction=0.75),
            Instance(Label.OBJECT_RIGHT, [3, 3, 3, 3], 1, visible_fraction=0.5),
        ),
        sample({"cup": False}, Instance(Label.LEFT_HAND, box, 0, visible_fraction=0.875)),
        sample({}),
    ]
    with ShardWriter(tmp_path, "a-train-000000", IndexInfo("a", "0" * 64, {}, (), ()), "none", False) as writer:
        for number, each in enumerate(samples):
            writer.add(each, Record(f"{number}", "a/1", "", "x.png"), key=f"a_{number}", split="train")
    table, _ = read_index(tmp_path / "a-train-000000.index")
    names = ("objects", "held", "hand_boxes", "visible_fraction_hand", "visible_fraction_object")
    assert [tuple(row[name] for name in names) for row in table.to_pylist()] == [
        (["cup", "knife"], True, [[0, 0, 1, 1], box], 0.75, 0.5),
        (["cup"], False, [], -1.0, -1.0),
        ([], False, [], -1.0, -1.0),
    ]


def test_data_hash_ignores_the_folder_and_sees_the_rows(built: Path, tmp_path: Path) -> None:
    index = ShardIndex.open(built)
    rows = index.select(split="train")
    shutil.copytree(built, tmp_path / "copy")
    copy = ShardIndex.open(f"{tmp_path}/copy/*.tar")
    assert copy.data_hash(rows) == index.data_hash(rows) == index.data_hash(rows[::-1])
    assert index.data_hash(rows[1:]) != index.data_hash(rows)


def test_rows_keep_their_numbers_whatever_their_folders_are_called(built: Path, tmp_path: Path) -> None:
    """A run that goes on finds each sample where it was."""
    order = []
    for folders in (("a", "b"), ("z", "b")):
        root = tmp_path / folders[0]
        for name, split in zip(folders, ("train", "val"), strict=True):
            (root / name).mkdir(parents=True)
            for path in built.glob(f"*-{split}-*"):
                shutil.copy(path, root / name)
        order.append(ShardIndex.open(root).column("key").tolist())
    assert order[0] == order[1]


def test_a_reader_keeps_few_files_open_and_loses_none(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = ShardIndex.open(built)
    rows = [int(np.flatnonzero(index.shard_number == number)[0]) for number in range(len(index.shards))] * 3
    expected = [index.reader().image(row) for row in rows]
    monkeypatch.setattr("hodata.shards.reader._most_open", lambda: 2)

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    for _ in range(5):
        reader = index.reader()
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(reader.image, rows)) == expected
        assert open_files() <= before + 2
        copy = pickle.loads(pickle.dumps(reader))
        assert copy.image(rows[0]) == expected[0]
        copy.close()
        reader.close()
    assert open_files() == before


def test_too_many_open_files_are_no_damage(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    reader = ShardIndex.open(built).reader()
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(HodataError, match="ulimit -n") as caught:
        reader.image(0)
    assert not isinstance(caught.value, ShardError)


def test_find_shards_by_file_folder_glob_and_says_where_it_looked(built: Path) -> None:
    everything = find_shards([built])
    assert find_shards([f"{built}/*.tar", built]) == everything
    assert find_shards([built.parent]) == everything
    assert find_shards([everything[0].with_suffix("")]) == everything[:1]
    with pytest.raises(ShardError, match=r"no \.tar shard found"):
        find_shards([built / "nothing-*.tar"])
    for address in ("s3://bucket/*.tar", "gs://bucket/x.tar", "https://host/shards"):
        with pytest.raises(ShardError, match=r"addresses are not read, only files; mount the bucket"):
            find_shards([built, address])


def test_damage_is_named_and_never_silent(built: Path) -> None:
    index = ShardIndex.open(built)
    row = 5
    path, offset = index.shards[index.shard_number[row]], int(index.column("image_offset")[row])
    data = bytearray(path.read_bytes())
    data[offset + 20] ^= 1
    path.write_bytes(data)
    reader = ShardIndex.open(built).reader()
    with pytest.raises(ShardError, match=rf"{index.column('key')[row]} \(image\) at offset {offset}"):
        reader.image(row)
    reader.image(row + 1)
    assert verify([built]).ok, "without --full only sizes, index and member table are promised"
    problems = verify([built], full=True).problems
    assert {problem.key for problem in problems} == {"", index.column("key")[row]}
    assert any(problem.offset == offset for problem in problems)


def test_a_shorter_tar_is_refused_on_opening(built: Path) -> None:
    path = built / "freihand-train-000000.tar"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ShardError, match=r"freihand-train-000000.tar: is .* bytes long, its index records"):
        ShardIndex.open(built)
    assert [problem.shard for problem in verify([built]).problems] == [path.name]


def test_verify_reads_headers_and_names_what_is_missing(built: Path) -> None:
    assert verify([built], full=True, workers=2).ok
    path = built / "freihand-train-000001.tar"
    data = bytearray(path.read_bytes())
    data[0] ^= 1  # the first member's name
    path.write_bytes(data)
    assert [problem.shard for problem in verify([built]).problems] == [path.name]
    data[0] ^= 1
    path.write_bytes(data)
    (built / "freihand.manifest.json").unlink()
    assert "not complete" in verify([built]).problems[0].what
    path.with_suffix(".index").unlink()
    assert any("has no freihand-train-000001.index" in problem.what for problem in verify([built]).problems)


def test_one_dataset_built_twice_is_refused_with_both_names(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "copy")
    with pytest.raises(ShardError, match=r"stands in .*copy.* and in .*out"):
        ShardIndex.open([built, tmp_path / "copy"])


def test_foreign_files_are_not_taken_for_an_index(built: Path) -> None:
    (built / "freihand.index").write_bytes(b"no parquet")
    with pytest.raises(ShardError, match=r"cannot be read as an index"):
        ShardIndex.open(built)


def change_index(path: Path, rows: Callable[[Any], Any] = lambda table: table, **facts: object) -> None:
    """Rewrite an index with other rows or other metadata."""
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[b"hodata"]) | facts
    pq.write_table(rows(table).replace_schema_metadata({b"hodata": json.dumps(metadata)}), path)


def column(table: Any, name: str, value: object) -> Any:
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array([value] * len(table)))


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        (lambda table: table.drop_columns(["mask_offset"]), {}),
        (lambda table: column(table, "mask_offset", "here"), {}),
        (lambda table: column(table, "image_offset", -5), {}),
        (lambda table: column(table, "image_size", 2**60), {}),
        (lambda table: table.slice(1), {}),
        (lambda table: table, {"tars": []}),
        (lambda table: table, {"plan": 5}),
        (lambda table: table, {"meanings": [{"name": "x", "sets": {"hand": ["paw"]}}]}),
        (lambda table: table, {"meanings": 5}),
    ],
)
def test_a_damaged_index_is_a_problem_and_no_traceback(
    built: Path, rows: Callable[[Any], Any], facts: dict[str, object]
) -> None:
    change_index(built / "freihand-train-000000.index", rows, **facts)
    problems = verify([built], full=True).problems
    assert {problem.shard for problem in problems} == {"freihand-train-000000.tar"}


def test_a_false_merged_index_is_found(built: Path) -> None:
    path = built / "freihand.index"
    right = path.read_bytes()
    change_index(path, lambda table: table.take(list(range(len(table)))[::-1]))
    assert "freihand.index tells other things" in verify([built]).problems[0].what
    path.write_bytes(right)
    change_index(path, lambda table: table.slice(0, 20))
    with pytest.raises(ShardError, match="holds 20 rows"):
        ShardIndex.open(built)
    path.write_bytes(right)
    change_index(path, meanings=[])
    with pytest.raises(ShardError, match="does not define the meaning 'hand-wrist'"):
        ShardIndex.open(built)


def test_a_lost_shard_and_a_damaged_manifest_are_found(built: Path) -> None:
    manifest = built / "freihand.manifest.json"
    right = manifest.read_text()
    away = [{"name": "x/y.tar"}, {"name": ""}, {"name": 5}, {"name": ".."}]
    for change in ({"shards": [1, 2]}, *({"shards": [one]} for one in away), {"dataset": 3}, {"left_out": 4}):
        manifest.write_text(json.dumps(json.loads(right) | change))
        assert not verify([built]).ok
        with pytest.raises(ShardError):
            _ = ShardIndex.open(built).manifests
    manifest.write_text(right)
    for kind in ("tar", "index"):
        (built / f"freihand-train-000002.{kind}").unlink()
    assert [problem.shard for problem in verify([built]).problems] == ["freihand-train-000002.tar"]


def test_what_macos_leaves_beside_shards_is_none(built: Path) -> None:
    expected = find_shards([built])
    for path in expected:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert find_shards([built]) == expected == find_shards([f"{built}/*.tar"])


def test_odd_names_and_patterns_find_shards(built: Path, tmp_path: Path) -> None:
    names = [path.name for path in find_shards([built])]
    assert [path.name for path in find_shards([f"{built}/**.tar"])] == names
    (built / "folder.tar").mkdir()
    assert [path.name for path in find_shards([built])] == names
    odd = tmp_path / "shards*[x]"
    shutil.copytree(built, odd)
    assert [path.name for path in find_shards([odd / names[0]])] == names[:1]


def test_hugging_face_reads_filled_lists_after_empty_ones(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for name, label in (("empty", "background"), ("filled", "hand")):
        root = tmp_path / name
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (8, 6)).save(root / f"images/{number}.jpg")
            Image.new("L", (8, 6)).save(root / f"masks/{number}.png")
        text = f'name = "{name}"\ngroup = "each"\nmeaning = "exact"\n[ids]\n0 = "{label}"\n'
        (root / "labels.toml").write_text(text)
        build(Folder(root), tmp_path / "out", BuildOptions(name))
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    facts = [sample["json"] for part in loaded.values() for sample in part]
    assert sorted(len(json.loads(fact["instances"])) for fact in facts) == [0] * 12 + [1] * 12


def test_stock_webdataset_reads_every_sample(built: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    index = ShardIndex.open(built)
    reader = index.reader()
    rows = {key: row for row, key in enumerate(index.column("key"))}
    urls = [str(path) for path in index.shards]
    seen = set()
    for sample in webdataset.WebDataset(urls, shardshuffle=False).decode("pil"):
        row = rows[sample["__key__"]]
        np.testing.assert_array_equal(np.asarray(sample["mask.png"].convert("L")), reader.mask(row))
        assert sample["json"]["key"] == sample["__key__"]
        assert sample["jpg"].size == (32, 24)
        seen.add(row)
    assert len(seen) == len(index)


@pytest.mark.parametrize("by", ["folder", "glob"])
def test_hugging_face_reads_every_sample(built: Path, tmp_path: Path, by: str) -> None:
    datasets = pytest.importorskip("datasets")
    index = ShardIndex.open(built)
    reader = index.reader()
    cache = str(tmp_path / "cache")
    if by == "folder":
        loaded = datasets.load_dataset(str(built), cache_dir=cache)
    else:
        loaded = datasets.load_dataset("webdataset", data_files=f"{built}/freihand-*.tar", cache_dir=cache)
    rows = {key: row for row, key in enumerate(index.column("key"))}
    seen = set()
    for part in loaded.values():
        for sample in part:
            row = rows[sample["__key__"]]
            np.testing.assert_array_equal(np.asarray(sample["mask.png"]), reader.mask(row))
            assert sample["json"]["meaning"] == "hand-wrist"
            assert sample["jpg"].size == (32, 24)
            seen.add(row)
    assert len(seen) == len(index)
