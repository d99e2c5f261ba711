"""`hotrain.load(RUN).predict(images)`: a trained model for images of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import EXTENTS
from hotrain.decide import decide
from hotrain.decode import read_rgb
from hotrain.network import Network, open_network


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image, at the image's own size.

    Args:
        labels: uint8 [H, W], ids of `hodata.labels.Label` (0 background, 9 hand, 10 object, ...).
        classes: uint8 [H, W], index into `Segmenter.classes`.
        confidence: float32 [H, W], 0..1: probability of the answered class, in steps of 1/255.
    """

    labels: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    confidence: NDArray[np.float32]


class Segmenter:
    """A trained model; made by `hotrain.load`.

    Attributes:
        classes: names of the public classes, index = class id.
    """

    def __init__(self, network: Network, extent: str = "wrist") -> None:
        if extent not in EXTENTS:
            raise ValueError(f"extent must be one of {', '.join(EXTENTS)}, not {extent!r}")
        self._network, self._fold = network, network.task.fold(extent)
        self.classes = network.task.public_classes
        self._labels = np.array(network.task.labels, dtype=np.uint8)

    def predict(self, images: Any, *, batch_size: int = 8) -> list[Prediction]:
        """Segment images.

        Args:
            images: one image or several, of any sizes: uint8 [H, W, 3] RGB arrays, Pillow images, or paths.
            batch_size: images of one size that enter the network together.

        Returns:
            one prediction per image, in order.

        Raises:
            FrameError: a file cannot be decoded, or an image is too long and narrow.
            ValueError: an array of another shape or type.
        """
        pictures = [_pixels(image) for image in _listed(images)]
        for picture in pictures:
            self._network.rule.refuse_long(picture.shape[1], picture.shape[0])
        answers: list[Prediction | None] = [None] * len(pictures)
        for numbers in _same_size(pictures, batch_size):
            prepared = [self._network.rule.resize(pictures[number]) for number in numbers]
            for number, logits in zip(numbers, self._network.logits(prepared), strict=True):
                height, width = pictures[number].shape[:2]
                classes, confidence = decide(logits, (width, height), self._fold, self._network.temperature)
                answers[number] = Prediction(self._labels[classes], classes, (confidence / 255).astype(np.float32))
        return [answer for answer in answers if answer is not None]


def load(path: Path, *, device: str = "auto", extent: str = "wrist") -> Segmenter:
    """See `hotrain.load`."""
    return Segmenter(open_network(path, device), extent)


def _listed(images: Any) -> Iterable[Any]:
    single = isinstance(images, str | Path) or hasattr(images, "convert") or getattr(images, "ndim", 4) == 3
    return [images] if single else images


def _pixels(image: Any) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        return read_rgb(Path(image))
    if hasattr(image, "convert"):
        return np.asarray(image.convert("RGB"))
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"an image is a uint8 array [H, W, 3], RGB; found {pixels.dtype} {list(pixels.shape)}")
    return pixels


def _same_size(pictures: Sequence[NDArray[np.uint8]], most: int) -> Iterator[list[int]]:
    by_size: dict[tuple[int, ...], list[int]] = {}
    for number, picture in enumerate(pictures):
        by_size.setdefault(picture.shape, []).append(number)
    for numbers in by_size.values():
        for start in range(0, len(numbers), most):
            yield numbers[start : start + most]
