"""`hotrain eval`, `compare` and `calibrate` as people call them, on a network that was never trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from drawn_shards import Spec, break_member
from PIL import Image

from hodata.labels import TASKS, Label
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.annotate.inputs import find_frames
from hotrain.cli import cli, main
from hotrain.model import IMAGENET_MEAN, IMAGENET_STD, create_model
from hotrain.progress import TerminalProgress, progress
from hotrain.scoring.calibration import temperature_of
from hotrain.scoring.figures import Figures

TASK = TASKS["hand-object"]
MODEL = "lraspp_mobilenet_v3_large"


@pytest.fixture
def index(opened: Callable[..., ShardIndex]) -> ShardIndex:
    """Twelve groups in `many`, two in `few`, and a split val."""
    return opened(
        Spec("many", "test", 36, size=(40, 32), kind="png"),
        Spec("few", "test", 6, "hand-wrist", size=(32, 40), item=Label.BACKGROUND, kind="png"),
        Spec("many", "val", 4, size=(40, 32)),
    )


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    facts: dict[str, Any] = {
        "task": TASK.name,
        "classes": list(TASK.classes),
        "model": MODEL,
        "input_rule": {"kind": "short-side", "size": 32},
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }
    run = tmp_path / "run"
    weights = create_model(MODEL, len(TASK.classes)).state_dict()
    checkpoint.save(run, position=8, weights=weights, optimizer={}, facts=facts)
    (run / "log.jsonl").write_text('{"position": 8, "kind": "train", "loss": 0.5}\n')
    return run


def call(command: str, *arguments: object, index: ShardIndex) -> Result:
    return CliRunner().invoke(
        cli, [command, *map(str, arguments), "--shards", str(index.shards[0].parent), "--device", "cpu"]
    )


def write_masks(folder: Path, index: ShardIndex, shift: int) -> Path:
    """The truth of the split test by label ids, moved to the right by `shift` and up to 2 pixels more."""
    folder.mkdir()
    for row in index.select(split="test").tolist():
        mask = np.roll(index.reader().mask(row), shift + row // 2 % 3, 1)
        Image.fromarray(mask).save(folder / f"{index.column('key')[row]}.png")
    return folder


class Page(HTMLParser):
    """Checks that tags close and nothing is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_masks_are_scored_with_intervals_groups_and_a_page(index: ShardIndex, tmp_path: Path) -> None:
    folder, page = write_masks(tmp_path / "masks", index, 2), tmp_path / "page" / "report.html"
    arguments = ("--predictions", folder, "--task", TASK.name, "--ids", "labels")
    result = call("eval", *arguments, "--json", "--html", page, "--sheet", tmp_path / "s.png", index=index)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {"samples", "iou", "iou_macro", "jaccard", "accuracy", "extent", "by_source", "not_scored"} <= set(found)
    assert found["bootstrap"] == {"unit": "group", "draws": 2000, "seed": 0, "level": 0.95, "least_groups": 10}
    many, few = found["by_source"]["many"], found["by_source"]["few"]
    assert (many["groups"], few["groups"], found["groups"]) == (12, 2, 14)
    assert 0.05 < many["boundary_iou"]["hand"] < many["iou"]["hand"] < 0.95
    low, high = many["intervals"]["iou.hand"]
    assert low < many["iou"]["hand"] < high
    assert few["intervals"] == {} and set(few["by_group"]["iou.hand"]) == {"few/test-0", "few/test-1"}
    assert few["iou"]["object"] is None and "iou.object" not in few["by_group"]
    assert many["fingertip_recall"] is None and many["hand_iou_without_wrist"] is None
    assert "iou_macro.object" in found["intervals"] and "iou_macro.hand" not in found["intervals"]
    names = {name for name in Figures(TASK).names if name not in ("fingertip_recall", "hand_iou_without_wrist")}
    assert names <= set(many["intervals"])

    text, parsed = page.read_text(), Page()
    parsed.feed(text)
    assert parsed.open == ["html"] or not parsed.open
    assert all(source.startswith("data:") for source in parsed.sources) and "http" not in re.sub("http-equiv", "", text)
    assert parsed.counts["img"] >= 3 * 12 and parsed.counts["table"] >= 3
    assert f"{many['iou']['hand']:.3f} ({many['intervals']['kinds.hand'][0]:.3f}" in text
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]

    table = call("eval", *arguments, index=index)
    assert table.exit_code == 0, table.output
    assert max(map(len, table.stdout.splitlines()[:16])) <= 100
    assert f"{many['iou']['hand']:.3f}" in table.stdout and "few/test-1" in table.stdout


def test_a_missing_mask_ends_with_3_if_allowed_and_1_if_not(index: ShardIndex, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "masks", index, 2)
    next(folder.glob("few*")).unlink()
    arguments = ("--predictions", folder, "--task", TASK.name, "--ids", "labels", "--json")
    refused = CliRunner().invoke(cli, ["eval", *map(str, arguments), "--shards", str(index.shards[0].parent)])
    assert "no mask for 1 of 42 samples" in str(refused.exception)
    allowed = call("eval", *arguments, "--allow-missing", index=index)
    found = json.loads(allowed.stdout)
    assert allowed.exit_code == 3 and found["samples"] == 41 and len(found["missing"]) == 1


