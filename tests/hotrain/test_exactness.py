"""Two processes, or a batch in two passes, learn what one process learns from the same batch at once.

With frozen batch statistics nothing but the order of float sums may differ, whatever the loss, clipping and averaging.
The processes also end together where one of them alone computes what is not finite.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_shards import crop_data
from torch import Tensor, nn

from hodata.labels import TASKS
from hodata.shards.reader import ShardIndex
from hotrain import distributed
from hotrain.config import FitConfig
from hotrain.errors import TrainingError
from hotrain.learning import criterion
from hotrain.learning.averaging import Average
from hotrain.learning.optimizer import create_optimizer, parameter_groups
from hotrain.learning.selection import select
from hotrain.learning.start import Start
from hotrain.learning.step import Flags, Step
from hotrain.model import create_model

BATCH, STEPS, LR = 8, 2, 1e-4
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dice": {"dice": 0.7},
    "hard": {"hard_pixels": 0.2, "balance": 0.5},
    "clip": {"clip": 2.0},
    "muon": {"optimizer": "muon"},
    "all": {"dice": 0.7, "hard_pixels": 0.4, "clip": 2.0, "ema": 0.9, "schedule": "cosine"},
}


def frozen_model(images: Tensor) -> nn.Module:
    """Random weights; BatchNorm has the statistics of `images` and keeps them.

    In float64, so that only the loss rounds: the kinks of a network enlarge the roundings of float32 in few steps.
    """
    torch.manual_seed(0)
    model = create_model("lraspp_mobilenet_v3_large", 4)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # of all that it has seen
    model.train()(images)
    for norm in norms:
        norm.eval()
        norm.train = lambda mode=True, norm=norm: norm  # type: ignore[method-assign,misc]
    model.register_forward_pre_hook(lambda _, arguments: (arguments[0].double(),))
    return model.double()


def learn(shards: str, options: dict[str, Any], passes: int) -> dict[str, Any]:
    """A few steps of this process's share of the batches: losses, and how far every weight has moved."""
    config = FitConfig((shards,), "unused", task="hand-object", jitter=0.0, lr=LR, **{"optimizer": "sgd", **options})
    task, device = TASKS["hand-object"], torch.device("cpu")
    index = ShardIndex.open(Path(shards))
    data, selection = crop_data(index), select(config, task)
    model = frozen_model(data[np.arange(BATCH)]["image"].float() / 51 - 2.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = create_optimizer(config.optimizer, parameter_groups(model, LR, 1.0, 0.01))
    step = Step(Start(model, (0.5,) * 3, (0.2,) * 3, LR, 1.0, [], {}), optimizer, task, selection, config, device)
    average = Average(model, config.ema) if config.ema else None
    losses: list[float] = []
    for number in range(STEPS):
        positions = np.arange(number * BATCH, (number + 1) * BATCH).reshape(passes, distributed.world_size(), -1)
        parts = [data[own] for own in positions[:, distributed.rank()]]
        losses += step.take(parts, number * BATCH, Flags())[0]
        if average:
            average.update()
    losses += step.settle()
    after = (average.module if average else model).state_dict()
    moved = torch.cat([(after[name] - value).double().flatten() for name, value in before.items()])
    return {"losses": losses, "moved": moved}


def fail(shards: str, where: str) -> str:
    """What a process says when the last one's loss, or its gradient alone, is not finite."""
    original = criterion.set_loss

    def broken(logits: Tensor, *arguments: Any) -> Tensor:
        loss = original(logits, *arguments)
        if distributed.rank() < distributed.world_size() - 1:
            return loss
        return loss * float("nan") if where == "loss" else loss + (logits.sum() * 0).sqrt()

    criterion.set_loss = broken
    try:
        learn(shards, {"clip": 1.0}, 2)
    except TrainingError as error:
        return str(error)
    finally:
        criterion.set_loss = original
    return "nothing"


def work(shards: str, out: str) -> None:
    """Of one process: every case."""
    torch.set_num_threads(1)
    distributed.join_group("cpu")
    found: dict[str, Any] = {name: learn(shards, options, 2) for name, options in OPTIONS.items()}
    original = torch.compile
    torch.compile = partial(original, backend="aot_eager")  # type: ignore[assignment]
    found["compiled"] = learn(shards, {"compile": True}, 2)
    torch.compile = original
    found |= {where: fail(shards, where) for where in ("loss", "norm of the gradient")}
    torch.save(found, Path(out) / f"{distributed.rank()}.pt")
    distributed.leave_group()


_PROGRAM = """
import sys
from test_exactness import work
from hotrain.distributed import launch
if __name__ == "__main__":
    launch(work, (sys.argv[1], sys.argv[2]), 2)
"""


@pytest.fixture(scope="module")
def two(mixed: ShardIndex, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "program.py").write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, str(folder / "program.py"), str(mixed.shards[0].parent), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(mixed: ShardIndex) -> Callable[[str, int], dict[str, Any]]:
    torch.set_num_threads(1)
    return lambda name, passes: learn(str(mixed.shards[0].parent), OPTIONS[name], passes)


@pytest.mark.parametrize("name", OPTIONS)
def test_any_cut_of_a_batch_learns_the_same(
    two: list[dict[str, Any]], alone: Callable[[str, int], dict[str, Any]], name: str
) -> None:
    expected = alone(name, 1)
    assert expected["moved"].norm() > 3e-4
    for found in (alone(name, 2), *(of_rank[name] for of_rank in two)):
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-6)
        assert (found["moved"] - expected["moved"]).norm() < 1e-6 * expected["moved"].norm()


def test_every_option_changes_what_is_learnt(two: list[dict[str, Any]]) -> None:
    plain = two[0]["plain"]["moved"]
    for name in OPTIONS:
        other = two[0][name]["moved"]
        assert (name == "plain") == bool((other - plain).norm() < 0.01 * plain.norm()), name


def test_compiled_and_in_passes_gradients_still_travel_once(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["compiled"]["losses"] == pytest.approx(found["plain"]["losses"], rel=1e-6)
        assert (found["compiled"]["moved"] - found["plain"]["moved"]).norm() < 1e-6 * found["plain"]["moved"].norm()


@pytest.mark.parametrize("where", ["loss", "norm of the gradient"])
def test_what_is_not_finite_on_one_rank_stops_all_with_every_key(two: list[dict[str, Any]], where: str) -> None:
    first, second = (of_rank[where] for of_rank in two)
    assert first == second and first.startswith(f"the {where} is nan at position 0; lower --lr.")
    keys = first.rsplit(": ", 1)[1].split(", ")
    assert len(keys) == BATCH and all("_train_" in key for key in keys)
