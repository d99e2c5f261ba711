"""Tars of other programs: indexed once, then read like shards; what cannot be used is listed, hostile ones refused."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import run

from hodata.build import BuildOptions, build
from hodata.errors import HodataError, ShardError
from hodata.shards import foreign, tars
from hodata.shards.foreign import ForeignOptions, index_tars
from hodata.shards.index import read_info
from hodata.shards.reader import ShardIndex
from hodata.shards.tars import read_contents
from hodata.shards.verify import verify
from hodata.sources.freihand import FreiHand

Files = Sequence[tuple[str, bytes]]
OPTIONS = ForeignOptions("hand-wrist", name="theirs", split="train")


def picture(number: int, kind: str = "JPEG", size: tuple[int, int] = (32, 24)) -> bytes:
    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def mask(number: int, ids: Sequence[int] = (0, 1, 2, 255), size: tuple[int, int] = (32, 24)) -> bytes:
    """A PNG as stock encoders write it: filtered, unlike ours."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).choice(np.uint8(ids), (size[1], size[0]))).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, files: Files, format: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in files:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def samples(count: int, prefix: str = "", image: str = "jpg", label: str = "mask.png") -> list[tuple[str, bytes]]:
    files = []
    for number in range(count):
        data = picture(number, "PNG" if image == "png" else "JPEG")
        files += [(f"{prefix}{number:04d}.{image}", data), (f"{prefix}{number:04d}.{label}", mask(number))]
    return files


def as_stored(path: Path) -> dict[str, dict[str, bytes]]:
    """What stock webdataset reads: key -> suffix -> bytes."""
    webdataset = pytest.importorskip("webdataset")
    data = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return {s["__key__"]: {n: v for n, v in s.items() if not n.startswith("__")} for s in data}


def check_bytes(index: ShardIndex, image: str = "jpg", label: str = "mask.png") -> None:
    """Every row of one tar gives the bytes and the ids that stock webdataset gives."""
    (path,) = index.shards
    stored, reader = as_stored(path), index.reader()
    assert set(index.column("key")) == set(stored)
    for row, key in enumerate(index.column("key")):
        assert reader.image(row) == stored[key][image]
        with Image.open(io.BytesIO(stored[key][label])) as opened:
            np.testing.assert_array_equal(reader.mask(row), np.asarray(opened))


def test_a_tar_of_the_stock_writer_is_read_to_the_same_bytes(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "stock.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(9):
            facts = {"who": number, "hands": [1, 2], "key": "not mine"}
            fields = {"jpg": picture(number), "seg.png": mask(number), "json": facts, "cls": number}
            writer.write({"__key__": f"videos/v{number // 3}/Frame_{number}", **fields})
    (found,) = index_tars([path], ForeignOptions("exact", split="val", mask_suffix="seg.png", group_pattern=r"/(v\d)/"))
    assert (found.samples, found.left_out) == (9, [])
    index = ShardIndex.open(path)
    check_bytes(index, label="seg.png")
    assert set(index.column("source")) == {"stock"}
    assert set(index.column("split")) == {"val"}
    assert index.column("group").tolist() == [f"stock/v{number // 3}" for number in range(9)]
    assert index.meanings["exact"].name == "exact"
    facts = index.reader().json(4)
    assert (facts["who"], facts["hands"], facts["key"]) == (4, [1, 2], "videos/v1/Frame_4")
    assert (facts["split"], facts["width"]) == ("val", 32)
    assert verify([path], full=True).ok
    assert index.incomplete == []


LONG = "a folder/" * 20 + "x" * 120


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    ("image", "label"), [("jpg", "mask.png"), ("JPEG", "seg.PNG"), ("png", "seg.png"), ("jpg", "png")]
)
def test_names_formats_and_orders_as_webdataset_allows(tmp_path: Path, format: int, image: str, label: str) -> None:
    files = samples(5, "set/0/", image, label)
    files[0], files[1] = files[1], files[0]
    files = [("README", b"hello"), ("__meta__/x.jpg", b"?"), *files, (".hidden.jpg", b"?")]
    files.insert(4, ("set/0/0000.depth.png", b"anything"))
    if format != tarfile.USTAR_FORMAT:
        files += samples(2, f"{LONG}/Ü", image, label)
    path = write_tar(tmp_path / "t-train-0.tar", files, format)
    (found,) = index_tars([path], ForeignOptions("exact", mask_suffix=label))
    assert found.left_out == []
    index = ShardIndex.open(tmp_path)
    check_bytes(index, image.lower(), label.lower())
    assert len(index) == (5 if format == tarfile.USTAR_FORMAT else 7)
    assert set(index.column("split")) == {"train"}
    assert set(index.column("group")) == {"t/t-train-0"}
    facts = index.reader().json(1)
    assert (facts["key"], facts["meaning"], facts["frame"]) == (index.column("key")[1], "exact", 0)
    assert verify([tmp_path], full=True, workers=2).ok


