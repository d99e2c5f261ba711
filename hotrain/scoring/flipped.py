"""Test-time augmentation: the image and its mirror image, answered together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hodata.labels import Task
from hotrain.predict import NetworkPredictor, answers, at_size


class FlippedPredictor:
    """The mean of the logits of an image and of its mirror image, mirrored back with sides swapped, as `annotate` does.

    Args:
        predictor: answers one image.
        task: whose classes these are.
    """

    def __init__(self, predictor: NetworkPredictor, task: Task) -> None:
        self._predictor, self._swap = predictor, task.mirrored()

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._predictor.prepare(image)

    @torch.inference_mode()
    def classes(
        self, prepared: Sequence[NDArray[Any]], size: tuple[int, int], folds: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        straight = self._predictor.network_logits(prepared)
        mirrored = self._predictor.network_logits([image[:, ::-1] for image in prepared])
        return answers(at_size((straight + mirrored.flip(-1)[:, self._swap]) / 2, size), folds)
