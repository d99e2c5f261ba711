"""The options of augmentation: from command line and recipe into the crops, and into a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_shards import Spec

from hodata.labels import TASKS, Label
from hotrain import checkpoint
from hotrain.config import SHARES, FitConfig, read_recipe
from hotrain.errors import Interrupted, TrainingError
from hotrain.fit import fit
from hotrain.learning.selection import select
from hotrain.learning.step import Flags, Step
from hotrain.loading.degrade import DegradeRule, degrade
from hotrain.loading.training_data import training_data

ALL_ON = {"blur": 0.4, "noise": 0.4, "jpeg": 0.4, "background": 0.4, "paste": 0.6}


@pytest.fixture
def folder(shards: Callable[..., Path]) -> Path:
    ego = {"meaning": "egohos", "hand": Label.LEFT_HAND, "item": Label.OBJECT_LEFT}
    wrist = Spec("wrist", samples=7, meaning="hand-wrist", size=(40, 40), item=Label.BACKGROUND)
    return shards(Spec("ego", samples=9, **ego), wrist, Spec("ego", "val", 2, **ego))


def config(folder: Path, out: Path, **changes: Any) -> FitConfig:
    options = {
        "model": "lraspp_mobilenet_v3_large", "weights": "none", "epochs": 1, "samples_per_epoch": 16, "crop": 32,
        "batch_size": 4, "workers": 0, "device": "cpu", "lr": 2e-3, **changes,
    }  # fmt: skip
    return FitConfig((str(folder),), str(out), **options)  # type: ignore[arg-type]


def test_aim_and_even_reach_the_crops(folder: Path, tmp_path: Path) -> None:
    """Small crops of large images: aimed ones show more hand; hands brought to one size have sizes nearer together."""
    small = {"size": 128, "jitter": 0.0}
    plain = config(folder, tmp_path, **small)
    selection, positions = select(plain, TASKS["hand"]), np.arange(64)

    def hand_share(**changes: float) -> float:
        label = training_data(config(folder, tmp_path, **small, **changes), selection)[positions]["label"]
        hands = (Label.LEFT_HAND, Label.RIGHT_HAND, Label.HAND)
        return torch.isin(label, torch.tensor(hands, dtype=torch.uint8)).flatten(1).any(1).float().mean().item()

    assert hand_share(aim=1.0) > hand_share() + 0.05
    evened = training_data(config(folder, tmp_path, **small, even=1.0), selection)
    assert evened.crop.hand_size > 1
    assert not torch.equal(evened[positions]["label"], training_data(plain, selection)[positions]["label"])


def test_a_source_is_drawn_by_the_root_of_its_size_unless_told(shards: Callable[..., Path], tmp_path: Path) -> None:
    folder = shards(Spec("large", samples=36), Spec("small", samples=4))
    for weights, expected in (((), 48), ((("small", 6.0),), 32), ((("small", 2.0), ("large", 2.0)), 32)):
        run = config(folder, tmp_path, source_weights=dict(weights))
        selection = select(run, TASKS["hand"])
        rows = training_data(run, selection)[np.arange(64)]["row"].numpy()
        assert (selection.index.column("source")[rows] == "large").sum() == pytest.approx(expected, abs=1)


def test_block_order_takes_eight_shards_at_a_time(shards: Callable[..., Path], tmp_path: Path) -> None:
    folder = shards(*(Spec("a", samples=1 + number % 3, shard=number) for number in range(20)))
    kept = {}
    for order in ("blocks", "shuffle"):
        run = config(folder, tmp_path, order=order)
        selection = select(run, TASKS["hand"])
        rows = training_data(run, selection)[np.arange(len(selection.train_rows))]["row"].numpy()
        assert sorted(rows.tolist()) == selection.train_rows.tolist()
        numbers, seen = selection.index.shard_number, selection.index.shard_number[rows]
        blocks = []
        while len(seen):
            first = list(dict.fromkeys(seen.tolist()))[:8]
            samples = int(np.isin(numbers, first).sum())
            blocks.append(set(seen[:samples].tolist()) == set(first))
            seen = seen[samples:]
        kept[order] = all(blocks)
    assert kept == {"blocks": True, "shuffle": False}


@pytest.mark.parametrize("name", [*SHARES, "flip", "jitter"])
def test_each_option_changes_crops_and_nothing_else(folder: Path, tmp_path: Path, name: str) -> None:
    """Each alone, so none is passed on under another's name: what changes tells which it was."""
    change = {"flip": False, "jitter": 0.0}.get(name, 1.0)
    plain, changed = config(folder, tmp_path), config(folder, tmp_path, **{name: change})
    selection = select(plain, TASKS["hand"])
    before, after = (training_data(each, selection)[np.arange(32)] for each in (plain, changed))
    assert all(torch.equal(before[fact], after[fact]) for fact in ("row", "position", "meaning"))
    labels = (before["label"] != after["label"]).flatten(1).any(1).float().mean().item()
    if name in ("blur", "noise", "jpeg"):
        expected = before["image"].permute(0, 2, 3, 1).numpy().copy()
        for image, position in zip(expected, before["position"].tolist(), strict=True):
            degrade(image, plain.seed, position, DegradeRule(**{name: 1.0}))
        assert labels == 0
        np.testing.assert_array_equal(after["image"].permute(0, 2, 3, 1), expected)
    else:
        assert labels > 0.3
    if name in ("background", "paste"):
        hands = before["label"] == Label.LEFT_HAND
        assert torch.equal(after["label"][hands], before["label"][hands]) == (name == "background")
    assert training_data(changed, selection).crop.flip == (name != "flip")


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    fit(config(folder, tmp_path / "whole", **ALL_ON))
    original = Step.take

    def take(self: Step, parts: Any, position: int, flags: Flags) -> tuple[float, Flags]:
        return original(self, parts, position, flags._replace(stop=position == 4))

    with monkeypatch.context() as patch:
        patch.setattr(Step, "take", take)
        with pytest.raises(Interrupted):
            fit(config(folder, tmp_path / "parts", **ALL_ON))
    fit(config(folder, tmp_path / "parts", **ALL_ON, workers=1), resume=True)
    whole, parts = (checkpoint.find(tmp_path / name, which="last").weights() for name in ("whole", "parts"))
    assert [name for name, value in whole.items() if not torch.equal(value, parts[name])] == []


