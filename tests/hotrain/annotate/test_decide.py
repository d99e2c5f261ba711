"""The fused pass over the pixels against PyTorch's interpolate and softmax, and against what evaluation answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hodata.labels import EXTENTS, TASKS
from hotrain.decide import decide
from hotrain.predict import likeliest


@pytest.mark.parametrize(
    ("size", "seen"), [((64, 48), (21, 16)), ((50, 70), (80, 112)), ((5, 1), (16, 3)), ((9, 9),) * 2]
)
@pytest.mark.parametrize(("task", "extent"), [("hand-object", "wrist"), ("hand-object", "arm"), ("egohos", "wrist")])
def test_against_torch(size: tuple[int, int], seen: tuple[int, int], task: str, extent: str) -> None:
    rng = np.random.default_rng(0)
    fold = TASKS[task].fold(extent)
    logits = rng.normal(0, 1.5, (len(fold), seen[1], seen[0])).astype(np.float32)
    temperature = 1.7
    classes, confidence = decide(logits, size, fold, temperature)

    large = functional.interpolate(torch.from_numpy(logits)[None], size[::-1], mode="bilinear", align_corners=False)[0]
    summed, chances = (_summed((large / t).softmax(0).numpy(), fold) for t in (1.0, temperature))
    public = summed.argmax(0)
    top = np.sort(summed, axis=0)
    clear = top[-1] - top[-2] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(classes[clear], public[clear])
    own = np.take_along_axis(chances, public[None], 0)[0]
    assert np.abs(confidence.astype(float) - 255 * own)[clear].max() <= 0.6
    assert classes.shape == confidence.shape == size[::-1]


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("extent", EXTENTS)
def test_evaluation_answers_the_same(task: str, extent: str) -> None:
    """`predict.likeliest` answers with classes; folded they are the public classes that annotation writes."""
    fold = TASKS[task].fold(extent)
    logits = np.random.default_rng(3).normal(0, 1, (len(fold), 40, 40)).astype(np.float32)
    probabilities = torch.from_numpy(logits).softmax(0)
    top = np.sort(_summed(probabilities.numpy(), fold), axis=0)
    clear = top[-1] - top[-2] > 1e-6
    (found,) = likeliest(probabilities[None], fold[None]).numpy()
    np.testing.assert_array_equal(fold[found][clear], decide(logits, (40, 40), fold)[0][clear])
    np.testing.assert_array_equal(fold[found], _summed(probabilities.numpy(), fold).argmax(0))
    best = probabilities.numpy().argmax(0)
    same = fold[best] == fold[found]
    np.testing.assert_array_equal(found[same], best[same])
    assert same.all() == (len(fold) == len(set(fold.tolist()))), "where classes are merged, some answers must change"


def test_hand_and_arm_together_beat_a_likelier_background() -> None:
    """Where the wrist may be either, background is likelier than each of them and less likely than both."""
    task = TASKS["hand-object"]
    chances = {"background": 0.4, "hand": 0.35, "arm": 0.2, "object": 0.05}
    logits = np.log([chances[name] for name in task.classes]).astype(np.float32)[:, None, None]
    hand, background = task.classes.index("hand"), 0
    for extent, answer, sure in (("wrist", background, 0.6), ("arm", hand, 0.55)):
        classes, confidence = decide(logits, (1, 1), task.fold(extent))
        assert classes[0, 0] == answer and abs(confidence[0, 0] - 255 * sure) <= 1
    _, confidence = decide(logits, (1, 1), task.fold("arm"), temperature=0.01)
    assert confidence[0, 0] == 0, "so sharp a softmax is sure of background, which is not the answer"


@pytest.mark.parametrize("extent", EXTENTS)
def test_a_higher_temperature_is_less_sure_and_answers_the_same(extent: str) -> None:
    task = TASKS["hand-object"]
    logits = np.random.default_rng(1).normal(0, 2, (len(task.classes), 8, 8)).astype(np.float32)
    answers = [decide(logits, (20, 20), task.fold(extent), t) for t in (0.05, 1.0, 4.0)]
    for classes, _ in answers:
        np.testing.assert_array_equal(classes, answers[0][0])
    means = [float(confidence.mean()) for _, confidence in answers]
    assert means[0] > means[1] + 10 and means[1] > means[2] + 20


def _summed(probabilities: NDArray[np.float32], fold: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities [K, H, W] -> [P, H, W], a plain loop over the classes."""
    summed = np.zeros((int(fold.max()) + 1, *probabilities.shape[1:]), dtype=np.float32)
    for own, public in zip(probabilities, fold.tolist(), strict=True):
        summed[public] += own
    return summed
