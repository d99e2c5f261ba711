"""The loop closes: annotate, review, accept, build, train; and what a model drew never tests a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from drawn import write_frames
from PIL import Image
from runs import varied_run

from hodata.cli import cli as hodata_cli
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.cli import cli

SEQUENCES = 12  # enough for a test split to be drawn, where masks may test


def command(program: object, *arguments: object) -> str:
    done = CliRunner().invoke(program, [str(argument) for argument in arguments])  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    return done.stdout


def build(dataset: Path, out: Path, policy: str) -> ShardIndex:
    command(hodata_cli, "build", "--source", "folder", "--root", dataset, "--out", out, "--split-policy", policy)
    return ShardIndex.open(out)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def reviewed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The --out of an annotation of 12 sequences with two cameras each; all frames accepted but one of each kind."""
    folder = tmp_path_factory.mktemp("annotated")
    for sequence in range(SEQUENCES):
        for camera in range(2):
            write_frames(folder / "in" / f"s{sequence}" / "rgb" / str(camera), 2, start=sequence)
    out = folder / "out"
    command(cli, "annotate", "--checkpoint", run, folder / "in", "--out", out, "--format", "png,coco")
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    frames = {row["frame"]: "accept" for row in rows}
    frames |= {"s3/rgb/0/3": "reject", "s4/rgb/1/4": "again"}
    model = json.loads((out / ".annotate" / "plan.json").read_text())["model"]
    (out / "review.json").write_text(json.dumps({"version": 1, "model": model, "frames": frames}))
    command(cli, "annotate", "--apply", out / "review.json", "--out", out, "--checkpoint", run, "--tta", "flip")
    return out


@pytest.mark.parametrize("policy", ["clean", "group"])
def test_accepted_frames_train_and_validate_but_never_test(reviewed: Path, tmp_path: Path, policy: str) -> None:
    index = build(reviewed / "accepted", tmp_path / "shards", policy)
    assert len(index) == 4 * SEQUENCES - 2
    (origin,) = set(index.column("mask_origin"))
    assert origin.startswith("model:") and origin.endswith("+accepted")
    splits = index.column("split")
    assert set(splits) == {"train", "val"}
    sides = {group: set(splits[index.column("group") == group]) for group in set(index.column("group"))}
    assert len(sides) == SEQUENCES and all(len(found) == 1 for found in sides.values())

    # Of the same frames drawn by a person some would test.
    labels = reviewed / "accepted" / "labels.toml"
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("images", "masks"):
        (mine / name).symlink_to(labels.parent / name)
    (mine / "labels.toml").write_text(
        "".join(line for line in labels.read_text().splitlines(True) if not line.startswith("mask_origin"))
    )
    assert "test" in set(build(mine, tmp_path / "drawn", policy).column("split"))


def test_masks_and_images_arrive_as_they_were_accepted(reviewed: Path, tmp_path: Path) -> None:
    index = build(reviewed / "accepted", tmp_path / "shards", "clean")
    reader, seen = index.reader(), set()
    for row in range(len(index)):
        # images/<group>/<frame as it was named>.png
        name = reader.json(row)["original_file"].split("/", 2)[2]
        np.testing.assert_array_equal(reader.mask(row), np.asarray(Image.open(reviewed / "png" / name)))
        assert reader.image(row) == (reviewed / "accepted" / reader.json(row)["original_file"]).read_bytes()
        seen |= set(np.unique(reader.mask(row)).tolist())
    assert seen == {0, 9, 10}


def test_fit_learns_from_them(reviewed: Path, run: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    index = build(reviewed / "accepted", tmp_path / "shards", "group")
    command(
        cli, "fit", "--shards", tmp_path / "shards", "--out", tmp_path / "next", "--init", run, "--task", "hand-object",
        "--crop", 32, "--batch-size", 4, "--epochs", 1, "--workers", 0, "--device", "cpu",
    )  # fmt: skip
    found = checkpoint.find(tmp_path / "next", which="last")
    assert found.facts["sources"] == {"accepted_out": len(index.select(split="train"))}
    scores = json.loads((tmp_path / "next" / "best.json").read_text())["score"]
    assert scores["samples"] == len(index.select(split="val")) and scores["iou"]["hand"] is not None
