"""The recipes that come with the package: each is read, and says what its name promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from drawn_shards import Spec

from hodata.labels import TASKS
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.cli import cli
from hotrain.config import FitConfig, read_recipe, recipe_names
from hotrain.errors import TrainingError
from hotrain.learning.optimizer import learning_rate
from hotrain.learning.selection import select
from hotrain.loading.data import decode_image
from hotrain.loading.training_data import training_data

# What a recipe leaves to the user, the machine or the start.
NOT_SPELLED = {"shards", "out", "where", "exclude", "init", "lr", "body_factor", "source_weights", "samples_per_epoch"}
NOT_SPELLED |= {"workers", "seed", "device", "order", "checkpoint_every", "on_corrupt", "max_corrupt", "weight_decay"}
NOT_SPELLED |= {"dropout", "size", "precision", "compile", "sync_batchnorm"}


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


def test_the_reference_recipe_leaves_nothing_to_our_defaults() -> None:
    """A better default must not better the reference."""
    taste = {"extent", "val_limit", "accumulation"}
    assert set(read_recipe(Path("default"))) - set(read_recipe(Path("reference"))) <= taste


def test_a_recipe_s_name_that_there_is_none_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"refrence: no such file.*cpu, default.*reference"):
        read_recipe(Path("refrence"))
    monkeypatch.chdir(tmp_path)
    Path("cpu").write_text("crop = 40")  # a file of the user goes before a name
    assert read_recipe(Path("cpu")) == {"crop": 40}


def test_the_reference_recipe_changes_nothing_of_a_picture(opened: Callable[..., ShardIndex]) -> None:
    """Its crops are whole squashed pictures, what the network sees in an evaluation, with their masks."""
    index = opened(Spec("a", size=(128, 64), samples=8, kind="png"))
    recipe = {**read_recipe(Path("reference")), "crop": 64}
    config = FitConfig((str(index.shards[0].parent),), "run", **recipe)
    data = training_data(config, select(config, TASKS[config.task]))
    batch = data[np.arange(24)]
    for row, image, label in zip(batch["row"].tolist(), batch["image"], batch["label"].numpy(), strict=True):
        whole = data.rule.resize(decode_image(index.reader().image(row), "png", "a"))
        assert whole.shape == (64, 64, 3)
        difference = image.permute(1, 2, 0).numpy().astype(int) - whole
        assert np.abs(difference).max() <= 1  # two programs' rounding
        np.testing.assert_array_equal(label, index.reader().mask(row)[:, 1::2])
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
