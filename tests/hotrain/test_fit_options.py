"""Options of a run: averaged weights, going on with them and with older runs, number format, compiler, BatchNorm."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from drawn_shards import crop_data
from test_fit import MODEL, assert_same, config
from torch import nn

from hodata.labels import TASKS
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.cli import cli
from hotrain.config import UNRECORDED, FitConfig, read_recipe
from hotrain.errors import CheckpointError, Interrupted, TrainingError
from hotrain.fit import fit
from hotrain.learning.acceleration import TrainingModel, place
from hotrain.learning.averaging import Average
from hotrain.learning.optimizer import create_optimizer, parameter_groups
from hotrain.learning.selection import select
from hotrain.learning.start import begin
from hotrain.learning.step import Flags, Step
from hotrain.model import create_model
from hotrain.predict import load_predictor
from hotrain.progress import read_log

EMA: dict[str, Any] = {"ema": 0.9, "optimizer": "sgd", "schedule": "cosine", "clip": 1.0, "dice": 0.5}
EMA |= {"hard_pixels": 0.5, "lr": 0.02}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def averaged(mixed: ShardIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps with averaged weights and all that can stand beside them."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("averaged") / "run"
    fit(config(mixed, run, **EMA))
    return run


def both(run: Path) -> dict[str, torch.Tensor]:
    """Averaged weights and those that training goes on from."""
    found = checkpoint.find(run, which="last")
    raw = {f"raw {name}": value for name, value in found.trained_weights().items()}
    return {**found.weights(), **raw}


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int, config: FitConfig) -> None:
    """Stop a run after so many steps, with a checkpoint."""
    taken = 0
    original = Step.take

    def take(self: Step, parts: Any, position: int, flags: Flags) -> tuple[float, Flags]:
        nonlocal taken
        taken += 1
        return original(self, parts, position, flags._replace(stop=taken == after))

    with monkeypatch.context() as patch:
        patch.setattr(Step, "take", take)
        with pytest.raises(Interrupted):
            fit(config)


@pytest.mark.parametrize("after", [1, 3])
def test_averaged_weights_resume_bit_for_bit(
    mixed: ShardIndex, tmp_path: Path, averaged: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    interrupted(monkeypatch, after, config(mixed, run, **EMA))
    fit(config(mixed, run, **EMA), resume=True)
    assert_same(both(run), both(averaged))
    scores = [[entry for entry in read_log(one) if entry["kind"] == "val"] for one in (run, averaged)]
    assert scores[0] == scores[1]


def test_a_checkpoint_holds_the_average_of_the_weights_that_training_had(
    mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebuilt from the raw weights of every step; those are what a run without an average has."""
    states: list[dict[str, torch.Tensor]] = []
    original = checkpoint.save

    def save(run: Path, **arguments: Any) -> Path:
        if arguments["raw"] is not None:
            states.append({name: value.clone() for name, value in arguments["raw"].items()})
        return original(run, **arguments)

    monkeypatch.setattr(checkpoint, "save", save)
    fit(config(mixed, tmp_path / "run", ema=0.9, epochs=1.5, checkpoint_every=0.0))
    fit(config(mixed, tmp_path / "plain", epochs=1.5))
    opened, plain = (checkpoint.find(tmp_path / name, which="last") for name in ("run", "plain"))
    assert_same(opened.trained_weights(), plain.weights())
    assert not (plain.path / "raw.safetensors").exists()
    one_each = [state for n, state in enumerate(states) if not n or any(
        not torch.equal(state[name], states[n - 1][name]) for name in state
    )]  # fmt: skip
    assert len(one_each) == 3
    model = create_model(MODEL, 3)
    average = Average(model, 0.9)
    for state in one_each:
        model.load_state_dict(state)
        average.update()
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(opened.weights()[name], value, msg=name)
    name = "backbone.0.0.weight"
    assert not torch.equal(opened.weights()[name], opened.trained_weights()[name])