def test_it_stands_beside_our_own_shards(
    tmp_path: Path, freihand_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    build(FreiHand(freihand_root), out, BuildOptions("freihand", samples_per_shard=20))
    write_tar(out / "theirs.tar", samples(6))
    with pytest.raises(ShardError, match=r"has no theirs\.index beside it.*hodata index theirs\.tar --meaning"):
        ShardIndex.open(out)
    options = ("--meaning", "hand-wrist", "--split", "test", "--mask-origin", "polygon")
    code, text, _ = run(capsys, "index", out / "theirs.tar", *options)
    assert (code, text) == (0, "1 tars: 6 samples indexed, 0 left out\n")
    index = ShardIndex.open(out)
    assert len(index) == 51 + 6
    reader = index.reader()
    ours = index.select(source="freihand")
    assert [hand["side"] for hand in reader.json(int(ours[0]))["hands"]] == ["right"]
    code, text, _ = run(capsys, "inspect", out, "--json")
    source = json.loads(text)["sources"]["theirs"]
    assert (source["samples"], source["complete"], source["mask_origins"]) == (6, True, {"polygon": 6})
    code, text, _ = run(capsys, "verify", out, "--full")
    assert code == 0
    assert "1 of 5 tars are of other programs and have no manifest" in text
    code, _, messages = run(capsys, "index", out / "freihand-test-000000.tar", "--meaning", "exact")
    assert (code, "was written by `hodata build`" in messages) == (1, True)


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rotated = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 24)).save(rotated, "JPEG", exif=exif)
    palette = io.BytesIO()
    Image.new("P", (32, 24)).save(palette, "PNG")
    bad: dict[str, tuple[list[tuple[str, bytes]], str]] = {
        "no-mask": ([("jpg", picture(1)), ("cls", b"1")], "has no member mask.png; it has cls, jpg"),
        "no-image": ([("mask.png", mask(1))], "has no image; it has mask.png"),
        "two": ([("jpg", picture(1)), ("png", picture(1, "PNG")), ("mask.png", mask(1))], "has 2 images (jpg, png)"),
        "cut": ([("jpg", picture(1)[:300]), ("mask.png", mask(1))], "cannot be decoded"),
        "empty": ([("jpg", b""), ("mask.png", mask(1))], "its image has 0 of 0 bytes"),
        "gif": ([("jpg", picture(1, "GIF")), ("mask.png", mask(1))], "is a GIF image"),
        "turned": ([("jpg", rotated.getvalue()), ("mask.png", mask(1))], "EXIF orientation is 6"),
        "size": ([("jpg", picture(1)), ("mask.png", mask(1, size=(24, 32)))], "mask is 24x32"),
        "ids": ([("jpg", picture(1)), ("mask.png", mask(1, (0, 77)))], "ids that are no labels: [77]"),
        "colours": ([("jpg", picture(1)), ("mask.png", palette.getvalue())], "its mask cannot be read"),
        "broken": ([("jpg", picture(1)), ("mask.png", mask(1)[:60])], "its mask cannot be read"),
        "json": (
            [("jpg", picture(1)), ("mask.png", mask(1)), ("json", b"[1]")],
            "its JSON member is not a JSON object",
        ),
        "deep": ([("jpg", picture(1)), ("mask.png", mask(1)), ("json", b"[" * 9999)], "is not a JSON object"),
        "twice": ([("jpg", picture(1)), ("mask.png", mask(1)), ("jpg", picture(2))], "has two members jpg"),
    }
    files = [(f"{key}.{suffix}", data) for key, (members, _) in bad.items() for suffix, data in members]
    path = write_tar(tmp_path / "bad.tar", [*files, *samples(3)])
    command = ("index", path, "--meaning", "exact", "--split", "train")
    code, text, messages = run(capsys, *command, "--json")
    document = json.loads(text)
    assert (code, document["samples"], document["left_out"]) == (3, 3, len(bad))
    reasons = {item["what"]: item["why"] for item in document["shards"][0]["left_out"]}
    for key, (_, reason) in bad.items():
        assert reason in reasons[key]
    assert read_info(tmp_path / "bad.index").left_out == document["shards"][0]["left_out"]
    code, text, messages = run(capsys, *command)
    assert (code, "left out: 14\n" in messages, "and 2 more (the indexes list all)" in messages) == (3, True, True)
    assert len(ShardIndex.open(path)) == 3
    code, text, _ = run(capsys, "inspect", path, "--json")
    assert json.loads(text)["sources"]["bad"]["left_out"] == len(bad)


