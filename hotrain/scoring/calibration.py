"""How sure a model may say it is: one temperature, and a table of confidence against truth.

The logits are divided by one number before the softmax (Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern
Neural Networks", ICML 2017, section 4.2). It changes no answer, only how sure each is. It is stored beside the weights
of a checkpoint as calibration.json, and never changes them.

Needs no torch. Shapes: M pixels, K classes, P public classes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.files import replacing
from hotrain.errors import CheckpointError

if TYPE_CHECKING:
    from hotrain.checkpoint import Checkpoint

CALIBRATION_VERSION = 1
FILE = "calibration.json"
BINS = 15
COOLEST, HOTTEST = 0.05, 20.0
_GRID = 25
_LARGEST_FILE = 1_000_000  # bytes

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Bin:
    """Pixels whose confidence lies in (low, high]: how many, their mean confidence, the share of right answers."""

    low: float
    high: float
    pixels: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """How far confidence is from truth.

    Args:
        nll: mean -log of the probability of each pixel's set, nats.
        ece: expected calibration error, 0..1: mean distance of confidence and accuracy over the bins, by pixels.
        bins: 15 of equal width.
    """

    nll: float
    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Calibration:
    """A model's temperature and how it was found.

    Args:
        temperature: what to divide logits by.
        before, after: at temperature 1, and at the one found.
        facts: samples, pixels, split, extents, data hash, seed.
    """

    temperature: float
    before: Reliability
    after: Reliability
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """{calibration_version, temperature, before, after, and the facts}."""
        return {
            "calibration_version": CALIBRATION_VERSION,
            "temperature": self.temperature,
            "before": asdict(self.before),
            "after": asdict(self.after),
            **self.facts,
        }


def temperature_of(checkpoint: Checkpoint | Path) -> float:
    """What to divide a checkpoint's logits by before the softmax: 1.0 where it was never calibrated.

    Args:
        checkpoint: opened, or its folder (that of `run.json`, not of the run).

    Raises:
        CheckpointError: its calibration.json is damaged.
    """
    stored = read_calibration(checkpoint)
    return 1.0 if stored is None else stored.temperature


def read_calibration(checkpoint: Checkpoint | Path) -> Calibration | None:
    """The calibration stored beside a checkpoint's weights; None where there is none; raises as `temperature_of`."""
    folder = checkpoint if isinstance(checkpoint, Path) else checkpoint.path
    path = folder / FILE
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError("too large")
        data = json.loads(path.read_text(encoding="utf-8"))
        version, temperature = data.pop("calibration_version"), float(data.pop("temperature"))
        before, after = _reliability(data.pop("before")), _reliability(data.pop("after"))
        if version != CALIBRATION_VERSION:
            raise ValueError(f"its version is {version}, this program reads {CALIBRATION_VERSION}")
        if not COOLEST <= temperature <= HOTTEST:
            raise ValueError(f"its temperature is {temperature}, it must be {COOLEST} to {HOTTEST}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be used ({error}); run `hotrain calibrate` again") from error
    return Calibration(temperature, before, after, data)


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Store it beside the weights under its final name only when complete; replaces an older one."""
    path, text = folder / FILE, json.dumps(calibration.to_json(), indent=1, allow_nan=False) + "\n"
    try:
        with replacing(path, durable=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def set_nll(logits: Floats, sets: NDArray[np.uint8], temperature: float) -> float:
    """Mean -log of the summed probability of the classes in each pixel's set: the loss of training, unweighted.

    Args:
        logits: [M, K].
        sets: uint8 [M], bit masks, never 0.
        temperature: above 0.
    """
    member = (sets[:, None] >> np.arange(logits.shape[1])) & 1 == 1
    scaled = logits.astype(np.float64) / temperature
    top = scaled.max(1, keepdims=True)
    every = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
    # Each set has its own largest logit: relative to that of all classes, its sum may underflow.
    own = np.where(member, scaled, -np.inf)
    peak = own.max(1, keepdims=True)
    of_set = np.log(np.exp(own - peak).sum(1)) + peak[:, 0]
    return float((every - of_set).mean())


def fit_temperature(logits: Floats, sets: NDArray[np.uint8]) -> float:
    """The temperature in 0.05..20 with the smallest `set_nll`: the best of a grid, then Brent's method round it.

    With sets of several classes the likelihood need not have one valley, so a grid comes first. Where no temperature is
    better than 1, it is 1.
    """
    from scipy.optimize import minimize_scalar

    grid = np.linspace(math.log(COOLEST), math.log(HOTTEST), _GRID)
    losses = [set_nll(logits, sets, math.exp(place)) for place in grid]
    best = int(np.argmin(losses))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)])
    found = minimize_scalar(
        lambda place: set_nll(logits, sets, math.exp(place)), bounds=bounds, method="bounded", options={"xatol": 1e-4}
    )
    place = found.x if found.fun <= losses[best] else grid[best]
    if min(found.fun, losses[best]) >= set_nll(logits, sets, 1.0):
        return 1.0
    return float(np.clip(math.exp(place), COOLEST, HOTTEST))


def reliability(nll: float, probabilities: Floats, truth: NDArray[np.integer[Any]]) -> Reliability:
    """Bins of confidence.

    Args:
        nll: as `set_nll` gives it.
        probabilities: [M, P].
        truth: [M], the one class of each pixel.
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    pixels = np.bincount(place, minlength=BINS)
    many = np.maximum(pixels, 1)
    means = np.bincount(place, confidence, BINS) / many
    shares = np.bincount(place, right, BINS) / many
    ece = float((np.abs(means - shares) * pixels).sum() / max(pixels.sum(), 1))
    bins = tuple(
        Bin(number / BINS, (number + 1) / BINS, int(pixels[number]), float(means[number]), float(shares[number]))
        for number in range(BINS)
    )
    return Reliability(nll, ece, bins)


def softmax(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """Probabilities float64 [M, K]."""
    scaled = logits.astype(np.float64) / temperature
    raised = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def _reliability(data: dict[str, Any]) -> Reliability:
    return Reliability(float(data["nll"]), float(data["ece"]), tuple(Bin(**one) for one in data["bins"]))