def test_a_run_with_flips_calibration_and_a_page(index: ShardIndex, run_folder: Path, tmp_path: Path) -> None:
    weights = checkpoint.folder(run_folder, 8) / "weights.safetensors"
    before = weights.read_bytes()
    calibrated = call("calibrate", "--checkpoint", run_folder, "--pixels", 50, "--json", index=index)
    assert calibrated.exit_code == 0, calibrated.output
    stored = json.loads(calibrated.stdout)
    assert stored["temperature"] == temperature_of(checkpoint.find(run_folder)) and stored["split"] == "val"
    assert stored["after"]["nll"] <= stored["before"]["nll"] and len(stored["after"]["bins"]) == 15
    assert weights.read_bytes() == before
    assert "ECE" in call("calibrate", "--checkpoint", run_folder, "--pixels", 50, index=index).stdout

    page = tmp_path / "report.html"
    result = call("eval", "--checkpoint", run_folder, "--split", "val", "--tta", "flip", "--html", page, index=index)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "<svg" in text and "Training" in text and "with flips" in text


@pytest.mark.parametrize("option", ["--sheet", "--html"])
def test_figures_are_printed_whatever_becomes_of_the_pictures(
    index: ShardIndex, run_folder: Path, tmp_path: Path, option: str
) -> None:
    place = run_folder / "log.jsonl" / "picture.png"  # below a file
    result = call("eval", "--checkpoint", run_folder, option, place, "--json", index=index)
    assert result.exit_code == 1 and "cannot be written" in str(result.exception)
    assert json.loads(result.stdout)["samples"] == 42


def test_a_baseline_without_training_samples_is_refused_before_anything_is_scored(
    index: ShardIndex, run_folder: Path
) -> None:
    result = call("eval", "--checkpoint", run_folder, "--baseline", index=index)
    assert result.exit_code == 1 and "split train" in str(result.exception) and "eval" not in result.stderr


def test_a_sheet_of_damaged_samples_says_so(index: ShardIndex, run_folder: Path, tmp_path: Path) -> None:
    for row in index.select(split="test").tolist():
        break_member(index, row, "image")
    sheet = tmp_path / "sheet.png"
    options = ("--sheet", sheet, "--on-corrupt", "skip", "--where", "source = 'few'")
    result = call("eval", "--checkpoint", run_folder, *options, index=index)
    assert result.exit_code == 3, result.stderr
    with Image.open(sheet) as picture:
        assert picture.width >= 560


def test_compare_gives_signs_and_intervals(index: ShardIndex, run_folder: Path, tmp_path: Path) -> None:
    good, bad = write_masks(tmp_path / "good", index, 1), write_masks(tmp_path / "bad", index, 4)
    arguments = (bad, good, "--task", TASK.name, "--ids", "labels")
    result = call("compare", *arguments, "--json", index=index)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["samples"], found["groups"], found["a"], found["b"]) == (42, 14, str(bad), str(good))
    hand = found["by_source"]["many"]["boundary_iou.hand"]
    assert 0 < hand["interval"][0] < hand["difference"] < hand["interval"][1]
    assert hand["difference"] == pytest.approx(hand["b"] - hand["a"])
    assert found["by_source"]["few"]["iou.hand"]["interval"] is None
    assert len(found["by_source"]["few"]["iou.hand"]["by_group"]) == 2
    table = call("compare", *arguments, index=index)
    assert table.exit_code == 0 and "B - A" in table.stdout and max(map(len, table.stdout.splitlines())) <= 100
    # A run says which task the masks are read for.
    mixed = call("compare", run_folder, good, "--ids", "labels", "--json", index=index)
    assert mixed.exit_code == 0, mixed.output
    assert json.loads(mixed.stdout)["by_source"]["many"]["iou.hand"]["difference"] > 0
    itself = call("compare", good, good, "--task", TASK.name, "--ids", "labels", "--json", index=index)
    assert json.loads(itself.stdout)["figures"]["iou.hand"]["interval"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "--shards", "s"], "one of --checkpoint and --predictions"),
        (["eval", "--checkpoint", "a", "--predictions", "b", "--shards", "s"], "one of --checkpoint and --predictions"),
        (["eval", "--checkpoint", "a", "--task", "hand", "--shards", "s"], "a run knows its own"),
        (["eval", "--predictions", "a", "--tta", "flip", "--shards", "s"], "masks are what they are"),
        (["eval", "--checkpoint", "a"], "Missing option '--shards'"),
        (["compare", "a", "b"], "Missing option '--shards'"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2 and words in result.output


def test_masks_without_a_task_are_refused_with_the_cure(index: ShardIndex, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "masks", index, 1)
    result = call("eval", "--predictions", folder, index=index)
    assert result.exit_code == 1 and "say with --task" in str(result.exception)


def test_names_move_no_cursor_and_are_no_markup(
    opened: Callable[..., ShardIndex], run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`[bold]` is markup of rich and would not be shown; `[/]` ends what nobody began, which is an error of it."""
    index = opened(Spec("a[bold]b\x1b[2J", "test", 3, group="g\x1b[31m[/]", size=(40, 32), kind="png"))
    for command in (("eval", "--checkpoint", run_folder), ("compare", run_folder, run_folder)):
        result = call(*command, index=index)
        assert result.exit_code == 0, result.output
        assert "a[bold]b" in result.stdout and "\x1b" not in result.output
    progress("fit", 1).say("left out: \x1b[2J")
    TerminalProgress("fit", 1).say("\x1b[3J")
    with pytest.raises(SystemExit) as ended:
        main(lambda: find_frames(["\x1b(B"]))
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert printed.splitlines() == ["left out: ?[2J", "?[3J", "error: ?(B: no such file or folder"]
