"""What a step is divided by: pixels of each set, and images that decide any, against a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hodata.labels import MEANINGS, TASKS, Label, task_table
from hotrain.config import FitConfig
from hotrain.learning.criterion import Criterion
from hotrain.learning.loss import class_sets

TASK = TASKS["hand-object"]
NAMES = ("exact", "egohos", "hand-wrist")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), images=st.integers(1, 5))
def test_amounts_are_those_of_the_sets(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    tables = np.stack([task_table(MEANINGS[name], TASK) for name in NAMES])
    label = rng.choice([0, 1, 2, 4, 9, int(Label.VOID)], (images, 6, 7)).astype(np.uint8)
    label[rng.random(images) < 0.4] = Label.VOID  # some images decide nothing
    meaning = rng.integers(0, len(NAMES), images).astype(np.int16)
    criterion = Criterion(
        torch.from_numpy(tables), torch.ones(16), FitConfig(("x",), "y", dice=1.0), torch.device("cpu")
    )
    counts = np.stack([np.bincount(image.ravel(), minlength=256) for image in label])
    found = criterion.amounts(torch.from_numpy(counts), torch.from_numpy(meaning))

    expected, decide = np.zeros(16, np.int64), 0
    for image, of_image in zip(label, meaning, strict=True):
        sets = [int(tables[of_image, value]) for value in image.ravel()]
        for each in sets:
            expected[each] += 1
        decide += any(each != 0b1111 for each in sets)
    assert found.dtype == torch.int64 and found.tolist() == [*expected.tolist(), decide]
    on_device = class_sets(torch.from_numpy(label), torch.from_numpy(meaning), torch.from_numpy(tables))
    assert found[:-1].tolist() == torch.bincount(on_device.reshape(-1), minlength=16).tolist()


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_loss_is_a_mean_over_the_kept_pixels_of_each_head(share: float) -> None:
    """All pixels alike, so that each costs log 4 whichever are kept; 0.4 times as much again by the auxiliary head."""
    table = torch.from_numpy(task_table(MEANINGS["exact"], TASK))[None]
    label, meaning = torch.ones(2, 4, 5, dtype=torch.uint8), torch.zeros(2, dtype=torch.int16)
    config = FitConfig(("x",), "y", prior=0.0, hard_pixels=share)
    criterion = Criterion(table, torch.full((16,), 3.0), config, torch.device("cpu"))
    logits, sets = torch.zeros(2, 4, 4, 5), class_sets(label, meaning, table)
    counts = torch.zeros(2, 256, dtype=torch.int64)
    counts[:, 1] = 4 * 5
    divisors = criterion.divisors(criterion.amounts(counts, meaning))
    assert float(criterion({"out": logits}, sets, divisors)) == pytest.approx(np.log(4))
    assert float(criterion({"out": logits, "aux": logits}, sets, divisors)) == pytest.approx(1.4 * np.log(4))
