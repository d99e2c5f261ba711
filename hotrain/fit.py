"""The training run, top to bottom: open the data, make the model, take the steps, keep the best.

Every rank runs the same lines; `is_main()` writes files and talks. The learning rate, the samples, their crops and
dropout are functions of the position, so a checkpoint needs weights, optimizer state and that one integer.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hodata.labels import TASKS, Task
from hotrain import checkpoint
from hotrain.augment import ColorRule, jitter_colors, normalize
from hotrain.config import FitConfig, learning_rate
from hotrain.data import Batch, CropData, CropRule, Loader
from hotrain.distributed import (
    all_reduce_sum,
    barrier,
    is_main,
    join_group,
    leave_group,
    rank,
    share_buffers,
    world_size,
)
from hotrain.errors import CheckpointError, Interrupted, TrainingError
from hotrain.evaluate import evaluate
from hotrain.guards import micro_batch
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
    logits_of,
    parameter_groups,
    read_weights,
)
from hotrain.order import ORDER_VERSION, Order, uniforms
from hotrain.pictures import save_picture
from hotrain.predict import NetworkPredictor
from hotrain.progress import FileLog, Progress, RunLog, progress
from hotrain.selection import Selection, meanings_of, select
from hotrain.sheets import example_sheet, spread_rows, training_curves
from hotrain.stop import StopSignals

DROPOUT = 2  # purpose of the random numbers drawn here, see `order.uniforms`
_LOG_STEPS = 20
_PREVIEWS = 8


def fit(config: FitConfig, resume: bool = False) -> None:
    """Train. Called by every rank.

    Args:
        config: the run; with `resume` it must agree with the checkpoint in all that decides the result so far.
        resume: go on from the last checkpoint in `config.out`.

    Raises:
        HodataError: the run cannot start or go on.
        Interrupted: SIGTERM or SIGINT, after a complete checkpoint.
    """
    device = join_group(config.device)
    try:
        with StopSignals() as stop:
            _fit(config, resume, device, stop)
    finally:
        leave_group()


def _fit(config: FitConfig, resume: bool, device: torch.device, stop: StopSignals) -> None:
    task = TASKS[config.task]
    run = Path(config.out)
    before = _checkpoint_to_resume(run, resume)
    micro = micro_batch(config.batch_size, world_size(), config.accumulation)

    selection = select(config, task)
    order = Order({name: len(rows) for name, rows in selection.rows.items()}, config.seed, config.source_weights)
    rule, crop = InputRule(config.crop), CropRule.of_strength(config.crop, config.jitter)
    epoch = config.samples_per_epoch or sum(len(rows) for rows in selection.rows.values())
    steps_per_epoch = max(round(epoch / config.batch_size), 1)
    steps = max(round(config.epochs * steps_per_epoch), 1)
    stop_at = steps * config.batch_size

    start = _start(config, task, before)
    facts = _facts(config, task, selection, start, rule, crop)
    if before:
        before.require(**{name: facts[name] for name in _MUST_AGREE})
    position = before.position if before else 0
    if position > stop_at:
        raise CheckpointError(f"{run}: is at sample {position}, beyond the {stop_at} of --epochs {config.epochs:g}")

    # Workers are forked here, before TensorBoard and the progress bar start their threads.
    loader = Loader(
        CropData(selection.index, selection.rows, order, rule, crop),
        start=position,
        stop=stop_at,
        batch=config.batch_size,
        micro=micro,
        rank=rank(),
        world=world_size(),
        workers=config.workers,
    )
    batches = iter(loader)
    model = start.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = parameter_groups(model, config.lr, start.body_factor, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, fused=True)
    if before:
        optimizer.load_state_dict(before.optimizer())
    peaks = [float(group["lr"]) for group in groups]
    step = Step(model, optimizer, task, selection, start, config, device)
    predictor = NetworkPredictor(model, rule, start.mean, start.std, device)
    log = FileLog(run, position) if is_main() else RunLog()
    best = before.facts.get("best") if before else None

    with progress("fit", stop_at, position, main=is_main()) as bar:
        for note in [*selection.notes, *start.notes] if not before else [f"going on from {before.path}"]:
            bar.say(note)
        report_now: Report | None = None
        while position < stop_at:
            number = position // config.batch_size
            factor = learning_rate(number, steps, config.warmup)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            parts = [next(batches) for _ in range(config.accumulation)]
            loss, asked = step.take(parts, position, stop.asked)
            position += config.batch_size
            number += 1

            figures: dict[str, float | None] = {"loss": loss}
            if number % _LOG_STEPS == 0 or number == steps:
                figures |= step.training_scores(parts[-1])
                if is_main():
                    log.scalars(position, "train", {**figures, "lr": config.lr * factor})
            bar.advance(config.batch_size, **figures)

            ends_epoch = number % steps_per_epoch == 0 or number == steps
            if ends_epoch or asked:
                share_buffers(model)
            if ends_epoch and len(selection.val_rows):
                report_now = evaluate(
                    selection.index,
                    selection.val_rows,
                    task,
                    predictor,
                    extent=config.extent,
                    batch_size=micro,
                )
            if ends_epoch or asked:
                best = _keep(run, position, model, optimizer, facts, report_now if ends_epoch else None, best)
            if ends_epoch and is_main():
                _show(run, position, selection, predictor, task, report_now, log, bar)
            if asked and position < stop_at:
                log.close()
                barrier()
                raise Interrupted(str(run / "checkpoints" / f"{position:010d}"))
    log.close()
    barrier()


@dataclass(frozen=True)
class Start:
    """The model that a run begins with, and what belongs to it."""

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    body_factor: float
    notes: list[str]


class Step:
    """One optimizer step over the micro-batches of this rank."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        task: Task,
        selection: Selection,
        start: Start,
        config: FitConfig,
        device: torch.device,
    ) -> None:
        self._task, self._start, self._seed, self._device = task, start, config.seed, device
        self._optimizer, self._prior, self._colors = optimizer, config.prior, ColorRule.of_strength(config.jitter)
        self._model = model
        ids = [device.index] if device.type == "cuda" else None
        self._parallel = DistributedDataParallel(model, ids) if world_size() > 1 else model
        index = selection.index
        self._keys, self._sources = index.column("key"), index.column("source")
        self._tables = set_tables([index.meanings[name] for name in sorted(index.meanings)], task).to(device)
        self._extents = {
            name: source_extent(meanings_of(index, rows), task, config.extent) for name, rows in selection.rows.items()
        }
        self._logits: Tensor | None = None

    def take(self, parts: Sequence[Batch], position: int, stop_asked: bool) -> tuple[float, bool]:
        """Forward, backward, update.

        Args:
            parts: this rank's micro-batches.
            position: where the batch begins.
            stop_asked: whether this rank was asked to stop.

        Returns:
            the loss of the whole batch, mean per decided pixel over all ranks; whether any rank was asked to stop.

        Raises:
            TrainingError: the loss is not finite.
        """
        torch.manual_seed(int(uniforms(self._seed, position, DROPOUT, rank() + 1)[-1] * 2**53))
        self._parallel.train()
        moved = [{name: value.to(self._device, non_blocking=True) for name, value in part.items()} for part in parts]
        sets = [class_sets(part["label"], part["meaning"], self._tables) for part in moved]
        # Known before backward: a mean of per-rank means would weigh ranks with few decided pixels too high.
        decided = sum(int(decided_pixels(each, len(self._task.classes))) for each in sets)
        total = all_reduce_sum(torch.tensor([decided, int(stop_asked)], dtype=torch.int64))
        pixels = max(int(total[0]), 1)

        self._optimizer.zero_grad(set_to_none=True)
        summed = torch.zeros((), device=self._device)
        for number, (part, of_part, each) in enumerate(zip(moved, parts, sets, strict=True)):
            last = number == len(parts) - 1
            with nullcontext() if last or world_size() == 1 else self._parallel.no_sync():  # type: ignore[operator]
                loss = self._loss(part["image"], of_part["position"], each) / pixels
                # DistributedDataParallel divides gradients by the number of ranks; the pixels are counted over all.
                (loss * world_size()).backward()
            summed += loss.detach()
        value = float(summed)
        if not np.isfinite(value):
            keys = [self._keys[row] for part in parts for row in part["row"].tolist()]
            raise TrainingError(
                f"the loss is {value} at position {position}; lower --lr. The samples of this step on rank {rank()}: "
                f"{', '.join(keys)}"
            )
        self._optimizer.step()
        joined = all_reduce_sum(torch.tensor([value], dtype=torch.float64))
        return float(joined[0]), bool(total[1])

    def training_scores(self, part: Batch) -> dict[str, float | None]:
        """IoU of hand and object on the crops of the last forward pass: a glimpse, not a score."""
        assert self._logits is not None
        answers = self._logits.argmax(1).byte().cpu().numpy()
        sets = class_sets(part["label"], part["meaning"], self._tables.cpu()).numpy()
        matrices: dict[str, Any] = {}
        for row, of_row, answer in zip(part["row"].tolist(), sets, answers, strict=True):
            name = self._sources[row]
            matrices[name] = matrices.get(name, 0) + confusion(of_row, answer, len(self._task.classes))
        kinds = report(matrices, dict.fromkeys(matrices, 0), self._task, self._extents).pooled.kinds
        return {f"iou {name}": value for name, value in kinds.items()}

    def _loss(self, image: Tensor, position: Tensor, sets: Tensor) -> Tensor:
        """Sum over the pixels of a micro-batch, with the auxiliary head's share."""
        pixels = normalize(jitter_colors(image, self._seed, position, self._colors), self._start.mean, self._start.std)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            outputs = logits_of(self._parallel, pixels)
        self._logits = outputs["out"].detach()
        loss = set_loss(outputs["out"], sets, self._prior)
        if "aux" in outputs:
            loss = loss + AUX_WEIGHT * set_loss(outputs["aux"], sets, self._prior)
        return loss


