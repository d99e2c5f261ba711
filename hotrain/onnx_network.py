"""An exported network, applied by onnxruntime; torch is not imported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import TASKS
from hotrain.config import DEVICES, NO_DEVICE
from hotrain.errors import CheckpointError
from hotrain.input_rule import InputRule
from hotrain.network import file_sha256, finite, stored_temperature

ONNX_VERSION = 1
METADATA = "hotrain"  # the key of the facts, as JSON
INPUT, OUTPUT = "image", "logits"

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxNetwork:
    """An `.onnx` file of `hotrain export`.

    Raises:
        CheckpointError: missing, damaged, of another program, or onnxruntime is not installed.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise CheckpointError(f"{path}: needs onnxruntime: pip install onnxruntime") from error
        if not DEVICES.fullmatch(device):
            raise CheckpointError(f"--device {device}: {NO_DEVICE}")
        self.identity = file_sha256(path)
        providers: list[Any] = [_CPU]
        if device != "cpu" and _CUDA in onnxruntime.get_available_providers():
            providers.insert(0, (_CUDA, {"device_id": int(device.partition(":")[2] or 0)}))
        elif device.startswith("cuda"):
            raise CheckpointError(f"--device {device}: this onnxruntime has no CUDA; install onnxruntime-gpu")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
            facts = json.loads(self._session.get_modelmeta().custom_metadata_map.get(METADATA, "null"))
        except Exception as error:  # onnxruntime raises many kinds on bytes that are something else
            raise CheckpointError(f"{path}: cannot be read as an ONNX model ({error})") from error
        if device.startswith("cuda") and _CUDA not in self._session.get_providers():
            raise CheckpointError(
                f"--device {device}: onnxruntime has CUDA and cannot use it here: is there such a GPU (nvidia-smi), "
                "and are its CUDA and cuDNN of the versions that this onnxruntime-gpu needs?"
            )
        self.task, self.rule, self.temperature = _facts(path, facts)

    def logits(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: np.stack(prepared)})[0]
        return finite(found)


def _facts(path: Path, facts: Any) -> tuple[Any, InputRule, float]:
    if not isinstance(facts, dict) or facts.get("onnx_version") != ONNX_VERSION:
        raise CheckpointError(
            f"{path}: holds no facts of hotrain (labels, input rule) of version {ONNX_VERSION}; "
            "export it with `hotrain export` of this version"
        )
    task = TASKS.get(facts.get("task", ""))
    if task is None or list(task.classes) != facts.get("classes"):
        raise CheckpointError(
            f"{path}: task is {facts.get('task')!r} with classes {facts.get('classes')}, this program has "
            f"{list(task.classes) if task else 'no such task'}; use the program that exported it"
        )
    rule = facts.get("input_rule")
    return task, InputRule.from_json(rule if isinstance(rule, dict) else {}), stored_temperature(facts, str(path))
