"""Flips at test time: what is symmetric stays, sides swap, and the mean is what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from hodata.labels import EXTENTS, MIRROR, TASKS
from hotrain.scoring.flipped import FlippedPredictor


class ByChannel:
    """Logits are the image's channels, class by class, plus a slope that no mirror image shares."""

    def __init__(self, slope: float = 0.0) -> None:
        self._slope = slope

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def network_logits(self, prepared: Sequence[Any]) -> torch.Tensor:
        stacked = torch.from_numpy(np.stack([np.ascontiguousarray(image) for image in prepared])).permute(0, 3, 1, 2)
        return stacked + self._slope * torch.arange(stacked.shape[3]) * torch.arange(stacked.shape[1])[:, None, None]


@pytest.mark.parametrize("task_name", sorted(TASKS))
def test_classes_swap_as_their_labels_do(task_name: str) -> None:
    """An image and its mirror image, whose classes are those of the mirrored labels, are answered as mirror images."""
    task = TASKS[task_name]
    swap = np.array(task.mirrored())
    np.testing.assert_array_equal(swap[swap], np.arange(len(task.classes)))
    for label, other in MIRROR.items():
        assert {int(swap[c]) for c in task.sets[label]} == task.sets[other]


def test_the_mean_is_a_plain_loop() -> None:
    task = TASKS["sides"]
    rng = np.random.default_rng(0)
    image = rng.normal(size=(5, 8, len(task.classes))).astype(np.float32)
    model = ByChannel(0.3)
    predictor = FlippedPredictor(model, task)  # type: ignore[arg-type]
    folds = np.stack([task.fold(extent) for extent in EXTENTS])
    found, merged = (predictor.classes([image, image], (8, 5), each) for each in (None, folds))
    swap = [0, 2, 1, 3, 5, 4]
    straight, mirrored = (model.network_logits([pixels])[0].numpy() for pixels in (image, image[:, ::-1]))
    for y in range(5):
        for x in range(8):
            mean = [(straight[c, y, x] + mirrored[swap[c], y, 7 - x]) / 2 for c in range(6)]
            assert found[0, y, x] == found[1, y, x] == int(np.argmax(mean))
            for fold, one in zip(folds, merged, strict=True):
                summed = np.bincount(fold, np.exp(mean))
                assert fold[one[y, x]] == int(np.argmax(summed))


def test_answers_of_mirror_images_are_mirror_images() -> None:
    task = TASKS["egohos"]
    swap = np.array(task.mirrored())
    image = np.random.default_rng(1).normal(size=(6, 10, len(task.classes))).astype(np.float32)
    predictor = FlippedPredictor(ByChannel(0.2), task)  # type: ignore[arg-type]
    one, other = (predictor.classes([pixels], (10, 6))[0] for pixels in (image, image[:, ::-1]))
    np.testing.assert_array_equal(swap[one][:, ::-1], other)
