"""Everything that decides a training run, and the course of its learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hotrain.errors import CheckpointError

_POLY_POWER = 0.9  # as in DeepLab (arXiv:1706.05587, section 4.1)


@dataclass(frozen=True)
class FitConfig:
    """The options of a run.

    Args:
        shards: files, folders or globs; their recorded splits are used.
        out: the run's folder.
        task: name of a `hodata.labels.Task`.
        model: one of `hotrain.model.MODELS`.
        weights: `coco`, `none` or a file.
        init: another run's folder, whose weights are the start; takes the place of `weights`.
        epochs: how often `samples_per_epoch` samples are drawn.
        crop: side of a training crop and short side of an image as the network sees it, pixels.
        batch_size: samples of one optimizer step, over all processes and accumulation steps.
        accumulation: forward passes that one optimizer step is made of.
        workers: loading processes of each rank.
        seed: of order, augmentation, dropout and new layers.
        lr: peak learning rate of the head (AdamW).
        body_factor: learning rate of the backbone relative to it; None: 1 from scratch, 0.1 from weights, 0.5 from
            another run.
        weight_decay: of weights, decoupled.
        warmup: share of the steps over which the learning rate rises.
        source_weights: source name -> its share of the samples, relative to the others' sizes.
        jitter: strength of random zoom and colour changes; 0: crops and mirroring alone.
        prior: weight of the loss's prior toward background, see `loss.set_loss`.
        samples_per_epoch: None: as many as there are training samples.
        val_limit: at most so many validation samples are scored after an epoch, always the same.
        extent: at which the best checkpoint is chosen.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    shards: tuple[str, ...]
    out: str
    task: str = "hand"
    model: str = "deeplabv3_resnet50"
    weights: str = "coco"
    init: str | None = None
    epochs: float = 30
    crop: int = 480
    batch_size: int = 16
    accumulation: int = 1
    workers: int = 2
    seed: int = 0
    lr: float = 1e-3
    body_factor: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.05
    source_weights: Mapping[str, float] = field(default_factory=dict)
    jitter: float = 1.0
    prior: float = 0.1
    samples_per_epoch: int | None = None
    val_limit: int = 1000
    extent: str = "wrist"
    device: str = "auto"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shards": list(self.shards), "source_weights": dict(self.source_weights)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FitConfig:
        """The inverse of `to_json`; raises CheckpointError on options that this version does not know."""
        unknown = sorted(set(data) - {item.name for item in fields(cls)})
        if unknown or not {"shards", "out"} <= set(data):
            raise CheckpointError(
                f"the stored options do not fit this version (unknown: {unknown}, found: {sorted(data)}); "
                "use the program that started the run"
            )
        return cls(**{**data, "shards": tuple(data["shards"])})


def learning_rate(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate at a step: a linear rise, then (1 - progress) ** 0.9.

    Args:
        step: 0 <= step < steps.
        steps: of the whole run.
        warmup: share of the steps that the rise takes.

    Returns:
        in (0, 1].
    """
    rise = max(round(warmup * steps), 1)
    if step < rise:
        return (step + 1) / rise
    return float((1 - (step - rise) / max(steps - rise, 1)) ** _POLY_POWER)
