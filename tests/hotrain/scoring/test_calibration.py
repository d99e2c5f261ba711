"""Temperature and reliability against known truth, grids and plain loops; the file beside the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_shards import Spec

from hodata.labels import TASKS
from hodata.shards.reader import ShardIndex
from hotrain.errors import CheckpointError, SelectionError
from hotrain.scoring.calibrate import calibrate, drawn_places, of_pixels_drawn
from hotrain.scoring.calibration import (
    fit_temperature,
    read_calibration,
    reliability,
    set_nll,
    softmax,
    temperature_of,
    write_calibration,
)


def drawn(rng: np.random.Generator, pixels: int, classes: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too sure, and a class for each pixel drawn from the right probabilities."""
    logits = 2 * rng.normal(size=(pixels, classes))
    chosen = (softmax(logits, 1.0).cumsum(1) > rng.random((pixels, 1))).argmax(1)
    return (logits * temperature).astype(np.float32), chosen


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("merged", [False, True])
def test_the_temperature_that_was_put_in_is_found(temperature: float, merged: bool) -> None:
    """With sets of one class, and with classes 1 and 3 left undecided wherever one of them is true."""
    logits, chosen = drawn(np.random.default_rng(0), 20_000, 4, temperature)
    sets = np.where(merged & np.isin(chosen, (1, 3)), 0b1010, 1 << chosen).astype(np.uint8)
    assert fit_temperature(logits, sets) == pytest.approx(temperature, rel=0.06)


def test_no_temperature_of_a_fine_grid_is_better() -> None:
    rng = np.random.default_rng(1)
    logits, sets = rng.normal(size=(300, 4)), rng.integers(1, 15, 300).astype(np.uint8)
    logits[np.arange(300), rng.integers(0, 4, 300)] += 1.5
    found = set_nll(logits, sets, fit_temperature(logits, sets))
    assert found <= min(set_nll(logits, sets, t) for t in np.geomspace(0.05, 20, 500)) + 1e-9


def test_a_model_that_is_never_wrong_stays_as_it_is() -> None:
    assert fit_temperature(np.full((9, 2), [-90.0, 90.0]), np.full(9, 2, np.uint8)) == 1.0


def test_set_nll_is_its_definition() -> None:
    rng = np.random.default_rng(2)
    logits, sets = 30 * rng.normal(size=(50, 4)), rng.integers(1, 16, 50).astype(np.uint8)
    total = 0.0
    for row, members in zip(logits.tolist(), sets.tolist(), strict=True):
        raised = [math.exp(value / 5.0) for value in row]
        total -= math.log(sum(r for c, r in enumerate(raised) if members >> c & 1) / sum(raised))
    assert set_nll(logits, sets, 5.0) == pytest.approx(total / 50)
    assert math.isfinite(set_nll(np.array([[900.0, -900.0]]), np.array([2], np.uint8), 0.05))


def test_bins_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    probabilities, truth = rng.dirichlet([0.5, 0.5, 0.5], 400), rng.integers(0, 3, 400)
    probabilities[:2] = [[1.0, 0.0, 0.0], [0.6, 0.2, 0.2]]  # on the upper edge of their bins
    found = reliability(0.0, probabilities, truth)
    assert len(found.bins) == 15
    error = 0.0
    for number, one in enumerate(found.bins):
        own = [(max(p), int(np.argmax(p) == t)) for p, t in zip(probabilities.tolist(), truth, strict=True)]
        own = [(sure, right) for sure, right in own if number / 15 < sure <= (number + 1) / 15]
        assert one.pixels == len(own)
        if own:
            assert one.confidence == pytest.approx(np.mean([sure for sure, _ in own]))
            assert one.accuracy == pytest.approx(np.mean([right for _, right in own]))
            error += abs(sum(sure for sure, _ in own) - sum(right for _, right in own))
    assert found.ece == pytest.approx(error / 400)


def test_calibration_brings_confidence_to_truth() -> None:
    logits, chosen = drawn(np.random.default_rng(4), 20_000, 4, 3.0)
    fold = np.arange(4, dtype=np.uint8)
    found = of_pixels_drawn(logits, (1 << chosen).astype(np.uint8), np.repeat(fold[None], 20_000, 0), {})
    assert found.before.ece > 0.1 and found.after.ece < 0.015
    assert found.after.nll < found.before.nll