def test_a_checkpoint_from_before_these_options_goes_on_without_them(folder: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run = tmp_path / "run"
    fit(config(folder, run, epochs=0.5))
    path = checkpoint.find(run, which="last").path / "run.json"
    facts = json.loads(path.read_text())
    for name in SHARES:
        del facts[name], facts["config"][name]
    del facts["config"]["flip"]
    path.write_text(json.dumps(facts))
    stored = FitConfig.from_json(checkpoint.find(run, which="last").facts["config"])
    assert [getattr(stored, name) for name in SHARES] == [0.0] * 5 and stored.flip
    fit(config(folder, run), resume=True)
    assert checkpoint.find(run, which="last").position == 16


def test_a_recipe_may_hold_them(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("flip = false\nblur = 0.25\npaste = 1\n")
    assert read_recipe(recipe) == {"flip": False, "blur": 0.25, "paste": 1}
    for text, words in (("flip = 1", "flip is 1, expected bool"), ("blur = true", "blur is True, expected float")):
        recipe.write_text(text)
        with pytest.raises(TrainingError, match=words):
            read_recipe(recipe)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"jpeg": 1.5}, "jpeg is 1.5, expected 0 to 1"), ({"background": 0.6, "paste": 0.5}, "at most 1 together")],
)
def test_shares_that_cannot_be(tmp_path: Path, changes: dict[str, float], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        config(tmp_path, tmp_path, **changes)
