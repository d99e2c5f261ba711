"""Soft Dice over sets against an independent NumPy twin, and its properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hodata.labels import MEANINGS, TASKS, Label, task_table
from hotrain.learning.dice import dice_loss


def slow_dice(logits: np.ndarray, sets: np.ndarray) -> float:
    """Pixel by pixel, in exact sums of float64, set by set of each image."""
    total = 0.0
    classes = logits.shape[1]
    full = (1 << classes) - 1
    for image, truth in zip(logits.astype(np.float64), sets.tolist(), strict=True):
        places = [(y, x) for y in range(len(truth)) for x in range(len(truth[0])) if truth[y][x] != full]
        costs = []
        for s in {truth[y][x] for y, x in places}:
            hit, missed, false = [], [], []
            for y, x in places:
                raised = [math.exp(value - image[:, y, x].max()) for value in image[:, y, x]]
                for c in range(classes):
                    p, here, allowed = raised[c] / math.fsum(raised), s >> c & 1, truth[y][x] >> c & 1
                    if truth[y][x] == s:
                        (hit if here else missed).append(p)
                    elif here and not allowed:
                        false.append(p)
            costs.append(1 - 2 * math.fsum(hit) / (2 * math.fsum(hit) + math.fsum(missed) + math.fsum(false)))
        if costs:
            total += math.fsum(costs) / len(costs)
    return total


def every_kind(classes: int) -> torch.Tensor:
    return torch.arange(1, (1 << classes) - 1, dtype=torch.uint8)


def arrays(seed: int, classes: int, scale: float, occurring: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and images whose pixels have a few sets each, all classes among them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, 4, 5, generator=generator) * scale
    chosen = torch.randint(1, 1 << classes, (3, occurring), generator=generator)
    chosen[:, 0] = (1 << classes) - 1
    which = torch.randint(0, occurring, (3, 20), generator=generator)
    return logits, chosen.gather(1, which).reshape(3, 4, 5).byte()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 8),
    scale=st.sampled_from([0.1, 3.0, 40.0]),
    occurring=st.integers(1, 6),
)
def test_equals_the_slow_twin(seed: int, classes: int, scale: float, occurring: int) -> None:
    logits, sets = arrays(seed, classes, scale, occurring)
    expected = slow_dice(logits.numpy(), sets.numpy())
    assert float(dice_loss(logits, sets, every_kind(classes))) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    # Kinds that do not occur change nothing.
    only = sets.unique()
    fewer = dice_loss(logits, sets, only[only != (1 << classes) - 1])
    assert float(fewer) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_partition_gives_the_usual_dice_of_the_merged_classes(seed: int) -> None:
    """Classes {0, 3}, {1}, {2, 4} merged by the summed probability."""
    logits, _ = arrays(seed, 5, 3.0, 2)
    parts = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 1]], dtype=torch.float64)
    truth = torch.randint(0, 3, (3, 4, 5), generator=torch.Generator().manual_seed(seed))
    merged = torch.einsum("pk,bkhw->bphw", parts, logits.double().softmax(1))
    drawn = torch.nn.functional.one_hot(truth, 3).permute(0, 3, 1, 2)
    dice = 2 * (merged * drawn).sum((2, 3)) / (merged + drawn).sum((2, 3))
    expected = sum((1 - dice[b, truth[b].unique()]).mean() for b in range(3))
    bits = torch.tensor([0b01001, 0b00010, 0b10100], dtype=torch.uint8)
    found = dice_loss(logits, bits[truth], bits)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def one_hot(classes: int, answer: np.ndarray) -> torch.Tensor:
    """Logits [1, K, H, W] that are sure of `answer`."""
    return torch.from_numpy(200.0 * (np.arange(classes)[:, None, None] == answer)).float()[None]


def test_hand_and_arm_are_one_only_where_the_mask_draws_them_as_one() -> None:
    task = TASKS["hand"]  # background, hand, arm
    label = np.array([[0, 0, 9, 9]])
    answer = one_hot(3, np.array([[0, 0, 1, 2]]))  # half of the region hand, half arm
    costs = {}
    for name in ("hand-arm", "exact"):
        table = task_table(MEANINGS[name], task)
        costs[name] = float(dice_loss(answer, torch.from_numpy(table[label])[None], every_kind(3)))
    assert costs["hand-arm"] == 0
    # Apart: hand is hit once and missed once, 1 - 2/3; background is right.
    assert costs["exact"] == pytest.approx((1 / 3) / 2)


def test_a_class_that_a_pixel_may_be_is_never_false_there() -> None:
    """Two sets that overlap, {0, 1} and {1, 2}: answering 1 everywhere is right for both."""
    sets = torch.tensor([[[0b011, 0b110, 0b110]]], dtype=torch.uint8)
    assert float(dice_loss(one_hot(3, np.array([[1, 1, 1]])), sets, every_kind(3))) == 0
    assert float(dice_loss(one_hot(3, np.array([[1, 0, 1]])), sets, every_kind(3))) > 0.1


def test_undecided_pixels_and_images_count_nowhere() -> None:
    logits, sets = arrays(5, 4, 3.0, 3)
    sets[1] = 0b1111
    logits.requires_grad_()
    loss = dice_loss(logits, sets, every_kind(4))
    loss.backward()
    assert logits.grad is not None
    undecided = (sets == 0b1111)[:, None].expand_as(logits)
    assert not logits.grad[undecided].any() and logits.grad[~undecided].all()
    alone = sum(dice_loss(logits[b : b + 1], sets[b : b + 1], every_kind(4)) for b in (0, 2))
    assert float(loss.detach()) == pytest.approx(float(alone.detach()))
    assert int(Label.VOID) == 255


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits, sets = arrays(1, 3, 1.0, 3)
    loss = dice_loss(logits.bfloat16(), sets, every_kind(3))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(dice_loss(logits.bfloat16().float(), sets, every_kind(3))))
