"""A run as one ONNX file that needs neither torch nor this program, and the proof that it answers the same.

In the graph: uint8 pixels [B, h, w, 3] in, normalisation, padding to the network's stride, the network, the padding cut
off, float32 logits [B, K, h, w] out. B, h and w are free. The input rule (at which size an image enters), labels,
classes, folds and temperature stand in the file's metadata under the key `hotrain`, as JSON.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hodata.files import replacing
from hodata.labels import EXTENTS
from hotrain.checkpoint import Checkpoint
from hotrain.decide import decide
from hotrain.errors import ExportError
from hotrain.model import create_model, logits_of
from hotrain.onnx_network import INPUT, METADATA, ONNX_VERSION, OUTPUT, OnnxNetwork
from hotrain.predict import NetworkPredictor, load_predictor
from hotrain.scoring.calibration import temperature_of

LOGITS_LIMIT = 1e-3  # largest difference of a logit
MASKS_LIMIT = 0.999  # share of pixels that must get the same class
_OPSET = 18


@dataclass(frozen=True)
class Parity:
    """How far the exported model is from the run: largest difference of a logit, share of equal pixels."""

    logits: float
    equal: float


def export_onnx(opened: Checkpoint, path: Path) -> Parity:
    """Write the file, read it back with onnxruntime and compare.

    Args:
        opened: the checkpoint.
        path: the `.onnx` file; it appears only if it answers as the run does.

    Returns:
        the differences found on pictures of several sizes.

    Raises:
        ExportError: a library is missing, the network cannot be exported, it answers differently, or the file cannot be
            written.
    """
    model = create_model(opened.facts["model"], len(opened.task.classes))
    model.load_state_dict(opened.weights())
    graph = _Graph(model.eval(), opened.facts["mean"], opened.facts["std"])
    exported = _exported(graph, _facts(opened))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(exported)
            found = parity(load_predictor(opened, torch.device("cpu")), OnnxNetwork(temporary, "cpu"), check_images())
            if found.logits >= LOGITS_LIMIT or found.equal < MASKS_LIMIT:
                raise ExportError(
                    f"{path}: the exported model answers differently: logits differ by up to {found.logits:.2g} (limit "
                    f"{LOGITS_LIMIT}), {100 * found.equal:.2f} % of pixels have the same class (limit "
                    f"{100 * MASKS_LIMIT:.1f} %); nothing was written. Another version of torch or onnxruntime may do"
                )
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error
    return found


def parity(predictor: NetworkPredictor, exported: OnnxNetwork, images: Sequence[NDArray[np.uint8]]) -> Parity:
    """Compare a run and its export on images uint8 [H, W, 3], each alone and all of one size together."""
    worst, equal, total = 0.0, 0, 0
    fold = exported.task.fold("wrist")
    for image in images:
        prepared = [predictor.prepare(image), predictor.prepare(np.ascontiguousarray(image[:, ::-1]))]
        ours, theirs = predictor.network_logits(prepared).numpy(), exported.logits(prepared)
        if ours.shape != theirs.shape:
            raise ExportError(f"the exported model answers {list(theirs.shape)}, the run {list(ours.shape)}")
        worst = max(worst, float(np.abs(ours - theirs).max()))
        size = (image.shape[1], image.shape[0])
        for one, other in zip(ours, theirs, strict=True):
            equal += int((decide(one, size, fold)[0] == decide(other, size, fold)[0]).sum())
            total += image.shape[0] * image.shape[1]
    return Parity(worst, equal / total)


def check_images() -> list[NDArray[np.uint8]]:
    """Pictures with smooth and sharp parts, of sizes that the stride does and does not divide."""
    rng = np.random.default_rng(0)
    pictures = []
    for width, height in ((320, 240), (227, 301), (64, 64)):
        coarse = torch.from_numpy(rng.random((1, 3, 6, 8)))
        smooth = functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).numpy()
        noise = rng.normal(0, 12, (height, width, 3))
        pictures.append((smooth * 255 + noise).clip(0, 255).astype(np.uint8))
    return pictures


class _Graph(nn.Module):
    """uint8 [B, h, w, 3] -> logits float32 [B, K, h, w]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.__class__ = nn.Conv2d  # without what suits some sizes or a CPU only (`model._DilatedConv`)
        self.model = model
        scale = 1 / torch.tensor(std)[:, None, None]
        self.register_buffer("scale", scale / 255)
        self.register_buffer("shift", torch.tensor(mean)[:, None, None] * scale)

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.permute(0, 3, 1, 2).float() * self.scale - self.shift
        return logits_of(self.model, pixels)["out"]


def _exported(graph: nn.Module, facts: dict[str, Any]) -> bytes:
    """The content of the file."""
    try:
        import onnx  # noqa: F401 - torch's exporter needs it and says so less clearly
        import onnxruntime  # noqa: F401 - the check needs it
        import onnxscript  # noqa: F401 - as onnx
    except ModuleNotFoundError as error:
        raise ExportError(f"export needs {error.name}: pip install onnx onnxscript onnxruntime") from error
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    example = torch.zeros(2, 96, 128, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch, 1: height, 2: width},),
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        raise ExportError(f"torch {torch.__version__} cannot export this network ({error})") from error
    if program is None:
        raise ExportError(f"torch {torch.__version__} gave no program")
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(facts)
    content: bytes = model.SerializeToString()
    return content


def _facts(opened: Checkpoint) -> dict[str, Any]:
    """What a program without hodata needs to use the file."""
    task = opened.task
    return {
        "onnx_version": ONNX_VERSION,
        "task": task.name,
        "classes": list(task.classes),
        "labels": dict(zip(task.public_classes, map(int, task.labels[: task.public]), strict=True)),
        "fold": {extent: task.fold(extent).tolist() for extent in EXTENTS},
        "input_rule": dict(opened.facts["input_rule"]),
        "temperature": temperature_of(opened),
        "model": opened.facts["model"],
        "position": opened.position,
    }
