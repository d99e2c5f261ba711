"""The run: resumed equals uninterrupted, two processes agree, signals save, and the files are what people need."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from drawn_shards import Spec
from PIL import Image
from safetensors.torch import load_file

from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.cli import cli
from hotrain.config import FitConfig, read_recipe
from hotrain.errors import CheckpointError, Interrupted, TrainingError
from hotrain.fit import fit
from hotrain.loading.data import decode_image
from hotrain.predict import load_predictor
from hotrain.progress import read_log

MODEL = "lraspp_mobilenet_v3_large"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def config(index: ShardIndex, out: Path, **changes: Any) -> FitConfig:
    options: dict[str, Any] = {
        "task": "hand",
        "model": MODEL,
        "weights": "none",
        "epochs": 3,
        "samples_per_epoch": 8,
        "crop": 32,
        "batch_size": 4,
        "workers": 0,
        "device": "cpu",
        "lr": 2e-3,
    }
    return FitConfig((str(index.shards[0].parent),), str(out), **{**options, **changes})


def weights(run: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return checkpoint.find(run, which=which).weights()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def finished(mixed: ShardIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps, three epochs."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("finished") / "run"
    fit(config(mixed, run))
    return run


def test_a_run_leaves_what_people_look_for(finished: Path, mixed: ShardIndex) -> None:
    facts = checkpoint.find(finished, which="last").facts
    assert facts["position"] == 24
    assert facts["data_hash"] == mixed.data_hash(mixed.select(split="train"))
    assert facts["config"]["crop"] == 32 and facts["versions"]["torch"] == torch.__version__
    best = json.loads((finished / "best.json").read_text())
    assert (finished / "checkpoints" / best["checkpoint"]).is_dir()
    log = read_log(finished)
    assert [entry["position"] for entry in log if entry["kind"] == "val"] == [8, 16, 24]
    scores = [entry["jaccard"] for entry in log if entry["kind"] == "val"]
    assert best["score"]["jaccard"] == max(scores)
    assert any(finished.glob("tensorboard/events*"))
    for picture in (finished / "curves.png", *sorted((finished / "previews").glob("*.png"))):
        with Image.open(picture) as image:
            assert min(image.size) > 200 and len(image.getcolors(1 << 24)) > 10  # type: ignore[arg-type]
    assert len(list((finished / "previews").glob("*.png"))) == 3


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_resumed_equals_uninterrupted_bit_for_bit(
    mixed: ShardIndex, tmp_path: Path, finished: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after any step, within an epoch or at its end, the weights end up the same."""
    from hotrain.learning.step import Flags, Step

    taken = 0
    original = Step.take

    def take(self: Step, parts: Any, position: int, flags: Flags) -> tuple[float, Flags]:
        nonlocal taken
        taken += 1
        return original(self, parts, position, flags._replace(stop=taken == stop_after))

    with monkeypatch.context() as patch:
        patch.setattr(Step, "take", take)
        with pytest.raises(Interrupted):
            fit(config(mixed, tmp_path / "run"))
    assert checkpoint.find(tmp_path / "run", which="last").position == 4 * stop_after
    fit(config(mixed, tmp_path / "run"), resume=True)
    assert_same(weights(tmp_path / "run"), weights(finished))
    assert_same(weights(tmp_path / "run", "best"), weights(finished, "best"))
    logs = [
        [{k: v for k, v in entry.items() if k != "lr"} for entry in read_log(run) if entry["kind"] == "val"]
        for run in (tmp_path / "run", finished)
    ]
    assert logs[0] == logs[1]


