"""The fused pass over the pixels against PyTorch's interpolate, softmax and argmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from hodata.labels import TASKS
from hotrain.decide import decide


@pytest.mark.parametrize(
    ("size", "seen"), [((64, 48), (21, 16)), ((50, 70), (80, 112)), ((5, 1), (16, 3)), ((9, 9),) * 2]
)
@pytest.mark.parametrize(("task", "extent"), [("hand-object", "wrist"), ("hand-object", "arm"), ("egohos", "wrist")])
def test_against_torch(size: tuple[int, int], seen: tuple[int, int], task: str, extent: str) -> None:
    rng = np.random.default_rng(0)
    fold = TASKS[task].fold(extent)
    logits = rng.normal(0, 3, (len(fold), seen[1], seen[0])).astype(np.float32)
    temperature = 1.7
    classes, confidence = decide(logits, size, fold, temperature)

    large = functional.interpolate(torch.from_numpy(logits)[None], size[::-1], mode="bilinear", align_corners=False)[0]
    chances = (large / temperature).softmax(0).numpy()
    public = fold[large.argmax(0).numpy()]
    top = np.sort(large.numpy(), axis=0)
    clear = top[-1] - top[-2] > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(classes[clear], public[clear])
    own = sum(np.where(public == fold[c], chances[c], 0) for c in range(len(fold)))
    assert np.abs(confidence.astype(float) - 255 * own)[clear].max() <= 0.6
    assert classes.shape == confidence.shape == size[::-1]


def test_a_higher_temperature_is_less_sure_and_answers_the_same() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (3, 8, 8)).astype(np.float32)
    fold = np.arange(3, dtype=np.uint8)
    (one, sure), (other, unsure) = (decide(logits, (20, 20), fold, t) for t in (1.0, 4.0))
    np.testing.assert_array_equal(one, other)
    assert sure.mean() > unsure.mean() + 20