def test_members_that_are_no_files_are_listed_and_never_followed(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind, target in [
            ("a.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("b.mask.png", tarfile.LNKTYPE, "0000.mask.png"),
            ("c.jpg", tarfile.CHRTYPE, ""),
            ("d.jpg", tarfile.FIFOTYPE, ""),
            ("folder.jpg", tarfile.DIRTYPE, ""),
        ]:
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, target
            tar.addfile(header)
        for name in ("/abs/e.jpg", "../../f.jpg", "x/../g.mask.png", "\udcff.jpg"):
            header = tarfile.TarInfo(name)
            header.size = 3
            tar.addfile(header, io.BytesIO(b"abc"))
        for name, data in samples(2):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    refused = read_contents(path).refused
    assert set(refused) == {
        "a.jpg",
        "b.mask.png",
        "c.jpg",
        "d.jpg",
        "/abs/e.jpg",
        "../../f.jpg",
        "x/../g.mask.png",
        "?.jpg",
    }
    assert refused["a.jpg"] == "is a link (to '/etc/passwd'), not a file"
    assert refused["../../f.jpg"] == "its name points out of the archive"
    (found,) = index_tars([path], OPTIONS)
    assert (found.samples, len(found.left_out)) == (2, 8)


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """A GNU tar header block with any size field, base-256 where it is large."""
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else struct.pack(">IQ", 0x80000000, size)
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar  \0"
    block[148:156] = b"%06o\0 " % (sum(block) + 8 * 32)
    return bytes(block)


GOOD = header("a.jpg", 4) + b"abcd".ljust(512, b"\0")
END = bytes(1024)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "empty file"),
        (b"hello", "cannot be read as a tar|damaged header"),
        (picture(1) * 30, "cannot be read as a tar"),
        (b"\x1f\x8b" + bytes(600), "is compressed"),
        (GOOD, "ends at 1,024 without the mark of an end"),
        (GOOD + bytes(512), "without the mark of an end"),
        (GOOD[:700], "cannot be read as a tar"),
        (GOOD + GOOD[:300], "has a damaged header at offset 1,024"),
        (GOOD + b"x" * 512 + END, "has a damaged header at offset 1,024"),
        (GOOD + END + GOOD + END, "goes on after its end mark at 1,024"),
        (GOOD + END + b"\0" * 5000 + b"x", "goes on after its end mark"),
        (header("b.jpg", 2**40) + GOOD + END, "cannot be read as a tar"),
        (header("b.jpg", 2**63) + GOOD + END, "cannot be read as a tar"),
        (header("pax", 2**35, b"x") + GOOD + END, "a header claims"),
        (header("long", 2**35, b"L") + GOOD + END, "a header claims"),
        (header("s", 4, b"S") + b"abcd".ljust(512, b"\0") + END, None),
    ],
)
def test_damaged_and_hostile_archives_are_refused_by_name(tmp_path: Path, data: bytes, match: str | None) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    if match is None:
        assert read_contents(path).refused == {"s": "is stored as a sparse file"}
        return
    with pytest.raises(ShardError, match=match) as caught:
        read_contents(path)
    assert str(path) in str(caught.value)


def test_a_tar_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", samples(2)).read_bytes()
    path = tmp_path / "cut.tar"
    for length in range(0, whole.rindex(b"IEND") + 1024, 61):
        path.write_bytes(whole[:length])
        with pytest.raises(ShardError, match=r"cut\.tar"):
            read_contents(path)


def test_large_members_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(foreign._LIMITS, "json", 10)
    path = write_tar(tmp_path / "x.tar", [*samples(1), ("0000.json", b'{"a": "long enough"}'), *samples(1, "b")])
    (found,) = index_tars([path], OPTIONS)
    assert [item["why"] for item in found.left_out] == ["its json has 20 bytes, over the limit of 10"]


def test_hidden_files_are_no_samples(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("a/._0000.jpg", b"?"), ("a/.hidden.mask.png", b"?"), *samples(2, "a/")])
    assert list(read_contents(path).samples) == ["a/0000", "a/0001"]