def test_accumulation_of_equal_parts_is_close_to_one_batch(mixed: ShardIndex, tmp_path: Path) -> None:
    """Not equal: BatchNorm sees half of the batch at a time. But the loss has one divisor."""
    fit(config(mixed, tmp_path / "one", epochs=0.5))
    fit(config(mixed, tmp_path / "two", epochs=0.5, accumulation=2))
    one, two = (read_log(tmp_path / name)[0]["loss"] for name in ("one", "two"))
    assert one == pytest.approx(two, rel=0.3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed is 0 in the checkpoint, this run has 1"),
        ({"batch_size": 8}, "batch_size is 4 in the checkpoint, this run has 8"),
        ({"task": "hand-object"}, "task is 'hand'.*'hand-object'"),
        ({"source_weights": {"ego": 2.0}}, "source_weights"),
        ({"crop": 64}, "input_rule"),
        ({"flip": False}, "crop_rule"),
        ({"blur": 0.5}, "blur is 0.0 in the checkpoint, this run has 0.5"),
        ({"paste": 0.5}, "paste is 0.0 in the checkpoint, this run has 0.5"),
        ({"epochs": 1}, "is at sample 24, beyond the 8"),
    ],
)
def test_resuming_something_else_is_refused(
    mixed: ShardIndex, finished: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        fit(config(mixed, finished, **change), resume=True)


def test_a_run_that_goes_on_has_the_weight_decay_that_it_is_given(mixed: ShardIndex, tmp_path: Path) -> None:
    fit(config(mixed, tmp_path / "run", epochs=1, weight_decay=0.01))
    before = weights(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "strong")
    for name, decay in (("run", 0.0), ("strong", 1000.0)):
        fit(config(mixed, tmp_path / name, epochs=2, weight_decay=decay), resume=True)
    heavy = [name for name, value in before.items() if value.ndim > 1]

    def size(run: str) -> float:
        return sum(float(weights(tmp_path / run)[name].square().sum()) for name in heavy)

    assert size("strong") < 0.5 * size("run")


def test_scores_of_other_samples_or_extents_are_not_compared(mixed: ShardIndex, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(config(mixed, run, epochs=1))
    score = checkpoint.best_score(run)
    assert score is not None and score["measure"]["extent"] == "wrist"
    name = checkpoint.find(run).path
    checkpoint.mark_best(run, name, {**score, "jaccard": 2.0})  # no score of the same kind is above this one
    shutil.copytree(run, tmp_path / "same")
    fit(config(mixed, tmp_path / "same", epochs=2), resume=True)
    assert checkpoint.find(tmp_path / "same").position == checkpoint.find(run).position
    fit(config(mixed, run, epochs=2, extent="arm"), resume=True)
    found = checkpoint.best_score(run)
    assert found is not None and found["measure"]["extent"] == "arm"
    assert checkpoint.find(run).position > int(name.name)


def test_an_unreadable_best_is_told_before_an_epoch_is_spent(mixed: ShardIndex, tmp_path: Path) -> None:
    fit(config(mixed, tmp_path / "run", epochs=1))
    (tmp_path / "run/best.json").write_text("")
    with pytest.raises(CheckpointError, match=r"best\.json"):
        fit(config(mixed, tmp_path / "run", epochs=2), resume=True)
    assert checkpoint.last_position(tmp_path / "run") == 8


def test_rows_that_are_numbered_in_another_way_are_refused(
    mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same samples in another order: every position would name another one."""
    run = tmp_path / "run"
    fit(config(mixed, run, epochs=1))
    with monkeypatch.context() as patch:
        patch.setattr(ShardIndex, "row_order", lambda self, rows: "0" * 64)
        with pytest.raises(CheckpointError, match="row_order"):
            fit(config(mixed, run, epochs=2), resume=True)
    fit(config(mixed, run, epochs=2), resume=True)


@pytest.mark.parametrize("saved", [True, False])
def test_75_is_given_where_something_can_be_gone_on_with(
    mixed: ShardIndex, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    """Several processes that a signal ended."""
    run = tmp_path / "run"
    if saved:
        shutil.copytree(finished, run)

    def launch(*_: Any) -> None:
        raise SystemExit(75)

    monkeypatch.setattr("hotrain.distributed.launch", launch)
    given = ["fit", "--shards", str(mixed.shards[0].parent), "--out", str(run), *(["--resume"] if saved else [])]
    result = CliRunner().invoke(cli, given)
    assert result.exit_code == (75 if saved else 1)
    assert ("--resume" if saved else "before anything was saved") in result.stderr


def test_a_folder_without_a_checkpoint_is_no_run(mixed: ShardIndex, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints" / ".0000000004.partial").mkdir(parents=True)
    fit(config(mixed, tmp_path / "run", epochs=1))
    assert checkpoint.find(tmp_path / "run").position > 0


def test_an_old_run_is_not_overwritten(mixed: ShardIndex, finished: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a run already"):
        fit(config(mixed, finished))


def test_a_second_stage_starts_from_the_first(mixed: ShardIndex, finished: Path, tmp_path: Path) -> None:
    """At learning rate 0 nothing moves: rows of known classes are those of stage 1's best."""
    run = tmp_path / "second"
    fit(config(mixed, run, task="hand-object", init=str(finished), epochs=0.5, lr=0.0))
    first, second = weights(finished, "best"), weights(run)
    name = "classifier.low_classifier.weight"
    assert torch.equal(second[name][[0, 1, 3]], first[name])
    assert torch.equal(second["backbone.0.0.weight"], first["backbone.0.0.weight"])
    assert checkpoint.find(run).task.name == "hand-object"


def test_a_loss_that_is_not_finite_names_the_samples(
    mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotrain.learning.criterion.set_loss", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"the loss is nan at position 0.*(ego|wrist)_train_\d"):
        fit(config(mixed, tmp_path / "run"))


@pytest.mark.parametrize(("share", "said"), [(0.9, True), (0.4, False)])
def test_a_run_as_slow_as_its_loading_says_so(
    mixed: ShardIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    share: float,
    said: bool,
) -> None:
    monkeypatch.setattr("hotrain.loading.loader.Batches.late", lambda batches: share)
    fit(config(mixed, tmp_path / "run", epochs=0.5, workers=1))
    assert ("90% of the batches were not there yet" in capsys.readouterr().err) == said


def test_it_is_said_early_too(
    mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once after so many batches, and at the end; not before, and not in between."""
    shares = []

    def late(batches: Any) -> float:
        shares.append(batches._asked)
        return 0.9

    monkeypatch.setattr("hotrain.loading.loader.Batches.late", late)
    monkeypatch.setattr("hotrain.fit._EARLY", 3)
    fit(config(mixed, tmp_path / "run", epochs=3, workers=1, accumulation=2))  # 6 steps of 2 batches
    assert sorted(set(shares)) == [4, 12]
    assert capsys.readouterr().err.count("90% of the batches were not there yet") == 2


def test_a_validation_beyond_the_checkpoint_is_repeated(mixed: ShardIndex, finished: Path, tmp_path: Path) -> None:
    """The last checkpoint was lost, or is a copy of before: what the log says of later ones does not count."""
    run = tmp_path / "run"
    fit(config(mixed, run, epochs=2))
    shutil.copy(finished / "log.jsonl", run)
    fit(config(mixed, run), resume=True)
    assert [entry["position"] for entry in read_log(run) if entry["kind"] == "val"] == [8, 16, 24]


def test_a_run_goes_on_if_there_is_one(mixed: ShardIndex, finished: Path, tmp_path: Path) -> None:
    """One command to start, to go on, and to do nothing when all is done."""
    run = tmp_path / "run"
    given = ["fit", "--shards", str(mixed.shards[0].parent), "--model", MODEL, "--weights", "none", "--crop", "32"]
    given += ["--samples-per-epoch", "8", "--batch-size", "4", "--workers", "0", "--device", "cpu", "--lr", "0.002"]
    given += ["--resume-if-any", "--out", str(run), "--epochs"]
    for epochs, position, said in (("1", 8, False), ("3", 24, True), ("3", 24, True)):
        result = CliRunner().invoke(cli, [*given, epochs])
        assert result.exit_code == 0, result.output
        assert ("going on from" in result.stderr) == said
        assert checkpoint.find(run, which="last").position == position
    assert CliRunner().invoke(cli, ["fit", "--resume-if-any", "--shards", "x"]).exit_code == 2


def test_without_a_validation_split_it_says_so(
    mixed: ShardIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = tuple(str(path) for path in mixed.shards if "-train-" in path.name)
    fit(FitConfig(**{**config(mixed, tmp_path / "run", epochs=1).__dict__, "shards": only}))
    assert "no split val" in capsys.readouterr().err
    assert checkpoint.find(tmp_path / "run").position == 8
    assert list((tmp_path / "run" / "previews").glob("*.png"))


def test_it_learns(mixed: ShardIndex, tmp_path: Path) -> None:
    """Bright discs on dark ground are found after 40 steps; random weights find a tenth of them."""
    run = tmp_path / "run"
    fit(config(mixed, run, epochs=1, samples_per_epoch=320, batch_size=8, lr=5e-3))
    assert read_log(run)[-2]["iou hand"] > 0.5


def test_an_arm_that_nothing_tells_from_its_hand_is_never_learnt(shards: Callable[..., Path], tmp_path: Path) -> None:
    """All masks are hand with arm: after a few steps every hand is called hand, at either extent."""
    folder = shards(Spec("a", meaning="hand-arm", samples=8), Spec("a", "val", samples=4, meaning="hand-arm"))
    index = ShardIndex.open(folder)
    fit(config(index, tmp_path / "run", epochs=1, samples_per_epoch=800, batch_size=8, lr=5e-3))
    opened = checkpoint.find(tmp_path / "run")
    predictor = load_predictor(opened, torch.device("cpu"))
    reader, answers = index.reader(), []
    for row in index.select(split="val").tolist():
        image = decode_image(reader.image(row), "jpg", "k")
        answers.append(predictor.classes([predictor.prepare(image)], (image.shape[1], image.shape[0])))
    counts = np.bincount(np.concatenate(answers, axis=None), minlength=3)
    assert counts[opened.task.classes.index("hand")] > 500 and counts[opened.task.classes.index("arm")] == 0


def _command(index: ShardIndex, out: Path, *more: str) -> list[str]:
    shards = str(index.shards[0].parent)
    options = ["--weights", "none", "--crop", "32", "--batch-size", "4", "--samples-per-epoch", "8", "--device", "cpu"]
    return [
        sys.executable,
        "-m",
        "hotrain.cli",
        "fit",
        "--shards",
        shards,
        "--out",
        str(out),
        "--model",
        MODEL,
        *options,
        *more,
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_saves_and_exits_75(
    mixed: ShardIndex, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        _command(mixed, run, "--epochs", "500", "--workers", "1"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    waited = threading.Timer(90, process.kill)
    waited.start()
    while not list(run.glob("checkpoints/0*")) and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, number)  # as a terminal's Ctrl-C or a scheduler does: loading workers get it too
    _, messages = process.communicate(timeout=60)
    waited.cancel()
    assert process.returncode == 75, messages
    assert "--resume" in messages and "Traceback" not in messages
    saved = checkpoint.find(run, which="last")
    assert 0 < saved.position < 4000 and not list(run.glob("checkpoints/.*"))
    assert load_file(saved.path / "weights.safetensors")


_FAILS_MIDWAY = """
import sys
from hotrain.learning import criterion
from hotrain.cli import main
calls = 0
original = criterion.set_loss
def set_loss(*arguments):
    global calls
    calls += 1
    if calls == 3:
        raise {error}
    return original(*arguments)
criterion.set_loss = set_loss
main()
"""


@pytest.mark.parametrize("error", ["RuntimeError('a bug')", "KeyboardInterrupt"])
def test_a_run_that_dies_does_not_wait_for_its_workers(mixed: ShardIndex, tmp_path: Path, error: str) -> None:
    """Loading processes ignore SIGTERM, which is all that Python's exit sends them before it joins them."""
    command = _command(mixed, tmp_path / "run", "--epochs", "9", "--workers", "2")
    command[1:3] = ["-c", _FAILS_MIDWAY.replace("{error}", error)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode != 0 and "No such" not in done.stderr


def test_two_processes_train_one_model(mixed: ShardIndex, tmp_path: Path) -> None:
    """Under torchrun with gloo: both ranks join, the loss is one number, and one checkpoint comes out."""
    run = tmp_path / "run"
    command = _command(mixed, run, "--epochs", "1", "--workers", "0")
    command[1:3] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "hotrain.cli"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(run)]
    assert checkpoint.find(run).position == 8
    fit(config(mixed, tmp_path / "alone", epochs=1))
    # The first step's loss does not depend on weights that were ever updated; BatchNorm saw half of it per rank.
    two, one = (read_log(path)[0]["loss"] for path in (run, tmp_path / "alone"))
    assert two == pytest.approx(one, rel=0.3)


def test_help_needs_no_torch() -> None:
    code = "import sys, hotrain.cli; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_recipe_gives_options_and_the_command_line_wins(mixed: ShardIndex, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""
        shards = "{mixed.shards[0].parent}"
        model = "{MODEL}"
        weights = "none"
        crop = 32
        batch-size = 4
        epochs = 9
        samples-per-epoch = 8
        workers = 0
        device = "cpu"
        [source-weights]
        ego = 3
        """
    )
    run = tmp_path / "run"
    result = CliRunner().invoke(cli, ["fit", "--config", str(recipe), "--epochs", "1", "--out", str(run)])
    assert result.exit_code == 0, result.output
    stored = FitConfig.from_json(checkpoint.find(run).facts["config"])
    assert (stored.crop, stored.epochs, stored.source_weights) == (32, 1, {"ego": 3})
    for text, words in (
        ("crops = 3", "'crops' is no option"),
        ("crop = 'x'", "crop is 'x', expected int"),
        ("=", "recipe"),
    ):
        recipe.write_text(text)
        with pytest.raises(TrainingError, match=words):
            read_recipe(recipe)
    with pytest.raises(TrainingError, match="task is 'feet', expected one of hand"):
        config(mixed, run, task="feet")


def test_eval_prints_one_json_document(mixed: ShardIndex, finished: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    shards = str(mixed.shards[0].parent)
    arguments = ["eval", "--checkpoint", str(finished), "--shards", shards, "--device", "cpu"]
    result = CliRunner().invoke(cli, [*arguments, "--json", "--baseline", "--sheet", str(sheet)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {"samples", "iou", "iou_macro", "jaccard", "accuracy", "extent", "by_source", "baseline"} <= set(found)
    assert found["samples"] == 7 and found["extent"] == "mixed"
    assert {name: source["extent"] for name, source in found["by_source"].items()} == {"ego": "arm", "wrist": "wrist"}
    assert set(found["iou"]) == {"background", "hand"}
    assert found["baseline"]["iou"]["hand"] > 0.8
    assert Image.open(sheet).size[0] > 300
    table = CliRunner().invoke(cli, [*arguments, "--baseline"])
    assert table.exit_code == 0 and "colour histogram" in table.stdout and "wrist" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fit"], 2, "--shards"),
        (["fit", "--shards", "x", "--source-weight", "a"], 2, "NAME=NUMBER"),
        (["fit", "--resume"], 2, "needs --out"),
        (["fit", "--shards", "/nowhere/*.tar", "--device", "cpu"], 1, "no .tar shard found"),
        (["eval", "--shards", "x", "--checkpoint", "/nowhere"], 1, "holds no checkpoint"),
    ],
)
def test_wrong_usage(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hotrain.cli", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done.stderr
