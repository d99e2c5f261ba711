"""What `hotrain annotate --format png` writes, scored by `hotrain eval --predictions` as the model itself is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from drawn_shards import Spec, draw, encode
from PIL import Image
from runs import varied_run

from hodata.cli import cli as hodata_cli
from hodata.labels import MEANINGS, TASKS
from hodata.sample import Record, Sample, mask_instances, sample_key
from hodata.shards.index import IndexInfo
from hodata.shards.reader import ShardIndex
from hodata.shards.writer import ShardWriter
from hotrain import checkpoint
from hotrain.cli import cli
from hotrain.evaluate import StoredTruth, count
from hotrain.predict import load_predictor
from hotrain.scoring.mask_folder import open_masks

TASK = TASKS["hand-object"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_run(tmp_path_factory.mktemp("run"))


def hotrain(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def hodata(*arguments: object) -> None:
    done = CliRunner().invoke(hodata_cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


def assert_same_counts(run: Path, shards: Path, masks: Path, extent: str = "wrist") -> None:
    """The same confusion matrix at the annotation's extent."""
    index = ShardIndex.open(shards)
    rows, truth = index.select(split="test"), StoredTruth(index)
    predictor = load_predictor(checkpoint.find(run), torch.device("cpu"))
    read, matched, said = open_masks(masks, index, rows, TASK, None)
    assert len(rows) > 2 and not matched.missing and said == extent
    extents = dict.fromkeys(index.column("source"), extent)
    (asked,) = count(index, rows, TASK, predictor, truth, extents, 4).matrices.values()
    (scored,) = count(index, rows, TASK, read, truth, extents, 4).matrices.values()
    assert (asked.sum(0) > 0).all(), "the model must answer every class, or nothing is tested"
    folded = np.zeros_like(asked)
    np.add.at(folded.T, TASK.fold(extent), asked.T)
    np.testing.assert_array_equal(scored, folded)


def assert_same_documents(run: Path, shards: Path, masks: Path, extent: str, flips: Sequence[str] = ()) -> None:
    """`hotrain eval` says the same of both, intervals and boundaries included."""
    common = ("--shards", shards, "--split", "test", "--extent", extent, "--json", "--device", "cpu")
    ours = json.loads(hotrain("eval", "--checkpoint", run, *common, *flips))
    theirs = json.loads(hotrain("eval", "--predictions", masks, "--task", TASK.name, *common))
    assert ours == theirs


def test_annotated_freihand(run: Path, make_freihand: Callable[..., Path], tmp_path: Path) -> None:
    """From the root, a folder, a quoted glob, and the shards themselves; given the whole --out or its png/."""
    root, shards = make_freihand(bases=6, evaluation=5), tmp_path / "shards"
    hodata("build", "--source", "freihand", "--root", root, "--out", shards, "--workers", 1)
    given = (root, root / "evaluation/rgb", root / "evaluation/rgb/*.jpg", shards / "*-test-*.tar")
    for number, (frames, masks) in enumerate(zip(given, ("", "png", "", "png"), strict=True)):
        out = tmp_path / f"out{number}"
        hotrain("annotate", "--checkpoint", run, frames, "--out", out, "--refine", "none")
        assert_same_counts(run, shards, out / masks)


def write_ho3d(root: Path, shards: Path) -> None:
    """An HO-3D tree of drawn pictures, two sequences with frames of one name, and shards whose samples name them."""
    shards.mkdir()
    info = IndexInfo("ho3d_v3", "0" * 64, {"options": {}}, tuple(m.to_json() for m in MEANINGS.values()), ())
    with ShardWriter(shards, "ho3d_v3-test-000000", info, "none", False) as writer:
        for number in range(8):
            place = f"evaluation/{('AP10', 'SM1')[number % 2]}/rgb/{number // 2:04d}"
            image, mask = draw(Spec("ho3d_v3", "test"), number)
            path = root / f"{place}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(image, "jpg"))
            depth = root / f"{place.replace('rgb', 'depth')}.png"
            depth.parent.mkdir(exist_ok=True)
            Image.fromarray(image).save(depth)  # is no frame
            sample = Sample(path.read_bytes(), "jpg", mask, "exact", instances=mask_instances(mask))
            key = sample_key(*place.split("/"))
            writer.add(sample, Record(key, f"ho3d/{number % 2}", "", f"{place}.jpg"), key=key, split="test")


@pytest.mark.parametrize(
    ("given", "extent", "flips"), [("", "wrist", ()), ("evaluation", "arm", ()), ("", "arm", ("--tta", "flip"))]
)
def test_an_annotated_ho3d_root(run: Path, tmp_path: Path, given: str, extent: str, flips: tuple[str, ...]) -> None:
    """Frames of one name in two sequences are told apart by their folders."""
    root, shards, out = tmp_path / "ho3d", tmp_path / "shards", tmp_path / "out"
    write_ho3d(root, shards)
    arguments = ("--out", out, "--extent", extent, "--refine", "none", "--format", "png,confidence,binary", *flips)
    hotrain("annotate", "--checkpoint", run, root / given, *arguments)
    assert len(list((out / "png").rglob("*.png"))) == 8
    if not flips:
        assert_same_counts(run, shards, out, extent)
    assert_same_documents(run, shards, out, extent, flips)