def _checkpoint_to_resume(run: Path, resume: bool) -> checkpoint.Checkpoint | None:
    if resume:
        return checkpoint.find(run, which="last")
    if (run / "checkpoints").is_dir():
        raise CheckpointError(f"{run}: holds a run already; go on with --resume, or give another --out")
    return None


def _start(config: FitConfig, task: Task, before: checkpoint.Checkpoint | None) -> Start:
    """The model to begin with: a checkpoint's, another run's, downloaded weights, or random ones."""
    torch.manual_seed(config.seed)
    model = create_model(config.model, len(task.classes))
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    factor = 0.1
    notes: list[str] = []
    if before:
        before.require(task=task.name, classes=list(task.classes), model=config.model)
        model.load_state_dict(before.weights())
        mean, std, factor = tuple(before.facts["mean"]), tuple(before.facts["std"]), before.facts["body_factor"]
        return Start(model, mean, std, factor, notes)
    if config.init is not None:
        other = checkpoint.find(Path(config.init))
        if other.facts["model"] != config.model:
            raise CheckpointError(
                f"{other.path}: was trained with --model {other.facts['model']}, this run has {config.model}; a run "
                "can only start from one of the same model"
            )
        shared = carry_over(model, task.classes, other.weights(), other.task.classes, str(other.path))
        mean, std, factor = tuple(other.facts["mean"]), tuple(other.facts["std"]), 0.5
        notes.append(f"starting from {other.path}; classes carried over: {', '.join(shared)}")
    elif config.weights == "coco":
        mean, std = load_coco(model, config.model)
        notes.append(f"starting from the COCO weights of {config.model}")
    elif config.weights == "none":
        factor = 1.0
        notes.append("starting from random weights")
    else:
        load_body(model, read_weights(Path(config.weights)), config.weights)
        notes.append(f"starting from {config.weights}")
    return Start(model, mean, std, factor if config.body_factor is None else config.body_factor, notes)