def test_damage_after_indexing_is_found(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", samples(3))
    index_tars([path], OPTIONS)
    index = ShardIndex.open(path)
    offset = int(index.column("mask_offset")[1])
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 8
    path.write_bytes(data)
    with pytest.raises(ShardError, match=rf"0001 \(mask\) at offset {offset}"):
        ShardIndex.open(path).reader().mask(1)
    assert verify([path]).ok
    assert {problem.key for problem in verify([path], full=True).problems} == {"", "0001"}
    data[offset + 5] ^= 8
    data[offset - 512] ^= 1  # a name: another sample in any other reader
    path.write_bytes(data)
    assert not verify([path], full=True).ok
    path.write_bytes(data[:-1])
    with pytest.raises(ShardError, match="its index records"):
        ShardIndex.open(path)


def test_another_tar_behind_an_old_index_is_found(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", samples(3))
    index_tars([path], OPTIONS)
    files = samples(3)
    write_tar(path, [files[1], files[0], *files[2:]])
    assert "the tar has no member of" in verify([path]).problems[0].what
    assert index_tars([path], OPTIONS)[0].samples == 3
    assert verify([path], full=True).ok


def test_the_index_goes_to_the_cache_where_the_folder_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "x.tar", samples(3))
    write_index = foreign.write_index

    def refusing(place: Path, *args: object) -> None:
        if place.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        write_index(place, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(foreign, "write_index", refusing)
    monkeypatch.setenv("HODATA_CACHE", str(tmp_path / "cache"))
    (found,) = index_tars([path], OPTIONS)
    assert Path(found.index).parent == tmp_path / "cache"
    assert {item.name for item in tmp_path.iterdir()} == {"x.tar", "cache"}
    check_bytes(ShardIndex.open(path))
    assert verify([path], full=True).ok
    monkeypatch.setenv("HODATA_CACHE", str(tmp_path / "other"))
    with pytest.raises(ShardError, match=r"has no x\.index beside it"):
        ShardIndex.open(path)
    (found,) = index_tars([path], ForeignOptions("exact", split="train", out=tmp_path / "other"))
    assert len(ShardIndex.open(path)) == 3


def test_split_and_name_come_from_the_tars_names(tmp_path: Path) -> None:
    for name in ("toy-train-000000", "toy-train-000001", "toy-valid-000000"):
        write_tar(tmp_path / f"{name}.tar", samples(2, f"{name}_"))
    found = index_tars([tmp_path], ForeignOptions("exact"), workers=2)
    assert [tar.shard for tar in found] == ["toy-train-000000.tar", "toy-train-000001.tar", "toy-valid-000000.tar"]
    index = ShardIndex.open(tmp_path)
    assert set(index.column("source")) == {"toy"}
    assert index.column("split").tolist() == ["train"] * 4 + ["val"] * 2
    shutil.copy(tmp_path / "toy-train-000000.tar", tmp_path / "00000.tar")
    with pytest.raises(HodataError, match=r"00000\.tar: its name does not say whether it is train"):
        index_tars([tmp_path / "00000.tar"], ForeignOptions("exact"))


def test_keys_that_start_anew_in_each_tar(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", samples(2))
    index_tars([tmp_path], OPTIONS)
    with pytest.raises(ShardError, match=r"key '0000' stands in .*a\.tar and in .*b\.tar.*--prefix-keys"):
        ShardIndex.open(tmp_path)
    index_tars([tmp_path], ForeignOptions("exact", split="train", prefix_keys=True))
    assert ShardIndex.open(tmp_path).column("key").tolist() == ["a/0000", "a/0001", "b/0000", "b/0001"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (ForeignOptions("exact", name="No Name", split="train"), "small letters"),
        (ForeignOptions("exact", split="train", group_pattern="("), "is no regular expression"),
        (
            ForeignOptions("exact", split="train", group_pattern="^z"),
            "holds no usable sample of 2; the first: 0000: does not",
        ),
        (ForeignOptions("exact", split="train", mask_suffix="seg.png"), r"has no member seg.png; it has jpg, mask.png"),
    ],
)
def test_options_that_fit_no_tar(tmp_path: Path, options: ForeignOptions, match: str) -> None:
    path = write_tar(tmp_path / "x.tar", samples(2))
    with pytest.raises(HodataError, match=match):
        index_tars([path], options)
    assert not path.with_suffix(".index").exists()


def test_a_file_that_is_no_index_is_not_replaced(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", samples(2))
    path.with_suffix(".index").write_text("somebody's work")
    with pytest.raises(ShardError, match="is no index of hodata; move it away"):
        index_tars([path], OPTIONS)
    assert path.with_suffix(".index").read_text() == "somebody's work"


def test_progress_moves_inside_a_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "_CHUNK", 4096)
    path = write_tar(tmp_path / "x.tar", samples(20))
    for action in (
        lambda show: index_tars([path], OPTIONS, progress=show),
        lambda show: verify([path], full=True, progress=show),
    ):
        seen: list[int] = []
        action(lambda done, total, seen=seen: seen.append(done) or total)  # type: ignore[misc]
        assert seen == sorted(seen)
        assert len(set(seen)) > 10
        assert seen[-1] == path.stat().st_size