def test_the_average_is_what_is_scored_and_calibrated(
    mixed: ShardIndex, averaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model that validation sees after an epoch has the weights of that epoch's weights.safetensors."""
    seen: list[dict[str, torch.Tensor]] = []
    from hotrain import fit as module

    original = module.evaluate

    def evaluate(index: Any, rows: Any, task: Any, predictor: Any, **more: Any) -> Any:
        seen.append({name: value.clone() for name, value in predictor._model.state_dict().items()})
        return original(index, rows, task, predictor, **more)

    monkeypatch.setattr(module, "evaluate", evaluate)
    fit(config(mixed, tmp_path / "run", **{**EMA, "epochs": 1}))
    found = checkpoint.find(tmp_path / "run")
    assert_same(seen[-1], found.weights())
    assert not torch.equal(seen[-1]["backbone.0.0.weight"], found.trained_weights()["backbone.0.0.weight"])
    assert json.loads((averaged / "best.json").read_text())["score"]["samples"] == 9
    predictor = load_predictor(checkpoint.find(averaged), torch.device("cpu"))
    assert_same(dict(predictor._model.state_dict()), checkpoint.find(averaged).weights())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of a model as a file, `x.pth`, and as a run, `run`."""
    folder, model = tmp_path_factory.mktemp("trained"), create_model(MODEL, 3)
    torch.save(model.state_dict(), folder / "x.pth")
    facts = {"task": "hand", "classes": ["background", "hand", "arm"], "model": MODEL}
    facts |= {"input_rule": {"kind": "short-side", "size": 32}, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}
    checkpoint.save(folder / "run", position=1, weights=model.state_dict(), optimizer={}, facts=facts)
    return folder


@pytest.mark.parametrize(
    ("optimizer", "lr", "lr_scratch"), [("adamw", 1e-3, 3e-3), ("muon", 1e-3, 3e-3), ("sgd", 1e-2, 5e-2)]
)
def test_the_less_a_start_knows_the_faster_it_learns(
    mixed: ShardIndex, trained: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, lr: float, lr_scratch: float
) -> None:
    """Rate of the head, and that of the backbone relative to it; what is asked for stands above both."""
    monkeypatch.setattr("hotrain.learning.start.load_coco", lambda *_: ((0.4, 0.4, 0.4), (0.2, 0.2, 0.2)))

    def rates(**options: Any) -> tuple[float, float]:
        start = begin(
            config(mixed, Path("unused"), optimizer=optimizer, **{"lr": None, **options}), TASKS["hand"], None
        )
        return start.lr, start.body_factor

    assert rates(weights="none") == (lr_scratch, 1.0)
    assert rates(weights="coco") == rates(weights=str(trained / "x.pth")) == (lr, 0.1)
    assert rates(init=str(trained / "run")) == (lr, 0.5)
    assert rates(weights="coco", lr=0.7, body_factor=0.3) == (0.7, 0.3)


@pytest.mark.parametrize("change", [{"optimizer": "adamw"}, {"schedule": "poly"}, {"ema": 0.5}, {"ema": 0.0}])
def test_another_recipe_is_refused(mixed: ShardIndex, averaged: Path, change: dict[str, Any]) -> None:
    name, value = next(iter(change.items()))
    with pytest.raises(CheckpointError, match=f"{name} is {EMA[name]!r} in the checkpoint, this run has {value!r}"):
        fit(config(mixed, averaged, **{**EMA, **change}), resume=True)


def test_another_loss_is_refused(mixed: ShardIndex, averaged: Path) -> None:
    for name, value in (("dice", 0.1), ("hard_pixels", 1.0), ("open_labels", "ignore")):
        stored = {"open_labels": "'sets'"}.get(name, "0.5")
        with pytest.raises(CheckpointError, match=f"{name} is {stored} in the checkpoint, this run has {value!r}"):
            fit(config(mixed, averaged, **{**EMA, name: value}), resume=True)


def test_runs_of_before_these_options_go_on(mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the fields in run.json, whatever the defaults are by then."""
    run = tmp_path / "run"
    interrupted(monkeypatch, 3, config(mixed, run))
    path = checkpoint.find(run, which="last").path / "run.json"
    facts = json.loads(path.read_text())
    for name in UNRECORDED:
        del facts[name], facts["config"][name]
    facts["config"]["weight_decay"] = 0.01
    path.write_text(json.dumps(facts))
    defaults = FitConfig.__init__.__defaults__
    assert defaults is not None
    names = [name for name in FitConfig.__dataclass_fields__ if name not in ("shards", "out")]
    later = tuple(0.99 if name == "ema" else value for name, value in zip(names, defaults, strict=True))
    with monkeypatch.context() as patch:
        patch.setattr(FitConfig.__init__, "__defaults__", later)
        assert config(mixed, run).ema == 0.99
        stored = FitConfig.from_json(checkpoint.find(run, which="last").facts["config"])
        assert {name: getattr(stored, name) for name in UNRECORDED} == UNRECORDED
        fit(stored, resume=True)
    fit(config(mixed, tmp_path / "whole"))
    assert_same(both(run), both(tmp_path / "whole"))


def test_a_damaged_raw_file_is_explained(mixed: ShardIndex, tmp_path: Path) -> None:
    fit(config(mixed, tmp_path / "run", ema=0.9, epochs=0.5))
    (checkpoint.find(tmp_path / "run").path / "raw.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"raw\.safetensors: cannot be read"):
        fit(config(mixed, tmp_path / "run", ema=0.9), resume=True)


def one_step(mixed: ShardIndex, **options: Any) -> tuple[float, dict[str, torch.Tensor], torch.dtype]:
    """The loss of a step, the weights after it, and the type of the logits."""
    task, settings = TASKS["hand"], config(mixed, Path("unused"), **options)
    start = begin(settings, task, None)
    model = place(start.model, torch.device("cpu"), False)
    kinds: list[torch.dtype] = []
    model.register_forward_hook(lambda _, __, outputs: kinds.append(outputs["out"].dtype))
    optimizer = create_optimizer("sgd", parameter_groups(model, 0.01, 1.0, 0.0))
    step = Step(start, optimizer, task, select(settings, task), settings, torch.device("cpu"))
    assert step.take([crop_data(mixed)[np.arange(4)]], 0, Flags()) == ([], Flags())
    (loss,) = step.settle()
    assert step.settle() == []
    return loss, model.state_dict(), kinds[-1]


def test_precision(mixed: ShardIndex) -> None:
    """bf16 answers, a float32 loss near that of fp32, float32 weights; auto is fp32 on the CPU."""
    found = {name: one_step(mixed, precision=name) for name in ("auto", "fp32", "bf16")}
    assert [kind for _, _, kind in found.values()] == [torch.float32, torch.float32, torch.bfloat16]
    assert_same(found["auto"][1], found["fp32"][1])
    assert found["bf16"][0] == pytest.approx(found["fp32"][0], rel=0.1) and found["bf16"][0] != found["fp32"][0]
    assert {value.dtype for value in found["bf16"][1].values()} == {torch.float32, torch.int64}


def test_compiled_steps_keep_names_and_learn_the_same(mixed: ShardIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through torch's tracer, without its code generator, which takes minutes."""
    original, compiled = torch.compile, []

    def compile_(model: nn.Module) -> Any:
        compiled.append(model)
        return original(model, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile_)
    plain, traced = one_step(mixed), one_step(mixed, compile=True)
    assert len(compiled) == 1 and plain[1].keys() == traced[1].keys() == create_model(MODEL, 3).state_dict().keys()
    assert traced[0] == pytest.approx(plain[0], rel=1e-4)
    for name, value in plain[1].items():
        torch.testing.assert_close(traced[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_compiler_that_fails_is_explained(mixed: ShardIndex, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.aot_autograd import make_boxed_func
    from torch._inductor.exc import InductorError

    def broken(*_: Any) -> Any:  # as torch's own code generator does
        raise InductorError(RuntimeError("no C++ compiler is here"), None)

    def working(graph: Any, _: Any) -> Any:
        return make_boxed_func(graph.forward)

    backend = broken if where == "forward" else aot_autograd(fw_compiler=working, bw_compiler=broken)
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: original(model, backend=backend))
    with pytest.raises(TrainingError, match=r"^--compile: .*no C\+\+ compiler is here.*leave --compile out"):
        one_step(mixed, compile=True)


def test_synchronised_batchnorm_is_for_cuda(mixed: ShardIndex, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--sync-batchnorm needs CUDA, and this run computes on cpu; leave it out"):
        fit(config(mixed, tmp_path / "run", sync_batchnorm=True))


def test_synchronised_batchnorm_keeps_names_parameters_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model(MODEL, 3).eval()
    names, parameters = list(model.state_dict()), [id(parameter) for parameter in model.parameters()]
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = model(image)["out"]
        monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)  # there is no GPU here
        placed = place(model, torch.device("cuda"), True)
        assert torch.equal(placed(image)["out"], before)
    assert placed is model and list(placed.state_dict()) == names
    assert [id(parameter) for parameter in placed.parameters()] == parameters
    norms = [module for module in placed.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert {type(norm) for norm in norms} == {nn.SyncBatchNorm} and {norm.momentum for norm in norms} == {0.1}


def test_gradients_are_scaled_to_the_norm(mixed: ShardIndex) -> None:
    """SGD's first step is the rate times the gradient: with a small norm it is that long."""
    lengths = {}
    for clip in (0.0, 1e-2, 1e9):
        settings = config(mixed, Path("unused"), clip=clip)
        start = begin(settings, TASKS["hand"], None)
        before = torch.cat([parameter.detach().double().flatten() for parameter in start.model.parameters()])
        _, after, _ = one_step(mixed, clip=clip)
        moved = torch.cat([after[name].double().flatten() for name, _ in start.model.named_parameters()]) - before
        lengths[clip] = float(moved.norm()) / 0.01
    assert lengths[0.0] > 0.1 and lengths[0.0] == lengths[1e9]
    assert lengths[1e-2] == pytest.approx(1e-2, rel=0.05)  # weights are rounded to float32


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50"])
def test_dropout_is_that_of_the_head(mixed: ShardIndex, tmp_path: Path, name: str) -> None:
    """torchvision's own where nothing is said; an auxiliary head keeps its own."""
    found = {}
    for dropout in (None, 0.0):
        settings = config(mixed, tmp_path, model=name, dropout=dropout)
        model = begin(settings, TASKS["hand"], None).model
        found[dropout] = [(part, each.p) for part, each in model.named_modules() if isinstance(each, nn.Dropout)]
    assert [p for part, p in found[None] if part.startswith("classifier.")] == [0.5]
    assert [p for part, p in found[0.0] if part.startswith("classifier.")] == [0.0]
    assert [p for part, p in found[0.0] if part.startswith("aux")] == [0.1] * ("resnet" in name)


def test_dropout_of_a_model_without_any_is_refused(mixed: ShardIndex, tmp_path: Path) -> None:
    """Said by the command, whose option it is."""
    given = [
        "fit",
        "--shards",
        str(mixed.shards[0].parent),
        "--out",
        str(tmp_path),
        "--model",
        MODEL,
        "--dropout",
        "0.1",
    ]
    with pytest.raises(TrainingError, match=f"--dropout: {MODEL} has no dropout"):
        CliRunner().invoke(cli, given, catch_exceptions=False)


def test_every_option_stands_on_the_command_line_and_in_a_recipe(mixed: ShardIndex, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tmp_path / "recipe.toml"
    recipe.write_text('optimizer = "sgd"\nschedule = "cosine"\nweight-decay = 0.001\nema = 0.5\ncompile = true\n')
    given = [
        "fit", "--config", str(recipe), "--shards", str(mixed.shards[0].parent), "--out", str(run), "--model", MODEL,
        "--weights", "none", "--crop", "32", "--batch-size", "4", "--samples-per-epoch", "4", "--epochs", "1",
        "--workers", "0", "--device", "cpu", "--schedule", "constant", "--warmup", "0.5", "--clip", "2",
        "--dice", "0.25", "--hard-pixels", "0.75", "--precision", "fp32", "--no-compile", "--no-sync-batchnorm",
    ]  # fmt: skip
    result = CliRunner().invoke(cli, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = checkpoint.find(run).facts
    expected = {
        "optimizer": "sgd", "schedule": "constant", "ema": 0.5, "clip": 2.0, "dice": 0.25, "hard_pixels": 0.75,
        "precision": "fp32", "compile": False, "sync_batchnorm": False,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected and found["config"]["weight_decay"] == 0.001
    assert found["config"]["warmup"] == 0.5
    assert found["lr"] == 0.05 and set(expected) <= set(UNRECORDED)
    recipe.write_text("compile = 1")
    with pytest.raises(TrainingError, match="compile is 1, expected bool"):
        read_recipe(recipe)
    recipe.write_text("ema = true")
    with pytest.raises(TrainingError, match="ema is True, expected float"):
        read_recipe(recipe)


def test_the_command_line_has_every_option_with_its_default() -> None:
    options = cli.commands["fit"].make_context("fit", []).params
    for field in fields(FitConfig):
        if field.name in ("shards", "out", "exclude", "source_weights"):  # required, dated, files, pairs
            assert field.name.removesuffix("s") in options or field.name in options
        else:
            assert options[field.name] == (None if field.default is MISSING else field.default), field.name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "adam"}, "expected one of adamw, muon, sgd"),
        ({"schedule": "step"}, "expected one of poly, cosine, constant"),
        ({"ema": 1.0}, "ema is 1.0, expected 0 or more and less than 1"),
        ({"clip": -1.0}, "clip is -1.0, expected 0 or more"),
        ({"warmup": 1.5}, "warmup is 1.5, expected 0 to 1"),
        ({"dropout": 1.0}, "dropout is 1.0, expected 0 or more and less than 1"),
        ({"dice": -1.0}, "dice is -1.0, expected 0 or more"),
        ({"hard_pixels": 0.0}, "hard_pixels is 0.0, expected more than 0 and at most 1"),
        ({"precision": "fp16"}, "expected one of auto, bf16, fp32"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1, expected 0 or more"),
    ],
)
def test_options_that_no_run_can_have(mixed: ShardIndex, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        config(mixed, tmp_path, **change)


def test_a_model_that_is_not_shared_or_compiled_is_called_as_it_is() -> None:
    model = create_model(MODEL, 3)
    trained = TrainingModel(model, torch.device("cpu"), "auto", False)
    assert trained.forward is model and trained.parallel is model
