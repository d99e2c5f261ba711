"""A step's glimpse of its own crops against a slow twin; a loss is told, and refused, one step later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_shards import crop_data

from hodata.labels import MEANINGS, TASKS, task_table
from hodata.shards.reader import ShardIndex
from hotrain.config import FitConfig
from hotrain.errors import TrainingError
from hotrain.learning import criterion
from hotrain.learning.optimizer import create_optimizer, parameter_groups
from hotrain.learning.selection import select
from hotrain.learning.start import begin
from hotrain.learning.step import Flags, Step

TASK, CPU = TASKS["hand-object"], torch.device("cpu")


def made(mixed: ShardIndex, answers: list[torch.Tensor], **options: Any) -> Step:
    """A step whose model's answers are collected."""
    shards = str(mixed.shards[0].parent)
    config = FitConfig(
        (shards,), str(Path("unused")), task=TASK.name, model="lraspp_mobilenet_v3_large", weights="none", **options
    )
    start = begin(config, TASK, None)
    start.model.register_forward_hook(lambda _, __, outputs: answers.append(outputs["out"].detach().argmax(1)))
    optimizer = create_optimizer("sgd", parameter_groups(start.model, 0.01, 1.0, 0.0))
    return Step(start, optimizer, TASK, select(config, TASK), config, CPU)


def test_the_glimpse_is_the_iou_of_the_last_answers(mixed: ShardIndex) -> None:
    answers: list[torch.Tensor] = []
    step, data = made(mixed, answers), crop_data(mixed)
    for number in range(3):
        part = data[np.arange(8 * number, 8 * number + 8)]
        step.take([part], 8 * number, Flags())
        seen = step.training_scores(part)
        names = np.array(sorted(mixed.meanings))[part["meaning"].numpy()]
        assert len(set(names)) == 2
        item, hit, union = TASK.classes.index("object"), 0, 0
        for name, label, answer in zip(names, part["label"].numpy(), answers[-1].numpy(), strict=True):
            table = task_table(MEANINGS[name], TASK)
            for value, called in zip(label.ravel(), answer.ravel(), strict=True):
                surely, never = table[value] == 1 << item, not table[value] & 1 << item
                hit += surely and called == item
                union += surely or (never and called == item)
        assert union and seen["iou object"] == pytest.approx(hit / union) and (seen["iou hand"] or 0) <= 1


def test_cudnn_searches_for_algorithms_in_training_alone(mixed: ShardIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    step, seen = made(mixed, []), []
    step._trained.parallel.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    step.take([crop_data(mixed)[np.arange(4)]], 0, Flags())
    assert seen == [True] and not torch.backends.cudnn.benchmark


def test_a_loss_is_told_one_step_later_and_is_refused_with_its_own_samples(
    mixed: ShardIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = criterion.set_loss, 0

    def second_is_nan(logits: torch.Tensor, *arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return original(logits, *arguments) * (float("nan") if calls == 2 else 1)

    monkeypatch.setattr(criterion, "set_loss", second_is_nan)
    step, data = made(mixed, []), crop_data(mixed)
    parts = [data[np.arange(4 * number, 4 * number + 4)] for number in range(3)]
    assert step.take(parts[:1], 0, Flags(save=True)) == ([], Flags(save=True))
    (first,), _ = step.take(parts[1:2], 4, Flags())
    assert np.isfinite(first)
    with pytest.raises(TrainingError, match="the loss is nan at position 4") as caught:
        step.take(parts[2:], 8, Flags())
    keys = mixed.arrow("key").take(parts[1]["row"].tolist()).to_pylist()
    assert str(caught.value).endswith(f"samples of this step: {', '.join(keys)}")
    assert step.settle() == []
