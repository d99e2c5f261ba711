"""Builds: the same bytes whatever the circumstances, resumable, and careful with files of others."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from itertools import pairwise
from pathlib import Path

import pytest

from hodata.build import BuildOptions, build, build_key, make_plan
from hodata.errors import HodataError, PlanError, SampleError
from hodata.shards.reader import ShardIndex
from hodata.shards.writer import ShardWriter, _HashingFile
from hodata.sources.base import Source
from hodata.sources.freihand import FreiHand

OPTIONS = BuildOptions("freihand", samples_per_shard=9)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def reference(freihand_root: Path, tmp_path: Path) -> dict[str, str]:
    build(FreiHand(freihand_root), tmp_path / "reference", OPTIONS)
    return contents(tmp_path / "reference")


@pytest.mark.parametrize("workers", [2, 7])
def test_same_bytes_for_any_number_of_workers(
    freihand_root: Path, tmp_path: Path, reference: dict[str, str], workers: int
) -> None:
    build(FreiHand(freihand_root), tmp_path / "out", BuildOptions("freihand", samples_per_shard=9, workers=workers))
    assert contents(tmp_path / "out") == reference


def test_same_bytes_for_any_listing_order_and_any_executor(
    freihand_root: Path, tmp_path: Path, reference: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = FreiHand.scan

    def shuffled(self: Source) -> object:
        found = scan(self)  # type: ignore[arg-type]
        random.Random(3).shuffle(found.records)
        return found

    monkeypatch.setattr(FreiHand, "scan", shuffled)
    with ThreadPoolExecutor(3) as executor:
        build(FreiHand(freihand_root), tmp_path / "out", OPTIONS, executor=executor)
    assert contents(tmp_path / "out") == reference


def test_killed_builds_resume_to_the_same_bytes(freihand_root: Path, tmp_path: Path, reference: dict[str, str]) -> None:
    out = tmp_path / "out"
    # A slow disk: each commit waits, so that a kill has something to interrupt.
    program = (
        "import sys, time, hodata.shards.writer as w\n"
        "commit = w.ShardWriter._commit\n"
        "def slow(self):\n    time.sleep(0.05); commit(self); time.sleep(0.02)\n"
        "w.ShardWriter._commit = slow\n"
        "from hodata.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", program, "build", "--source", "freihand", "--root", str(freihand_root)]
    command += ["--out", str(out), "--samples-per-shard", "9", "--workers", "1"]
    rng = random.Random(7)
    killed = 0
    for _ in range(4):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not out.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.35))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        for path in out.glob("*.index"):
            assert path.name == "freihand.index" or path.with_suffix(".tar").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert killed, "no kill hit a running build"
    assert contents(out) == reference


def test_a_tar_whose_index_was_not_written_is_adopted_only_if_it_is_ours(
    freihand_root: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "reference"
    (out / "freihand-train-000001.index").unlink()
    build(FreiHand(freihand_root), out, OPTIONS)
    assert contents(out) == reference
    (out / "freihand-train-000001.index").unlink()
    (out / "freihand-train-000001.tar").write_bytes(b"somebody's work")
    with pytest.raises(PlanError, match="holds other bytes than this build would write"):
        build(FreiHand(freihand_root), out, OPTIONS)
    assert (out / "freihand-train-000001.tar").read_bytes() == b"somebody's work"
    build(FreiHand(freihand_root), out, BuildOptions("freihand", samples_per_shard=9, overwrite=True))
    assert contents(out) == reference


def test_a_second_run_writes_nothing(freihand_root: Path, tmp_path: Path, reference: dict[str, str]) -> None:
    out = tmp_path / "reference"
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    report = build(FreiHand(freihand_root), out, OPTIONS)
    assert report.reused_shards == report.shards
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.tar")} == before


def test_another_plan_is_refused_and_its_difference_named(
    freihand_root: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "reference"
    with pytest.raises(PlanError, match="samples_per_shard was 9, now 8"):
        build(FreiHand(freihand_root), out, BuildOptions("freihand", samples_per_shard=8))
    with pytest.raises(PlanError, match="split_policy was clean, now group"):
        build(FreiHand(freihand_root), out, BuildOptions("freihand", split_policy="group", samples_per_shard=9))
    (freihand_root / "training/rgb/00000001.jpg").unlink()
    with pytest.raises(PlanError, match="the raw folder holds other files"):
        build(FreiHand(freihand_root), out, OPTIONS)
    assert contents(out) == reference
    build(FreiHand(freihand_root), out, BuildOptions("freihand_less", samples_per_shard=9))
    assert reference.items() <= contents(out).items()


def test_damaged_picture_stops_the_build_or_is_counted(
    freihand_root: Path, tmp_path: Path, make_freihand: Callable[..., Path]
) -> None:
    picture = freihand_root / "training/rgb/00000003.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(SampleError, match=r"training/rgb/00000003\.jpg: cannot be decoded"):
        build(FreiHand(freihand_root), tmp_path / "out", OPTIONS)
    assert not list((tmp_path / "out").glob("*.manifest.json"))
    assert not list((tmp_path / "out").glob(".*"))
    report = build(
        FreiHand(freihand_root), tmp_path / "out", BuildOptions("freihand", samples_per_shard=9, on_error="skip")
    )
    assert [item.what for item in report.left_out] == ["training/rgb/00000003.jpg"]
    assert sum(report.samples.values()) == 12 * 4 + 3 - 1 == len(ShardIndex.open(tmp_path / "out"))
    manifest = json.loads((tmp_path / "out/freihand.manifest.json").read_text())
    assert manifest["left_out"][0]["what"] == "training/rgb/00000003.jpg"
    with pytest.raises(HodataError, match="more than --max-errors 0"):
        build(FreiHand(freihand_root), tmp_path / "b", BuildOptions("freihand", on_error="skip", max_errors=0))


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_cross_process_borders_with_their_words(freihand_root: Path, tmp_path: Path, workers: int) -> None:
    (freihand_root / "training/mask/00000005.jpg").write_bytes(b"")
    with pytest.raises(SampleError, match=r"training/mask/00000005.jpg: is empty \(0 bytes\)"):
        build(FreiHand(freihand_root), tmp_path / "o", BuildOptions("freihand", samples_per_shard=9, workers=workers))


def test_full_disk_says_so_and_leaves_nothing_unfinished(
    freihand_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ShardWriter.add
    calls = 0

    def full(self: ShardWriter, *args: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardWriter, "add", full)
    with pytest.raises(HodataError, match="the disk is full; free some space and run the same command again"):
        build(FreiHand(freihand_root), tmp_path / "out", OPTIONS)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {f"freihand-train-00000{i}.{kind}" for i in (0, 1) for kind in ("tar", "index")}


def test_a_source_tree_that_was_not_installed_builds(
    freihand_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "hodata":
            raise PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr("hodata.build.version", version)
    build(FreiHand(freihand_root), tmp_path / "out", OPTIONS)
    libraries = json.loads((tmp_path / "out/freihand.manifest.json").read_text())["libraries"]
    assert libraries == {"hodata": "not installed", "numpy": "1.2", "pillow": "1.2", "pyarrow": "1.2"}


def test_manifest_tells_every_group_with_its_reason_and_no_machine(freihand_root: Path, tmp_path: Path) -> None:
    build(FreiHand(freihand_root), tmp_path / "out", OPTIONS)
    text = (tmp_path / "out/freihand.manifest.json").read_text()
    assert str(tmp_path) not in text
    manifest = json.loads(text)
    index = ShardIndex.open(tmp_path / "out")
    groups: dict[str, int] = {}
    for group in index.column("group"):
        groups[group] = groups.get(group, 0) + 1
    assert {group: entry["samples"] for group, entry in manifest["groups"].items()} == groups
    assert manifest["groups"]["freihand/evaluation-00000000"]["reason"] == "official test recording"
    for shard in manifest["shards"]:
        data = (tmp_path / "out" / shard["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])


def test_order_spreads_neighbours_over_shards(make_freihand: Callable[..., Path]) -> None:
    plan = make_plan(FreiHand(make_freihand(bases=40, versions=1)), BuildOptions("freihand", samples_per_shard=20))
    first = [record.frame for record in plan.shards[0].records]
    neighbours = sum(abs(a - b) == 1 for a, b in pairwise(first))
    assert neighbours < 6


def test_limit_keeps_every_sample_in_its_split(freihand_root: Path) -> None:
    def splits(limit: int) -> dict[str, str]:
        plan = make_plan(FreiHand(freihand_root), BuildOptions("freihand", limit=limit))
        return {record.key: shard.split for shard in plan.shards for record in shard.records}

    assert len(splits(10)) == 10
    assert splits(10).items() <= splits(0).items()


def test_long_keys_fit_a_tar_header_and_stay_apart() -> None:
    keys = {build_key("egohos", "x" * 120 + str(number)) for number in range(50)}
    assert len(keys) == 50
    assert all(len(key) + len(".mask.png") <= 100 for key in keys)


def test_names_that_cannot_prefix_a_key_are_refused() -> None:
    for name in ("Frei-HAND", "../up", "a" * 65):
        with pytest.raises(HodataError, match="lower-case"):
            BuildOptions(name)


def test_a_full_disk_leaves_no_temporary_file(
    freihand_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = _HashingFile.close

    def full(self: _HashingFile) -> None:
        close(self)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as flushing the last bytes does

    monkeypatch.setattr(_HashingFile, "flush_to_disk", full)
    monkeypatch.setattr(_HashingFile, "close", full)
    with pytest.raises(HodataError, match="the disk is full"):
        build(FreiHand(freihand_root), tmp_path / "out", OPTIONS)
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_an_output_folder_that_cannot_be_one_is_named(freihand_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(PlanError, match="file: is a file"):
        build(FreiHand(freihand_root), file, OPTIONS)
    with pytest.raises(HodataError, match="cannot be written"):
        build(FreiHand(freihand_root), file / "below", OPTIONS)
    assert file.read_text() == "mine"


def test_a_disk_that_fills_up_at_the_end_says_so(
    freihand_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: dict[str, str]
) -> None:
    with monkeypatch.context() as patch:

        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr("hodata.build.write_manifest", full)
        with pytest.raises(HodataError, match="the disk is full"):
            build(FreiHand(freihand_root), tmp_path / "out", OPTIONS)
    build(FreiHand(freihand_root), tmp_path / "out", OPTIONS)
    assert contents(tmp_path / "out") == reference


def test_max_errors_counts_what_an_earlier_run_skipped(freihand_root: Path, tmp_path: Path) -> None:
    for number in (3, 5):
        (freihand_root / f"training/rgb/{number:08d}.jpg").write_bytes(b"no picture")
    skip = BuildOptions("freihand", samples_per_shard=1, on_error="skip")
    build(FreiHand(freihand_root), tmp_path / "out", skip)
    with pytest.raises(HodataError, match="2 samples could not be converted"):
        build(FreiHand(freihand_root), tmp_path / "out", replace(skip, max_errors=1))


def test_skipped_input_gives_the_same_bytes_in_every_run(freihand_root: Path, tmp_path: Path) -> None:
    (freihand_root / "training/rgb/00000003.jpg").write_bytes(b"no picture")
    for name, workers in (("a", 1), ("b", 2)):
        options = BuildOptions("freihand", samples_per_shard=9, on_error="skip", workers=workers)
        build(FreiHand(freihand_root), tmp_path / name, options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert "0x" not in json.loads((tmp_path / "a/freihand.manifest.json").read_text())["left_out"][0]["why"]


def test_a_build_without_one_sample_fails(freihand_root: Path, tmp_path: Path) -> None:
    for path in freihand_root.glob("*/rgb/*.jpg"):
        path.write_bytes(b"no picture")
    with pytest.raises(HodataError, match="not one of 51 samples could be converted; the first: "):
        build(FreiHand(freihand_root), tmp_path / "out", BuildOptions("freihand", on_error="skip"))
    assert not (tmp_path / "out/freihand.manifest.json").exists()


def test_file_names_that_are_no_text_are_left_out(freihand_root: Path, tmp_path: Path) -> None:
    for path in (freihand_root / "evaluation/rgb/00000000.jpg", freihand_root / "evaluation/segmap/00000000.png"):
        shutil.copy(path, path.with_name(os.fsdecode(b"\xff") + path.suffix))
    report = build(FreiHand(freihand_root), tmp_path / "out", OPTIONS)
    assert [(item.what, item.why) for item in report.left_out] == [
        ("evaluation/rgb/\\udcff.jpg", "its name is not valid UTF-8; rename it")
    ]
    assert len(ShardIndex.open(tmp_path / "out")) == 51


def test_an_index_of_another_tar_or_a_damaged_manifest_is_no_finished_build(
    freihand_root: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "reference"
    one, other = (out / f"freihand-train-00000{number}.index" for number in (0, 1))
    one.write_bytes(other.read_bytes())
    build(FreiHand(freihand_root), out, OPTIONS)
    assert contents(out) == reference
    manifest = out / "freihand.manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "plan": 5}))
    with pytest.raises(PlanError, match="is not a manifest of hodata"):
        build(FreiHand(freihand_root), out, OPTIONS)
