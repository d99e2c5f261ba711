"""The model that a run begins with: a checkpoint's, another run's, pretrained, or random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hodata.labels import Task
from hotrain import checkpoint
from hotrain.config import FitConfig
from hotrain.errors import CheckpointError, TrainingError
from hotrain.learning.optimizer import OPTIMIZERS
from hotrain.model import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    carry_over,
    create_model,
    load_body,
    load_coco,
    read_weights,
    set_dropout,
)


@dataclass(frozen=True)
class Start:
    """A model and what belongs to it.

    Args:
        model: for the classes of the run's task.
        mean, std: normalisation of its input, RGB in 0..1.
        lr: peak learning rate of the head.
        body_factor: learning rate of the backbone relative to it.
        notes: for people: where the weights come from.
        datasets: of the runs that the weights come from: source -> words of its manifest (`card_facts.dataset_words`).
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    lr: float
    body_factor: float
    notes: list[str]
    datasets: Mapping[str, Mapping[str, str]]


def begin(config: FitConfig, task: Task, before: checkpoint.Checkpoint | None) -> Start:
    """Make the model of a run.

    Args:
        config: of the run.
        task: its classes.
        before: the checkpoint that the run goes on from, if it does.

    Raises:
        WeightsError: pretrained weights are missing or do not fit.
        TrainingError: a dropout for a model that has none.
        CheckpointError: `--init` or `before` is for another task or model.
    """
    torch.manual_seed(config.seed)
    model = create_model(config.model, len(task.classes))
    if config.dropout is not None and not set_dropout(model, config.dropout):
        raise TrainingError(f"--dropout: {config.model} has no dropout; leave it out")
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    defaults = OPTIMIZERS[config.optimizer]
    lr, body_factor = defaults.lr, 0.1
    notes: list[str] = []
    datasets: Mapping[str, Mapping[str, str]] = {}
    if before:
        before.require(task=task.name, classes=list(task.classes), model=config.model)
        model.load_state_dict(before.trained_weights())
        mean, std = tuple(before.facts["mean"]), tuple(before.facts["std"])
        lr, body_factor = before.facts["lr"], before.facts["body_factor"]
        datasets = before.facts.get("datasets", {})
        notes.append(f"going on from {before.path}")
    elif config.init is not None:
        other = checkpoint.find(Path(config.init))
        if other.facts["model"] != config.model:
            raise CheckpointError(
                f"{other.path}: was trained with --model {other.facts['model']}, this run has {config.model}; a run "
                "can only start from one of the same model"
            )
        shared = carry_over(model, task.classes, other.weights(), other.task.classes, str(other.path))
        mean, std, body_factor = tuple(other.facts["mean"]), tuple(other.facts["std"]), 0.5
        datasets = other.facts.get("datasets", {})
        notes.append(f"starting from {other.path}; classes carried over: {', '.join(shared)}")
    elif config.weights == "coco":
        mean, std = load_coco(model, config.model)
        notes.append(f"starting from the COCO weights of {config.model}")
    elif config.weights == "none":
        lr, body_factor = defaults.lr_scratch, 1.0
        notes.append("starting from random weights")
    else:
        load_body(model, read_weights(Path(config.weights)), config.weights)
        notes.append(f"starting from {config.weights}")
    lr = lr if config.lr is None else config.lr
    body_factor = body_factor if config.body_factor is None else config.body_factor
    return Start(model, mean, std, lr, body_factor, notes, datasets)
