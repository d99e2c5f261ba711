"""`hotrain.load(RUN).predict(images)` answers as evaluation does; the command works from a run's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from drawn import scene, write_frames
from PIL import Image

import hotrain
from hodata.labels import TASKS, Label
from hotrain import checkpoint
from hotrain.cli import cli
from hotrain.errors import CheckpointError, FrameError, TrainingError
from hotrain.model import create_model
from hotrain.predict import load_predictor
from hotrain.scoring.calibration import Calibration, Reliability, write_calibration


def save_run(
    folder: Path, task: str = "hand-object", size: int = 48, temperature: float | None = None, **facts: object
) -> Path:
    """A run with random weights of the smallest model; calibrated if a temperature is given."""
    torch.manual_seed(0)
    name = "lraspp_mobilenet_v3_large"
    model = create_model(name, len(TASKS[task].classes))
    facts = {
        "task": task,
        "classes": list(TASKS[task].classes),
        "model": name,
        "input_rule": {"kind": "short-side", "size": size},
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.25],
        **facts,
    }
    checkpoint.save(folder, position=1, weights=model.state_dict(), optimizer={}, facts=facts)
    if temperature is not None:
        nothing = Reliability(0.0, 0.0, ())
        write_calibration(checkpoint.find(folder).path, Calibration(temperature, nothing, nothing, {}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:7000"])
def test_a_device_that_is_not_there_is_refused(run: Path, device: str) -> None:
    with pytest.raises(TrainingError, match=rf"--device {device}: (expected auto|torch sees \d+ CUDA GPUs)"):
        hotrain.load(run, device=device)


def test_predictions_are_those_of_evaluation(run: Path) -> None:
    images = [scene(number, size)[0] for number, size in enumerate([(64, 48), (100, 50), (64, 48), (30, 30)])]
    segmenter = hotrain.load(run, device="cpu", extent="arm")
    predictor = load_predictor(checkpoint.find(run), torch.device("cpu"))
    fold = TASKS["hand-object"].fold("arm")
    assert segmenter.classes == ("background", "hand", "object")
    for image, found in zip(images, segmenter.predict(images), strict=True):
        height, width = image.shape[:2]
        prepared = [predictor.prepare(image)]
        expected = fold[predictor.classes(prepared, (width, height), fold[None])[0]]
        assert (found.classes == expected).mean() > 0.999
        np.testing.assert_array_equal(found.labels, np.array([0, Label.HAND, Label.OBJECT])[found.classes])
        chances = predictor.logits(prepared, (width, height)).softmax(1)[0].numpy()
        public = np.stack([chances[fold == c].sum(0) for c in range(3)])
        own = np.take_along_axis(public, found.classes[None].astype(int), 0)[0]
        assert np.abs(found.confidence - own).max() < 0.01
        assert found.confidence.dtype == np.float32 and found.labels.dtype == np.uint8


def test_one_image_several_and_files(run: Path, tmp_path: Path) -> None:
    image = scene()[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    segmenter = hotrain.load(str(run))
    (expected,) = segmenter.predict(image)
    for given in (Image.fromarray(image), tmp_path / "a.png", str(tmp_path / "a.png"), [image], image[None]):
        (found,) = segmenter.predict(given)
        np.testing.assert_array_equal(found.classes, expected.classes)
    assert segmenter.predict([]) == []


def test_what_is_no_image_is_refused(run: Path, tmp_path: Path) -> None:
    segmenter = hotrain.load(run)
    with pytest.raises(ValueError, match=r"uint8 array \[H, W, 3\].*float64"):
        segmenter.predict(np.zeros((4, 4, 3)))
    with pytest.raises(FrameError, match="cannot be read"):
        segmenter.predict(tmp_path / "none.png")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        hotrain.load(tmp_path)
    with pytest.raises(CheckpointError, match="temperature"):
        hotrain.load(save_run(tmp_path / "bad", temperature=1e9))


def test_a_stored_temperature_changes_confidence_alone(run: Path, tmp_path: Path) -> None:
    warm = save_run(tmp_path / "warm", temperature=5.0)
    image = scene()[0]
    (cold_answer,), (warm_answer,) = (hotrain.load(folder).predict(image) for folder in (run, warm))
    np.testing.assert_array_equal(cold_answer.classes, warm_answer.classes)
    # Not always lower: where all classes are alike, two that are one public class have half of the probability.
    assert np.abs(warm_answer.confidence - cold_answer.confidence).max() > 0


def test_the_command(run: Path, tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 3)
    command = ["annotate", "--checkpoint", str(run), str(root), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, [*command, "--format", "png,coco", "--format", "honnotate", "--batch-size", "2"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "out") and "3 frames annotated" in done.stderr
    expected = hotrain.load(run).predict([root / "2.png"])[0]
    found = np.asarray(Image.open(tmp_path / "out" / "png" / "2.png"))
    assert (found == expected.labels).mean() > 0.99
    (root / "3.png").write_bytes(b"")
    skipped = CliRunner().invoke(cli, [*command, "--format", "png,coco,honnotate", "--batch-size", "2"])
    assert skipped.exit_code == 3 and "skipped 3: is empty" in skipped.stderr


def test_wrong_usage(run: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    for command in (
        ["annotate", "x", *out],
        ["annotate", "--checkpoint", str(run), *out],
        ["annotate", "--checkpoint", str(run), "x", *out, "--format", "jpeg"],
    ):
        assert CliRunner().invoke(cli, command).exit_code == 2
