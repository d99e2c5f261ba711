"""Which runs there are, that they share what they must, and that a stopped comparison goes on."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from compare import runs
from compare.course import jaccard
from compare.data import SOURCES, require_drawn
from compare.rows import (
    CPU,
    OUR_RECIPES,
    OUR_SHARES,
    RATES,
    best_rate,
    first_runs,
    fit_arguments,
    precision,
    tuned_runs,
)
from compare.runs import CompareError, Job, train
from hodata.synth.scene import SCENE_VERSION
from hotrain.config import FitConfig, read_recipe


def test_three_seeds_are_seventeen_runs() -> None:
    first, names = first_runs(3), {run.name for run in first_runs(3)}
    assert len(first) == len(names) == 15
    assert [run.name for run in first[:4]] == [f"reference-{rate}-0" for rate in RATES]
    assert len(names | {run.name for run in tuned_runs("1e-3", 3)}) == 17
    assert len(names | {run.name for run in tuned_runs(RATES[0], 3)}) == 15  # the published runs are the tuned ones
    assert {run.recipe.name for run in first_runs(1)} >= {recipe.name for recipe in OUR_RECIPES.values()}


def test_every_run_sees_the_same_number_of_images_with_the_same_model(tmp_path: Path) -> None:
    shared, seen = set(), set()
    for run in first_runs(2):
        arguments = fit_arguments(run, "x/*.tar", tmp_path / run.name, 10_000, {"a": 30, "b": 10})
        assert arguments[0] == "fit" and arguments[arguments.index("--seed") + 1] == str(run.seed)
        for name in (
            "--model",
            "--weights",
            "--batch-size",
            "--epochs",
            "--samples-per-epoch",
            "--task",
            "--precision",
        ):
            shared.add((name, arguments[arguments.index(name) + 1]))
        seen.add((arguments[arguments.index("--config") + 1], "--source-weight=a=30" in arguments))
    assert len(shared) == 7 and len(seen) == 2
    assert 9_900 < CPU.run_images(10_000) <= 10_000 and CPU.epoch_images(1) == CPU.batch


def test_precision_is_what_the_processor_has_instructions_for() -> None:
    assert precision("flags\t\t: fpu avx512f avx512_bf16 amx_tile\n") == "bf16"
    assert precision("flags\t\t: fpu avx512f avx512_bf16x\n") == precision("") == "fp32"


def test_rows_of_ours_differ_in_what_open_labels_teach_and_in_nothing_else() -> None:
    ours = read_recipe(Path(OUR_RECIPES["sets"].config))
    FitConfig(("shards",), "run", **ours)
    assert ours["open_labels"] == "sets"
    for how, recipe in OUR_RECIPES.items():
        assert recipe.config == OUR_RECIPES["sets"].config
        assert recipe.options == OUR_SHARES + (() if how == "sets" else ("--open-labels", how))


def test_the_best_rate_is_the_lower_one_of_equals() -> None:
    assert best_rate({"3e-3": 0.5, "1e-4": 0.2, "1e-3": 0.5}) == "1e-3"


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Three commands that take a moment; the second one fails while a file `fail` is there."""
    program = (
        "import sys, pathlib; folder = pathlib.Path(sys.argv[-1] if sys.argv[-1] != '--resume' else sys.argv[-2])\n"
        "if folder.name == 'b' and (folder.parent / 'fail').exists(): sys.exit('no luck')\n"
        "(folder / 'checkpoints' / '1').mkdir(parents=True, exist_ok=True)\n"
        "(folder / 'times').open('a').write('x' + '-resumed' * (sys.argv[-1] == '--resume'))\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    monkeypatch.setattr(runs, "_POLL", 0.02)
    monkeypatch.setattr(runs, "COMMAND", (sys.executable, str(script)))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("lr = 0.1\n")
    return [Job(name, tmp_path / name, ["fit", "--config", str(recipe), str(tmp_path / name)], 1) for name in "abc"]


def test_finished_runs_are_not_repeated_and_a_failure_is_told(jobs: list[Job], tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "fail").touch()
    with pytest.raises(CompareError, match=r"b failed \(exit 1\)[\s\S]*no luck"):
        train(jobs, 1, said.append)
    assert (tmp_path / "a/times").read_text() == "x" and not (tmp_path / "c").exists()
    (tmp_path / "fail").unlink()
    train(jobs, 2, said.append)
    train(jobs, 2, said.append)
    assert [(tmp_path / name / "times").read_text() for name in "abc"] == ["x"] * 3
    assert "1 of 3 runs are there already" in said and "3 of 3 runs are there already" in said


def test_a_stopped_run_goes_on_and_another_one_s_folder_is_refused(jobs: list[Job], tmp_path: Path) -> None:
    (tmp_path / "a/checkpoints/1").mkdir(parents=True)
    with pytest.raises(CompareError, match=r"a\.json, which says of what, cannot be read"):
        train(jobs[:1], 1, lambda text: None)
    runs._write(jobs[0], finished=False)
    train(jobs[:1], 1, lambda text: None)
    assert (tmp_path / "a/times").read_text() == "x-resumed"
    note = json.loads(jobs[0].note.read_text())
    jobs[0].note.write_text(json.dumps({**note, "arguments": ["fit", "--lr", "1"]}))
    with pytest.raises(CompareError, match="other options"):
        train(jobs[:1], 1, lambda text: None)


def test_a_note_without_a_run_counts_for_nothing(jobs: list[Job], tmp_path: Path) -> None:
    train(jobs[:1], 1, lambda text: None)
    shutil.rmtree(tmp_path / "a")
    note = json.loads(jobs[0].note.read_text())
    jobs[0].note.write_text(json.dumps({**note, "arguments": ["fit", "--crop", "0"]}))
    train(jobs[:1], 1, lambda text: None)
    assert (tmp_path / "a/times").read_text() == "x" and json.loads(jobs[0].note.read_text()) == note


def test_a_run_on_other_pictures_or_of_other_defaults_is_refused(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(jobs[:1], 1, lambda text: None)
    with pytest.raises(CompareError, match=r"on other pictures \(other data\)"):
        train([replace(jobs[0], data="another hash")], 1, lambda text: None)

    @dataclass(frozen=True)
    class Tomorrow(FitConfig):
        jitter: float = 0.99

    monkeypatch.setattr(runs, "FitConfig", Tomorrow)
    with pytest.raises(CompareError, match=r"\(other defaults\)"):
        train(jobs[:1], 1, lambda text: None)


def test_a_run_without_a_best_checkpoint_cannot_be_tuned_by(tmp_path: Path) -> None:
    with pytest.raises(CompareError, match="has no best checkpoint"):
        jaccard(tmp_path)


def test_miniatures_of_another_seed_are_refused(tmp_path: Path) -> None:
    facts = {"scene_version": SCENE_VERSION, "frames": 20, "seed": 1, "files": {}}
    for source in SOURCES:
        (tmp_path / source).mkdir()
        (tmp_path / source / "SYNTHETIC.json").write_text(json.dumps(facts))
    require_drawn(tmp_path, 20, 1)
    for frames, seed in ((20, 2), (21, 1)):
        with pytest.raises(CompareError, match="was drawn otherwise"):
            require_drawn(tmp_path, frames, seed)


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_of_the_recipe_as_it_was_before_is_refused(jobs: list[Job], tmp_path: Path, finished: bool) -> None:
    train(jobs[:1], 1, lambda text: None)
    note = json.loads(jobs[0].note.read_text())
    assert note["finished"] and note["recipe"] == {"lr": 0.1}
    jobs[0].note.write_text(json.dumps({**note, "finished": finished}))
    (tmp_path / "recipe.toml").write_text("lr = 0.2\n")
    with pytest.raises(CompareError, match="other options"):
        train(jobs[:1], 1, lambda text: None)
