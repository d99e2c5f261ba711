"""The recipes that come with the package: each is read, and says what its name promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import Spec

from hodata.labels import Label
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.cli import cli
from hotrain.config import FitConfig, read_recipe, recipe_names
from hotrain.crop import CropRule, cut, draw_window
from hotrain.errors import TrainingError
from hotrain.input_rule import InputRule
from hotrain.optimizer import learning_rate

# What a recipe leaves to the user, the machine or the start.
NOT_SPELLED = {"shards", "out", "where", "exclude", "init", "lr", "body_factor", "source_weights", "samples_per_epoch"}
NOT_SPELLED |= {"workers", "seed", "device", "order", "checkpoint_every", "on_corrupt", "max_corrupt", "weight_decay"}
NOT_SPELLED |= {"size", "precision", "compile", "sync_batchnorm"}


def test_the_recipes_there_are() -> None:
    assert recipe_names() == ["cpu", "default", "egohands", "egohos", "freihand", "ho3d", "reference"]
    help_text = CliRunner().invoke(cli, ["fit", "--help"]).output
    assert all(name in help_text for name in recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_one(name: str) -> None:
    FitConfig(("shards",), "run", **read_recipe(Path(name)))


def test_the_default_recipe_is_the_default() -> None:
    recipe = read_recipe(Path("default"))
    defaults = {item.name: item.default for item in fields(FitConfig)}
    assert {name: value for name, value in recipe.items() if defaults[name] != value} == {"task": "hand-object"}
    assert set(recipe) == set(defaults) - NOT_SPELLED


def test_a_recipe_s_name_that_there_is_none_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"refrence: no such file.*cpu, default.*reference"):
        read_recipe(Path("refrence"))
    monkeypatch.chdir(tmp_path)
    Path("cpu").write_text("crop = 40")  # a file of the user goes before a name
    assert read_recipe(Path("cpu")) == {"crop": 40}


def test_the_reference_recipe_changes_nothing_of_a_picture() -> None:
    """Its crops are whole squashed pictures, pixel for pixel what the network sees in an evaluation."""
    config = FitConfig(("shards",), "run", **read_recipe(Path("reference")))
    rule = InputRule(64, config.input_rule)
    rng = np.random.default_rng(0)
    crop = CropRule(64, CropRule.of_strength(64, config.jitter).scale, config.flip)
    image, mask = rng.integers(0, 256, (128, 256, 3), dtype=np.uint8), np.zeros((128, 256), np.uint8)
    mask[32:96, 64:128] = Label.HAND
    pixels, label = np.empty((64, 64, 3), np.uint8), np.empty((64, 64), np.uint8)
    for _ in range(5):
        window = draw_window(256, 128, rule, crop, rng.random(4))
        cut(image, mask, window, pixels, label)
        assert np.abs(pixels.astype(int) - rule.resize(image).astype(int)).max() <= 1  # two programs' rounding
        assert label[16:48, 16:32].min() == Label.HAND and (label > 0).sum() == 32 * 16
    rates = {learning_rate(step, 10, config.warmup, config.schedule) for step in range(10)}
    assert rates == {1.0} and config.weight_decay == 0 and config.body_factor == 1


def test_a_short_run_by_name(opened: Callable[..., ShardIndex], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    opened(Spec("a"), Spec("a", "val", samples=2))
    run = tmp_path / "run"
    short = ["--crop", "32", "--batch-size", "2", "--samples-per-epoch", "4", "--epochs", "1", "--workers", "0"]
    arguments = ["fit", "--config", "cpu", "--shards", str(tmp_path / "shards"), "--out", str(run), "--device", "cpu"]
    result = CliRunner().invoke(cli, [*arguments, *short])
    assert result.exit_code == 0, result.output
    stored = FitConfig.from_json(checkpoint.find(run).facts["config"])
    assert (stored.model, stored.lr, stored.crop) == ("deeplabv3_mobilenet_v3_large", 3e-3, 32)
