"""A trained network as annotation sees it: images in, logits out, by PyTorch or by onnxruntime.

Nothing here imports torch unless a checkpoint is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Task
from hotrain.errors import NOT_FINITE, CheckpointError
from hotrain.input_rule import InputRule
from hotrain.scoring.calibration import COOLEST, HOTTEST


class Network(Protocol):
    """What annotation needs of a model."""

    task: Task
    rule: InputRule
    temperature: float
    identity: str  # sha256 of the weights: two annotations of one identity were made by the same model

    def logits(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Images uint8 [h, w, 3] of one size, as `rule` made them -> float32 [B, K, h, w]."""
        ...


def open_network(path: Path, device: str = "auto") -> Network:
    """Open a run, a checkpoint or an ONNX file.

    Raises:
        CheckpointError: there is none, or it is damaged or of another version; an ONNX file cannot run on the device.
        TrainingError: a run cannot run on the device.
    """
    if path.suffix == ".onnx":
        from hotrain.onnx_network import OnnxNetwork

        return OnnxNetwork(path, device)
    return TorchNetwork(path, device)


class TorchNetwork:
    """A checkpoint, applied by PyTorch."""

    def __init__(self, path: Path, device: str) -> None:
        try:
            from hotrain.distributed import chosen_device
        except ModuleNotFoundError as error:
            raise CheckpointError(
                f"{path}: a run needs torch: pip install torch torchvision safetensors; without it, annotate with the "
                ".onnx file that `hotrain export` writes"
            ) from error
        from hotrain.checkpoint import find
        from hotrain.predict import load_predictor
        from hotrain.scoring.calibration import temperature_of

        opened = find(path)
        self._predictor = load_predictor(opened, chosen_device(device))
        self.task = opened.task
        self.rule = InputRule.from_json(opened.facts["input_rule"])
        self.temperature = temperature_of(opened)
        self.identity = file_sha256(opened.path / "weights.safetensors")

    def logits(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._predictor.network_logits(prepared).cpu().numpy()
        return found


def finite(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same logits; raises CheckpointError where one is no finite number, so that no class is the likeliest."""
    if not np.isfinite(logits).all():
        raise CheckpointError(NOT_FINITE)
    return logits


def stored_temperature(facts: Mapping[str, Any], where: str) -> float:
    """The temperature in the metadata of an exported model; 1 where there is none.

    Raises:
        CheckpointError: it is none that `calibrate` gives.
    """
    value = facts.get("temperature", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not COOLEST <= value <= HOTTEST:
        raise CheckpointError(f"{where}: temperature is {value!r}, it must be a number from {COOLEST} to {HOTTEST}")
    return float(value)


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
