"""The samples of a run and of an evaluation: expressions, exclusions, leaks across builds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_shards import Spec

from hodata.errors import EmptySelectionError
from hodata.labels import TASKS
from hodata.shards.reader import ShardIndex
from hodata.shards.select import Selector
from hotrain.config import FitConfig, read_recipe
from hotrain.errors import SelectionError
from hotrain.learning.selection import select, select_to_score

TASK = TASKS["hand"]


def config(folder: Path, where: str = "", exclude: tuple[str, ...] = ()) -> FitConfig:
    return FitConfig((str(folder),), "runs/x", where=where, exclude=exclude)


@pytest.fixture
def folder(shards: Callable[..., Path]) -> Path:
    return shards(Spec("a", samples=7), Spec("b", samples=5), Spec("a", "val", 4), Spec("b", "val", 3))


def test_a_run_trains_and_validates_on_the_selection_alone(folder: Path) -> None:
    everything = select(config(folder), TASK)
    chosen = select(config(folder, "source = 'b'", ("b_train_1", "b_val_0", "nobody")), TASK)
    keys = chosen.index.column("key")
    assert {name: keys[rows].tolist() for name, rows in chosen.rows.items()} == {
        "b": [f"b_train_{number}" for number in (0, 2, 3, 4)]
    }
    assert keys[chosen.val_rows].tolist() == ["b_val_1", "b_val_2"]
    assert chosen.data_hash != everything.data_hash
    assert chosen.data_hash == select(config(folder, "'b' = source", ("b_train_1",)), TASK).data_hash
    assert "1 of 3 excluded keys are in none of the shards; the first: 'nobody'" in chosen.notes
    assert "selected: 6 of 19 samples, 4 of them to train on" in chosen.notes


def test_of_many_validation_samples_those_whose_keys_hash_lowest_are_scored(shards: Callable[..., Path]) -> None:
    folder = shards(Spec("a"), Spec("b"), Spec("a", "val", 40), Spec("b", "val", 20))
    keys = [f"{name}_val_{number}" for name, count in (("a", 40), ("b", 20)) for number in range(count)]
    expected = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).hexdigest())[:20]
    assert {key[0] for key in expected} == {"a", "b"}
    chosen = select(replace(config(folder), val_limit=20), TASK)
    assert sorted(chosen.index.column("key")[chosen.val_rows]) == sorted(expected)
    assert len(select(replace(config(folder), val_limit=60), TASK).val_rows) == 60


def test_an_empty_selection_is_refused(folder: Path) -> None:
    with pytest.raises(EmptySelectionError, match="0 left by  source = 'c'"):
        select(config(folder, "source = 'c'"), TASK)
    with pytest.raises(SelectionError, match="7 of 19 samples are selected, none of them in the split train"):
        select(config(folder, "split = 'val'"), TASK)


def test_expression_and_keys_are_stored_with_a_run(folder: Path) -> None:
    run = config(folder, "held", ("a", "b"))
    assert FitConfig.from_json(json.loads(json.dumps(run.to_json()))) == run
    older = {name: value for name, value in run.to_json().items() if name not in ("where", "exclude")}
    assert FitConfig.from_json(older).exclude == ()


def test_a_recipe_names_a_file_of_keys_or_the_keys(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("one\ntwo\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'where = "held"\nexclude = "{tmp_path}/keys.txt"\n')
    assert read_recipe(recipe) == {"where": "held", "exclude": ("one", "two")}
    recipe.write_text('exclude = ["three"]\n')
    assert read_recipe(recipe) == {"exclude": ("three",)}


def test_a_leak_is_refused_until_the_selection_leaves_it_out(shards: Callable[..., Path]) -> None:
    specs = [Spec("v2", group="ho3d/SM1"), Spec("v2", "val", group="ho3d/SM2"), Spec("v3", "test", group="ho3d/SM1")]
    folder = shards(*specs, Spec("other", "test"))
    with pytest.raises(SelectionError, match=r"'ho3d/SM1' is in train in 'v2' and in test in 'v3'.*--where"):
        select(config(folder), TASK)
    assert set(select(config(folder, "source = 'v2'"), TASK).rows) == {"v2"}

    index = ShardIndex.open(folder)
    with pytest.raises(SelectionError, match="'ho3d/SM1' is in train in 'v2' and in test in 'v3'"):
        select_to_score(index, Selector(), "test")
    rows, notes = select_to_score(index, Selector("source = 'other'"), "test")
    assert (set(index.column("source")[rows]), notes) == ({"other"}, [])
    rows, _ = select_to_score(index, Selector("source <> 'v2'"), "test")
    assert set(index.column("source")[rows]) == {"other", "v3"}
    assert len(select_to_score(index, Selector(), "train")[0]) == 6
    with pytest.raises(EmptySelectionError, match="0 left by  split val"):
        select_to_score(index, Selector("source = 'v3'"), "val")


def test_a_published_split_that_leaks_is_a_warning_in_evaluation(opened: Callable[..., ShardIndex]) -> None:
    train = Spec("a", group="a/1", policy="official")
    index = opened(train, Spec("a", "test", group="a/1", policy="official"))
    rows, notes = select_to_score(index, Selector(), "test")
    assert len(rows) == 6
    assert "a has its published splits" in notes[0]
