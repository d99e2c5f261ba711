"""From images to class maps at the images' own size, by a network and its input rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hotrain.checkpoint import Checkpoint
from hotrain.errors import NOT_FINITE, CheckpointError
from hotrain.input_rule import InputRule
from hotrain.learning.augment import normalize
from hotrain.model import create_model, logits_of


class Predictor(Protocol):
    """Anything that gives every pixel a class of the task."""

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """One image uint8 [H, W, 3] as it enters; called in loading threads."""
        ...

    def classes(
        self, prepared: Sequence[NDArray[Any]], size: tuple[int, int], folds: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Class ids uint8 [B, H, W] of images of one size (width, height), as `likeliest` chooses them.

        `folds` is uint8 [B, K]: what the classes of each image will be folded by; None: they stay as they are.
        """
        ...


class NetworkPredictor:
    """Applies a network: input rule, normalisation, logits resized to the image's own size, the likeliest class there.

    Args:
        model: on `device`; put into evaluation mode for the call only.
        rule: how an image enters the network.
        mean, std: RGB in 0..1.
        device: where to compute.
    """

    def __init__(
        self, model: nn.Module, rule: InputRule, mean: Sequence[float], std: Sequence[float], device: torch.device
    ) -> None:
        self._model, self._rule, self._mean, self._std, self._device = model, rule, mean, std, device

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._rule.resize(image)

    @torch.inference_mode()
    def classes(
        self, prepared: Sequence[NDArray[Any]], size: tuple[int, int], folds: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        return answers(self.logits(prepared, size), folds)

    @torch.inference_mode()
    def logits(self, prepared: Sequence[NDArray[Any]], size: tuple[int, int]) -> Tensor:
        """float32 [B, K, H, W] at the images' own size (width, height)."""
        return at_size(self.network_logits(prepared), size)

    @torch.inference_mode()
    def network_logits(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """float32 [B, K, h, w], on the device, at the size at which the network saw the images."""
        image = torch.from_numpy(np.stack(prepared)).to(self._device).permute(0, 3, 1, 2)
        training = self._model.training
        self._model.eval()
        try:
            out = logits_of(self._model, normalize(image, self._mean, self._std))["out"]
        finally:
            self._model.train(training)
        if not torch.isfinite(out).all():
            raise CheckpointError(NOT_FINITE)
        return out.float()


def answers(logits: Tensor, folds: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """`Predictor.classes` from logits [B, K, H, W]."""
    chosen = _first_largest(logits.unbind(1)) if folds is None else likeliest(logits.softmax(1), folds)
    found: NDArray[np.uint8] = chosen.cpu().numpy()
    return found


def likeliest(probabilities: Tensor, folds: NDArray[np.uint8]) -> Tensor:
    """Of the likeliest public class the likeliest class: folded, it is the answer that `decide` gives.

    Probabilities of the classes that are one public class are added before they are compared.

    Args:
        probabilities: float32 [B, K, H, W], each pixel's up to a common factor.
        folds: uint8 [B, K], class -> public class (`Task.fold`), of each image.

    Returns:
        uint8 [B, H, W], class ids; of equals the first.
    """
    chosen = []
    for own, fold in zip(probabilities, folds, strict=True):
        merged = [np.flatnonzero(fold == public).tolist() for public in range(int(fold.max()) + 1)]
        answer = _first_largest([own[classes].sum(0) if len(classes) > 1 else own[classes[0]] for classes in merged])
        for public, classes in enumerate(merged):
            if len(classes) > 1:
                inside = _first_largest([own[c] for c in classes])
                names = torch.tensor(classes, dtype=torch.uint8, device=own.device)
                answer = torch.where(answer == public, names[inside.int()], answer)
        chosen.append(answer)
    return torch.stack(chosen)


def _first_largest(parts: Sequence[Tensor]) -> Tensor:
    """uint8: which of some tensors of one shape is largest; several times as fast as argmax across them on a CPU."""
    best, answer = parts[0], torch.zeros_like(parts[0], dtype=torch.uint8)
    for number, part in enumerate(parts[1:], 1):
        answer.masked_fill_(part > best, number)
        best = torch.maximum(best, part)
    return answer


@torch.inference_mode()
def at_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [B, K, h, w] at the images' own size (width, height)."""
    return functional.interpolate(logits, (size[1], size[0]), mode="bilinear", align_corners=False)


def load_predictor(opened: Checkpoint, device: torch.device) -> NetworkPredictor:
    """The predictor of a checkpoint, with the input rule and normalisation that its run stored."""
    model = create_model(opened.facts["model"], len(opened.task.classes))
    model.load_state_dict(opened.weights())
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rule = InputRule.from_json(opened.facts["input_rule"])
    return NetworkPredictor(model, rule, opened.facts["mean"], opened.facts["std"], device)
