"""The exported file answers as the run does, at sizes it was not exported at, and without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from drawn import scene, write_frames
from PIL import Image
from test_api import save_run

import hotrain
from hotrain import checkpoint, export
from hotrain.cli import cli
from hotrain.errors import CheckpointError, ExportError
from hotrain.model import create_model
from hotrain.network import stored_temperature
from hotrain.onnx_network import OnnxNetwork
from hotrain.predict import load_predictor
from hotrain.scoring.calibration import COOLEST, HOTTEST

_WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}: not installed here", name=name)

sys.meta_path.insert(0, Refuse())
sys.argv = ["hotrain", *sys.argv[1:]]
from hotrain.cli import main
main()
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with DeepLabv3's dilated convolutions, whose weights have left their start, and its file."""
    from hodata.labels import TASKS

    torch.manual_seed(0)
    name = "deeplabv3_mobilenet_v3_large"
    model = create_model(name, len(TASKS["sides"].classes))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
    run = save_run(tmp_path_factory.mktemp("exported"), "sides", 96, temperature=1.5)
    folder = checkpoint.find(run).path
    facts = {**json.loads((folder / "run.json").read_text()), "model": name}
    (folder / "run.json").write_text(json.dumps(facts))
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "weights.safetensors")
    done = CliRunner().invoke(cli, ["export", "--checkpoint", str(run), "--format", "onnx"])
    assert done.exit_code == 0, done.output
    assert "of pixels have the same class" in done.stderr
    return run, Path(done.stdout.strip())


def test_a_device_that_is_none_is_refused(exported: tuple[Path, Path]) -> None:
    with pytest.raises(CheckpointError, match="--device mps: expected auto, cpu, cuda or cuda:N"):
        OnnxNetwork(exported[1], "mps")


