"""The training run, top to bottom: open the data, make the model, take the steps, keep the best."""

from __future__ import annotations

import hashlib
import math
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import hotrain
from hodata.labels import TASKS, Task
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint, guards
from hotrain.augment import ColorRule, jitter_colors, normalize
from hotrain.data import Batch, CropData, CropRule, Loader, meaning_numbers
from hotrain.distributed import all_reduce_sum, barrier, is_main, join_group, leave_group, rank, world_size
from hotrain.errors import CheckpointError, Interrupted, SelectionError, TrainingError
from hotrain.evaluate import evaluate
from hotrain.input_rule import InputRule
from hotrain.loss import class_sets, decided_pixels, set_loss, set_tables
from hotrain.metrics import Report, confusion, report, source_extent
from hotrain.model import (
    AUX_WEIGHT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    carry_over,
    create_model,
    load_body,
    load_coco,
    parameter_groups,
    read_weights,
)
from hotrain.order import ORDER_VERSION, Order, uniforms
from hotrain.pictures import save_picture
from hotrain.predict import NetworkPredictor
from hotrain.progress import FileLog, Progress, RunLog, progress
from hotrain.report import draw_curves, example_sheet

DROPOUT = 2  # purpose of the random numbers drawn here, see `order.uniforms`
_LOG_STEPS = 20


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a run.

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
        warmup: share of the steps over which the learning rate rises; then it falls as (1 - progress) ** 0.9.
        source_weights: source name -> its share of the samples, relative to the others' sizes.
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
    samples_per_epoch: int | None = None
    val_limit: int = 1000
    extent: str = "wrist"
    device: str = "auto"


def fit(config: FitConfig, resume: bool = False) -> None:
    """Train on this process's share of a run; called by every rank.

    Raises:
        HodataError: the run cannot start or go on.
        SystemExit: code 75, interrupted by SIGTERM or SIGINT after a complete checkpoint.
    """
    device = join_group(config.device)
    try:
        with StopSignals() as stop:
            Run(config, device, resume).train(stop)
    except Interrupted as stopped:
        if is_main():
            Progress.say(progress("fit", 0), f"stopped; the run is saved in {stopped.checkpoint}; go on with --resume")
        raise SystemExit(75) from None
    finally:
        leave_group()
