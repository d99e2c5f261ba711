"""A step's glimpse of its own crops against a slow twin; its options reach the loss and the model's input; a loss is
told, and refused, one step later."""

from __future__ import annotations

from collections import Counter
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
from hotrain.learning.augment import ColorRule, jitter_colors
from hotrain.learning.dice import dice_loss
from hotrain.learning.loss import set_loss, set_weights
from hotrain.learning.optimizer import create_optimizer, parameter_groups
from hotrain.learning.selection import select
from hotrain.learning.start import begin
from hotrain.learning.step import Flags, Step

TASK, CPU = TASKS["hand-object"], torch.device("cpu")


def made(mixed: ShardIndex, answers: list[torch.Tensor], **options: Any) -> Step:
    """A step whose model's logits are collected."""
    shards = str(mixed.shards[0].parent)
    config = FitConfig(
        (shards,), str(Path("unused")), task=TASK.name, model="lraspp_mobilenet_v3_large", weights="none", **options
    )
    start = begin(config, TASK, None)
    start.model.register_forward_hook(lambda _, __, outputs: answers.append(outputs["out"].detach()))
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
        hit, union = Counter[str](), Counter[str]()
        for name, label, answer in zip(names, part["label"].numpy(), answers[-1].argmax(1).numpy(), strict=True):
            # No training mask tells arms from hands, so no mask asks for one, but the model may answer one. It counts
            # as hand over masks that draw arms as hands, and as background over those that draw them as background.
            table = task_table(MEANINGS[name], TASK) & 0b0111
            public = ["background", "hand", "object", {"egohos": "hand", "hand-wrist": "background"}[name]]
            allowed_by = [{public[c] for c in range(3) if sets >> c & 1} for sets in table.tolist()]
            for value, called in zip(label.ravel(), answer.ravel(), strict=True):
                allowed = allowed_by[value]
                for kind in ("hand", "object"):
                    answered, surely = public[called] == kind, allowed == {kind}
                    hit[kind] += answered and surely
                    union[kind] += surely or (answered and kind not in allowed)
        assert seen == pytest.approx({f"iou {kind}": hit[kind] / union[kind] for kind in ("hand", "object")})
        assert len(set(answers[-1].argmax(1).ravel().tolist())) > 1


def test_the_loss_is_made_of_prior_balance_dice_and_hard_pixels(mixed: ShardIndex) -> None:
    options = {"prior": 0.7, "balance": 0.9, "dice": 0.6, "hard_pixels": 0.5}
    answers: list[torch.Tensor] = []
    step, part = made(mixed, answers, **options), crop_data(mixed)[np.arange(8)]
    step.take([part], 0, Flags())
    (told,) = step.settle()

    tables, everything = step._tables.numpy(), (1 << len(TASK.classes)) - 1
    pixels, reader = np.zeros(everything + 1, np.int64), mixed.reader()
    names = sorted(mixed.meanings)
    for row in mixed.select(split="train").tolist():
        own = tables[names.index(mixed.column("meaning")[row])]
        pixels += np.bincount(own[reader.mask(row)].ravel(), minlength=len(pixels))
    weights = set_weights(pixels, 0.9)
    sets = np.stack([tables[m][one] for m, one in zip(part["meaning"].tolist(), part["label"].numpy(), strict=True)])
    decided = sum(bool((one != everything).any()) for one in sets)
    (logits,), sets = answers, torch.from_numpy(sets)
    kinds = torch.arange(1, everything, dtype=torch.uint8)
    expected = set_loss(logits, sets, weights, 0.7, 0.5) / (0.5 * weights[sets.long()].sum())
    expected += 0.6 * dice_loss(logits, sets, kinds) / decided
    assert told == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_the_model_sees_colours_moved_as_far_as_asked(mixed: ShardIndex, jitter: float) -> None:
    step, seen = made(mixed, [], jitter=jitter, seed=11), []
    step._start.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    part = crop_data(mixed)[np.arange(16, 20)]
    step.take([part], 16, Flags())
    rule = ColorRule() if jitter else ColorRule(**dict.fromkeys(ColorRule.__dataclass_fields__, 0.0))
    moved = jitter_colors(part["image"], 11, part["position"], rule)
    assert torch.equal(moved, part["image"]) == (jitter == 0)
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(seen[0], (moved / 255 - mean) / std, rtol=1e-5, atol=1e-5)


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