def test_an_arm_that_counts_as_hand_is_folded_before_confidence() -> None:
    """Hand and arm equally likely and together sure: at extent arm the answer is sure, and right."""
    logits = np.tile(np.array([[-5.0, 3.0, -5.0, 3.0]], np.float32), (30, 1))
    task = TASKS["hand-object"]
    folds = np.repeat(task.fold("arm")[None], 30, 0)
    found = of_pixels_drawn(logits, np.full(30, 0b1010, np.uint8), folds, {})
    full = [one for one in found.before.bins if one.pixels]
    assert len(full) == 1 and full[0].confidence > 0.99 and full[0].accuracy == 1.0


def test_pixels_are_drawn_from_the_decided_ones_and_always_the_same() -> None:
    sets = np.random.default_rng(5).choice(np.array([1, 2, 15], np.uint8), 900)
    places = drawn_places(sets, 15, "key", 5000)
    assert len(places) == 5000 and (sets[places] != 15).all()
    np.testing.assert_array_equal(places, drawn_places(sets, 15, "key", 5000))
    assert (places[:100] != drawn_places(sets, 15, "other", 100)).any()
    counts = np.bincount(places, minlength=900)[sets != 15]
    # Every decided pixel is as likely: chi squared has mean n and deviation sqrt(2 n).
    mean, n = 5000 / len(counts), len(counts) - 1
    assert abs(((counts - mean) ** 2 / mean).sum() - n) < 4 * math.sqrt(2 * n)
    assert not len(drawn_places(np.full(9, 15, np.uint8), 15, "key", 10))


class Sure:
    """Hand where it is not quite dark, which is often wrong, with logits that are far too sure."""

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def network_logits(self, prepared: Sequence[Any]) -> torch.Tensor:
        hand = (np.stack(prepared)[..., 0] > 60) * np.float32(40) - 20
        return torch.from_numpy(np.stack([-hand, hand, np.full_like(hand, -30.0)], 1))


def test_calibrating_on_shards_is_repeatable_and_cools_a_model_that_is_too_sure(
    opened: Callable[..., ShardIndex],
) -> None:
    index = opened(Spec("one", "val", 8))
    task = TASKS["hand"]
    found = calibrate(index, index.select(), task, Sure(), pixels=300, samples=5)  # type: ignore[arg-type]
    assert found == calibrate(index, index.select()[::-1], task, Sure(), pixels=300, samples=5)  # type: ignore[arg-type]
    assert found.facts["samples"] == 5 and found.facts["pixels"] == 1500 and found.facts["extents"] == {"one": "wrist"}
    assert found.temperature > 10 and found.after.nll < found.before.nll / 10
    with pytest.raises(SelectionError, match="no sample"):
        calibrate(index, np.zeros(0, np.int64), task, Sure())  # type: ignore[arg-type]


def test_the_file_comes_back_and_leaves_the_weights_alone(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    assert temperature_of(tmp_path) == 1.0 and read_calibration(tmp_path) is None
    logits, chosen = drawn(np.random.default_rng(6), 500, 4, 2.0)
    folds = np.repeat(np.arange(4, dtype=np.uint8)[None], 500, 0)
    found = of_pixels_drawn(logits, (1 << chosen).astype(np.uint8), folds, {"split": "val", "samples": 3})
    write_calibration(tmp_path, found)
    assert read_calibration(tmp_path) == found and temperature_of(tmp_path) == found.temperature
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration.json", "weights.safetensors"]
    assert (tmp_path / "weights.safetensors").read_bytes() == b"weights"
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_calibration(tmp_path / "nowhere", found)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"calibration_version": 9},
        {"before": None},
        {"after": {"nll": 1, "ece": 0, "bins": [{"low": 0}]}},
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    found = of_pixels_drawn(
        np.eye(4, dtype=np.float32),
        np.array([1, 2, 4, 8], np.uint8),
        np.tile(np.arange(4), (4, 1)).astype(np.uint8),
        {},
    )
    path = write_calibration(tmp_path, found)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=r"calibration\.json: cannot be used"):
        temperature_of(tmp_path)
    path.write_text("[1]")
    with pytest.raises(CheckpointError, match=r"calibration\.json: cannot be used"):
        temperature_of(tmp_path)