@pytest.mark.parametrize(("device", "asked"), [("auto", 0), ("cuda", 0), ("cuda:2", 2), ("cpu", None)])
def test_the_gpu_that_was_asked_for(
    exported: tuple[Path, Path], device: str, asked: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An onnxruntime that says it has CUDA, and falls back to the CPU when there is no GPU, as the real one does."""
    real, given = onnxruntime.InferenceSession, []

    def session(path: str, options: Any, providers: list[Any]) -> Any:
        given.extend(providers)
        return real(path, options, providers=providers[-1:])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    if device.startswith("cuda"):
        with pytest.raises(CheckpointError, match=f"--device {device}: onnxruntime has CUDA and cannot use it here"):
            OnnxNetwork(exported[1], device)
    else:
        OnnxNetwork(exported[1], device)
    gpu = [] if asked is None else [("CUDAExecutionProvider", {"device_id": asked})]
    assert given == [*gpu, "CPUExecutionProvider"]


def test_answers_that_are_no_numbers_are_told(exported: tuple[Path, Path]) -> None:
    network = OnnxNetwork(exported[1], "cpu")
    network._session = SimpleNamespace(run=lambda *_: [np.full((1, 4, 8, 8), np.nan, np.float32)])
    with pytest.raises(CheckpointError, match="not finite"):
        network.logits([np.zeros((8, 8, 3), np.uint8)])
    predictor = load_predictor(checkpoint.find(exported[0]), torch.device("cpu"))
    with torch.no_grad():
        next(predictor._model.parameters()).fill_(torch.nan)
    with pytest.raises(CheckpointError, match="not finite"):
        predictor.classes([np.zeros((64, 64, 3), np.uint8)], (64, 64))


@pytest.mark.parametrize("size", [(96, 96), (129, 97), (400, 300), (33, 500)])
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_at_any_size(exported: tuple[Path, Path], size: tuple[int, int], batch: int) -> None:
    """Sizes at which no, some and all of ASPP's rates see more than the middle, and strides that do not divide."""
    run, file = exported
    predictor = load_predictor(checkpoint.find(run), torch.device("cpu"))
    images = list(np.random.default_rng(0).integers(0, 256, (batch, size[1], size[0], 3), dtype=np.uint8))
    ours, theirs = predictor.network_logits(images).numpy(), OnnxNetwork(file, "cpu").logits(images)
    assert ours.shape == theirs.shape == (batch, 6, size[1], size[0])
    assert np.abs(ours - theirs).max() < 1e-3
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.999


def test_the_file_explains_itself(exported: tuple[Path, Path]) -> None:
    session = onnxruntime.InferenceSession(str(exported[1]), providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["hotrain"])
    assert facts["classes"] == ["background", "left", "right", "object", "left_arm", "right_arm"]
    assert facts["labels"] == {"background": 0, "left": 1, "right": 2, "object": 10}
    assert facts["fold"] == {"wrist": [0, 1, 2, 3, 0, 0], "arm": [0, 1, 2, 3, 1, 2]}
    assert facts["input_rule"] == {"kind": "short-side", "size": 96} and facts["temperature"] == 1.5
    (entry,) = session.get_inputs()
    assert entry.type == "tensor(uint8)" and entry.shape[3] == 3
    assert all(isinstance(side, str) for side in entry.shape[:3])


def test_annotate_and_predict_without_torch(exported: tuple[Path, Path], tmp_path: Path) -> None:
    run, file = exported
    root = write_frames(tmp_path / "in", 3, (200, 150))
    options = ["--format", "png,coco,hold", "--refine", "crop", "--batch-size", "2", "--device", "cpu"]
    done = {}
    for name, model in (("torch", run), ("onnx", file)):
        command = ["annotate", "--checkpoint", str(model), str(root), "--out", str(tmp_path / name), *options]
        starts = ["-m", "hotrain.cli"] if name == "torch" else ["-c", _WITHOUT_TORCH]
        done[name] = subprocess.run([sys.executable, *starts, *command], capture_output=True, text=True, env=os.environ)
        assert done[name].returncode == 0, done[name].stderr
    for number in range(3):
        one, other = (np.asarray(Image.open(tmp_path / name / "png" / f"{number}.png")) for name in ("torch", "onnx"))
        assert (one == other).mean() > 0.999
    (ours,), (theirs,) = (hotrain.load(model).predict(scene()[0]) for model in (run, file))
    assert (ours.labels == theirs.labels).mean() > 0.999
    assert np.abs(ours.confidence - theirs.confidence).max() < 0.02


def test_a_run_without_torch_is_refused_in_words(exported: tuple[Path, Path], tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 1)
    command = ["annotate", "--checkpoint", str(exported[0]), str(root), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", _WITHOUT_TORCH, *command], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install" in done.stderr and "Traceback" not in done.stderr


def test_a_file_has_a_temperature_that_a_run_can_have() -> None:
    for value in (COOLEST, 1, HOTTEST):
        assert stored_temperature({"temperature": value}, "a.onnx") == value
    assert stored_temperature({}, "a.onnx") == 1
    for wrong in (COOLEST / 2, HOTTEST * 2, True, "1", None, float("nan")):
        with pytest.raises(CheckpointError, match=f"a.onnx: temperature is .*from {COOLEST} to {HOTTEST}"):
            stored_temperature({"temperature": wrong}, "a.onnx")


def test_other_files_are_refused(exported: tuple[Path, Path], tmp_path: Path) -> None:
    import onnx

    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(CheckpointError, match="cannot be read as an ONNX model"):
        OnnxNetwork(tmp_path / "text.onnx")
    with pytest.raises(CheckpointError, match="cannot be read"):
        OnnxNetwork(tmp_path / "missing.onnx")
    model = onnx.load(str(exported[1]))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    with pytest.raises(CheckpointError, match="holds no facts of hotrain"):
        OnnxNetwork(tmp_path / "bare.onnx")


def test_a_file_that_answers_differently_is_not_written(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export of other weights, as a faulty exporter would write it, is found out."""

    monkeypatch.setattr(export, "_exported", lambda graph, facts: exported[1].read_bytes())
    other = save_run(tmp_path / "other", "sides", 96)
    with pytest.raises(ExportError, match="answers differently"):
        export.export_onnx(checkpoint.find(other), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_file_that_cannot_be_written_is_named(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_exported", lambda graph, facts: exported[1].read_bytes())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="cannot be written"):
        export.export_onnx(checkpoint.find(exported[0]), tmp_path / "file" / "model.onnx")