# Facts that must be the same when a run goes on: they decide which samples come next and how they enter.
_MUST_AGREE = (
    "task",
    "classes",
    "model",
    "data_hash",
    "order_version",
    "seed",
    "batch_size",
    "source_weights",
    "input_rule",
    "crop_rule",
)


def _facts(
    config: FitConfig, task: Task, selection: Selection, start: Start, rule: InputRule, crop: CropRule
) -> dict[str, Any]:
    """What run.json records besides version and position."""
    return {
        "task": task.name,
        "classes": list(task.classes),
        "model": config.model,
        "extent": config.extent,
        "input_rule": rule.to_json(),
        "crop_rule": {"size": crop.size, "scale": list(crop.scale), "flip": crop.flip},
        "mean": list(start.mean),
        "std": list(start.std),
        "body_factor": start.body_factor,
        "data_hash": selection.data_hash,
        "sources": {name: len(rows) for name, rows in selection.rows.items()},
        "order_version": ORDER_VERSION,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "source_weights": dict(config.source_weights),
        "config": config.to_json(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
    }


def _keep(
    run: Path,
    position: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    facts: dict[str, Any],
    scored: Report | None,
    best: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """Save a checkpoint, mark it where it is the best, drop the ones in between. Returns the best score so far."""
    jaccard = scored.pooled.jaccard if scored else None
    improves = jaccard is not None and (best is None or jaccard > best["jaccard"])
    if improves:
        best = {"jaccard": jaccard, "position": position}
    if is_main():
        path = checkpoint.save(
            run,
            position=position,
            weights=model.state_dict(),
            optimizer=optimizer.state_dict(),
            facts={**facts, "best": best, "score": scored.to_json() if scored else None},
        )
        if improves and scored:
            checkpoint.mark_best(run, path, scored.to_json())
        checkpoint.remove_old(run)
    return best


def _show(
    run: Path,
    position: int,
    selection: Selection,
    predictor: NetworkPredictor,
    task: Task,
    scored: Report | None,
    log: RunLog,
    bar: Progress,
) -> None:
    """After an epoch: figures, a preview, the curves so far."""
    shown = selection.val_rows if len(selection.val_rows) else np.concatenate(list(selection.rows.values()))
    title = f"{'validation' if scored else 'training'} samples after {position} samples"
    if scored:
        pooled = scored.pooled
        figures = {f"iou {name}": value for name, value in pooled.iou.items()}
        log.scalars(position, "val", {**figures, "jaccard": pooled.jaccard, "accuracy": pooled.accuracy})
        listed = "  ".join(f"IoU {name} {_figure(value)}" for name, value in pooled.kinds.items())
        title += f" (extent {pooled.extent}): {listed}"
        bar.say(f"validation at {position}: {listed}  accuracy {_figure(pooled.accuracy)} (extent {pooled.extent})")
    sheet = example_sheet(selection.index, spread_rows(selection.index, shown, _PREVIEWS), predictor, task, title)
    save_picture(sheet, run / "previews" / f"{position:010d}.png")
    save_picture(training_curves(run), run / "curves.png")
    log.picture(position, "preview", np.asarray(sheet))


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
