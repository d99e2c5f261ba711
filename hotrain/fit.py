"""The training run, top to bottom: open the data, make the model, take the steps, keep the best.

Every rank runs the same lines; the main one writes files and talks. The learning rate, the samples, their crops and
dropout are functions of the position, so a checkpoint needs weights, optimizer state and that one integer.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from hodata.errors import HodataError
from hodata.labels import TASKS, Task
from hotrain import checkpoint
from hotrain.config import SHARES, UNRECORDED, FitConfig
from hotrain.distributed import barrier, is_main, process_group, rank, require_same, share_buffers, world_size
from hotrain.errors import CheckpointError, Interrupted
from hotrain.evaluate import evaluate
from hotrain.learning.acceleration import place
from hotrain.learning.averaging import Average
from hotrain.learning.card_facts import dataset_words, write_card
from hotrain.learning.guards import micro_batch
from hotrain.learning.optimizer import OPTIMIZERS, create_optimizer, learning_rate, parameter_groups
from hotrain.learning.selection import Selection, select
from hotrain.learning.start import Start, begin
from hotrain.learning.step import Flags, Step
from hotrain.loading.damage import Tally
from hotrain.loading.data import CropData
from hotrain.loading.loader import Batches, Loader
from hotrain.loading.training_data import training_data
from hotrain.order import ORDER_VERSION
from hotrain.pictures import save_picture
from hotrain.predict import NetworkPredictor, load_predictor
from hotrain.progress import FileLog, Progress, RunLog, progress, read_log
from hotrain.scoring.calibrate import calibrate
from hotrain.scoring.calibration import Calibration, write_calibration
from hotrain.scoring.metrics import Report, figure_text
from hotrain.sheets import example_sheet, spread_rows, training_curves
from hotrain.stop import StopSignals

_LOG_STEPS = 20
_PREVIEWS = 8
_EARLY = 200  # batches, after which it is said that they come late: not only when a run of days has ended


def fit(config: FitConfig, resume: bool = False) -> None:
    """Train. Called by every rank.

    Args:
        config: the run; with `resume` it must agree with the checkpoint in all that decides the result so far.
        resume: go on from the last checkpoint in `config.out`.

    Raises:
        HodataError: the run cannot start or go on.
        Interrupted: SIGTERM or SIGINT, after a complete checkpoint.
    """
    with (
        process_group(config.device) as device,
        checkpoint.only_writer(Path(config.out)) if is_main() else nullcontext(),
        StopSignals() as stop,
    ):
        _fit(config, resume, device, stop)


def _fit(config: FitConfig, resume: bool, device: torch.device, stop: StopSignals) -> None:
    task, run = TASKS[config.task], Path(config.out)
    before = _checkpoint_to_resume(run, resume)
    scored = _last_scored(run, before.position) if before else 0
    micro = micro_batch(config.batch_size, world_size(), config.accumulation)

    selection = select(config, task)
    data = training_data(config, selection)
    steps_per_epoch = max(round((config.samples_per_epoch or len(selection.train_rows)) / config.batch_size), 1)
    steps = max(round(config.epochs * steps_per_epoch), 1)

    start = begin(config, task, before)
    facts = _facts(config, task, selection, start, data)
    number = _first_step(before, facts, selection, config, steps) if before else 0

    skip = config.on_corrupt == "skip"
    tally = Tally(config.max_corrupt, before.facts.get("damaged") if before else None)
    loader = Loader(
        data,
        start=number * config.batch_size,
        stop=steps * config.batch_size,
        batch=config.batch_size,
        micro=micro,
        rank=rank(),
        world=world_size(),
        workers=config.workers,
        keep=config.accumulation,
        pin=device.type == "cuda",
    )
    model = place(start.model, device, config.sync_batchnorm)
    average = Average(model, config.ema, number, before.weights() if before else None) if config.ema else None
    scored_model = average.module if average else model
    optimizer, peaks = _optimizer(config, start, model, before)
    measure = {"extent": config.extent, "samples": selection.index.data_hash(selection.val_rows)}
    # The last moment: a step joins the GPUs, and one that waits for another there says nothing.
    require_same(
        {
            **{name: facts[name] for name in (*_MUST_AGREE, "row_order")},
            "data_hash of validation": measure["samples"],
            "steps": steps,
            "steps per epoch": steps_per_epoch,
            "accumulation": config.accumulation,
            "position": number * config.batch_size,
            "last validation": scored,
        }
    )
    step = Step(start, optimizer, task, selection, config, device)
    predictor = NetworkPredictor(scored_model, data.rule, start.mean, start.std, device)

    chores = _Chores()

    def save(position: int) -> None:
        if is_main():
            checkpoint.save(
                run,
                position=position,
                weights=scored_model.state_dict(),
                raw=model.state_dict() if average else None,
                optimizer=optimizer.state_dict(),
                facts={**facts, "damaged": tally.found},
            )
            with chores.one("removing old checkpoints"):
                checkpoint.remove_old(run)

    losses: list[float] = []
    early = number + -(-_EARLY // config.accumulation)
    saved_at = time.monotonic()
    # Loading processes are forked first: TensorBoard and the progress bar have threads.
    with (
        closing(iter(loader)) as batches,
        closing(FileLog(run, number * config.batch_size) if is_main() else RunLog()) as log,
        progress("fit", steps * config.batch_size, number * config.batch_size, main=is_main()) as bar,
    ):
        chores.say = bar.say
        for note in selection.notes + start.notes:
            bar.say(note)
        while True:
            position = number * config.batch_size
            ends_epoch = number > 0 and (number % steps_per_epoch == 0 or number == steps)
            if ends_epoch and position != scored:
                share_buffers(scored_model)
                known = len(tally.found)
                result = _validate(selection, task, predictor, config.extent, micro, tally if skip else None)
                if is_main() and len(tally.found) > known:  # the checkpoint was saved before validation found them
                    checkpoint.add_facts(checkpoint.folder(run, position), damaged=tally.found)
                if is_main():
                    if _keep_best(run, position, result, measure, chores):
                        with chores.one("the model card"):
                            write_card(checkpoint.find(run), selection)
                    _show(run, position, selection, predictor, task, config.extent, result, log, bar, skip, chores)
            if number == steps:
                break

            factor = learning_rate(number, steps, config.warmup, config.schedule)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            parts = [next(batches) for _ in range(config.accumulation)]
            damaged = batches.take_damaged()
            due = is_main() and time.monotonic() - saved_at >= 60 * config.checkpoint_every
            told, agreed = step.take(parts, position, Flags(stop.asked, due, bool(damaged)))
            if average:
                average.update()
            if agreed.damaged:
                for item in tally.add(damaged):
                    bar.say(f"left out: {item.what}")
            number += 1
            position += config.batch_size
            saves = agreed.stop or agreed.save or number % steps_per_epoch == 0 or number == steps
            logs = number % _LOG_STEPS == 0 or number == steps
            if saves or logs:
                told += step.settle()
            losses += told
            if number == early:
                _say_if_late(batches, config.workers, bar)
            bar.advance(config.batch_size, **({"loss": told[-1]} if told else {}))
            if logs:
                glimpse = step.training_scores(parts[-1])
                bar.advance(0, **glimpse)
                with chores.one("the log"):
                    figures = {"loss": float(np.mean(losses)), **glimpse, "lr": start.lr * factor}
                    log.scalars(position, "train", figures)
                losses.clear()

            # Before validation, which may take longer than whoever stops us is willing to wait.
            if saves:
                save(position)
                saved_at = time.monotonic()
            if agreed.stop:
                barrier()
                raise Interrupted(str(checkpoint.folder(run, position)))
        _say_if_late(batches, config.workers, bar)
        if tally.found:
            bar.say(f"{len(tally.found)} damaged samples were left out: {', '.join(sorted(tally.found))}")
        if is_main() and len(selection.val_rows):
            found = _calibrate_best(run, selection, task, config.extent, device, tally)
            bar.say(f"calibrated on validation: temperature {found.temperature:.2f}, ECE {found.after.ece:.3f}")
            with chores.one("the model card"):
                write_card(checkpoint.find(run), selection)
    barrier()


def _first_step(
    before: checkpoint.Checkpoint, facts: Mapping[str, Any], selection: Selection, config: FitConfig, steps: int
) -> int:
    """The step with which a run goes on.

    Raises:
        CheckpointError: it was begun with other options or samples, or is longer than it shall become.
    """
    before.require(**{name: facts[name] for name in _MUST_AGREE})
    if "row_order" in before.facts or sorted(selection.index.shards) != selection.index.shards:
        before.require(row_order=facts["row_order"])  # not known of runs begun when rows were numbered by path
    number = before.position // config.batch_size
    if number > steps:
        raise CheckpointError(
            f"{config.out}: is at sample {before.position}, beyond the {steps * config.batch_size} of --epochs "
            f"{config.epochs:g}; give more epochs"
        )
    return number


def _optimizer(
    config: FitConfig, start: Start, model: torch.nn.Module, before: checkpoint.Checkpoint | None
) -> tuple[torch.optim.Optimizer, list[float]]:
    """The optimizer, as the checkpoint left it, and the peak of each group's learning rate."""
    decay = OPTIMIZERS[config.optimizer].weight_decay if config.weight_decay is None else config.weight_decay
    groups = parameter_groups(model, start.lr, start.body_factor, decay)
    peaks = [float(group["lr"]) for group in groups]
    optimizer = create_optimizer(config.optimizer, groups)
    if before:
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        optimizer.load_state_dict(before.optimizer())
        for group, decay_now in zip(optimizer.param_groups, decays, strict=True):  # it brings its own
            group["weight_decay"] = decay_now
    return optimizer, peaks


def _checkpoint_to_resume(run: Path, resume: bool) -> checkpoint.Checkpoint | None:
    if resume:
        checkpoint.best_score(run)  # what cannot be read is told before an epoch is spent
        return checkpoint.find(run, which="last")
    if checkpoint.last_position(run) is not None:
        raise CheckpointError(f"{run}: holds a run already; go on with --resume, or give another --out")
    return None


# Facts that must be the same when a run goes on: they decide which samples come next, how they enter, what is learnt
# from them and how weights follow.
_MUST_AGREE = (
    "task",
    "classes",
    "model",
    "data_hash",
    "order_version",
    "order",
    "seed",
    "batch_size",
    "source_weights",
    "input_rule",
    "crop_rule",
    "optimizer",
    "schedule",
    "ema",
    "dice",
    "hard_pixels",
    "open_labels",
    *SHARES,
)


def _facts(config: FitConfig, task: Task, selection: Selection, start: Start, data: CropData) -> dict[str, Any]:
    """What run.json records besides version and position."""
    return {
        "task": task.name,
        "classes": list(task.classes),
        "model": config.model,
        "extent": config.extent,
        "input_rule": data.rule.to_json(),
        "crop_rule": data.crop.to_json(),
        "mean": list(start.mean),
        "std": list(start.std),
        "lr": start.lr,
        "body_factor": start.body_factor,
        "data_hash": selection.data_hash,
        "row_order": selection.index.row_order(selection.train_rows),
        "sources": {name: len(rows) for name, rows in selection.rows.items()},
        "datasets": {**start.datasets, **dataset_words(selection.index, selection.rows)},
        "order_version": ORDER_VERSION,
        "order": config.order,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "source_weights": dict(zip(data.order.sources, data.order.counts.tolist(), strict=True)),
        **{name: getattr(config, name) for name in UNRECORDED},
        "config": config.to_json(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
    }


def _last_scored(run: Path, until: int) -> int:
    """The position of the last validation: a run that was stopped in one repeats it, and those beyond `until`."""
    positions = (entry["position"] for entry in read_log(run) if entry["kind"] == "val")
    return max((position for position in positions if position <= until), default=0)


def _say_if_late(batches: Batches, workers: int, bar: Progress) -> None:
    if workers and batches.late() > 0.5:
        bar.say(
            f"{batches.late():.0%} of the batches were not there yet when they were needed: this run is as fast as its "
            f"loading; more --workers than {workers} may make it faster"
        )


def _validate(
    selection: Selection, task: Task, predictor: NetworkPredictor, extent: str, batch_size: int, tally: Tally | None
) -> Report | None:
    if not len(selection.val_rows):
        return None
    index, rows = selection.index, selection.val_rows
    return evaluate(index, rows, task, predictor, extent=extent, batch_size=batch_size, tally=tally)


def _calibrate_best(
    run: Path, selection: Selection, task: Task, extent: str, device: torch.device, tally: Tally
) -> Calibration:
    """Store the temperature that makes the best checkpoint as sure as it is right on validation."""
    best = checkpoint.find(run)
    keys = selection.index.arrow("key").take(selection.val_rows).to_pylist()
    rows = selection.val_rows[[key not in tally.found for key in keys]]
    found = calibrate(selection.index, rows, task, load_predictor(best, device), extent=extent)
    write_calibration(best.path, replace(found, facts={"split": "val", **found.facts}))
    return found


class _Chores:
    """What is done beside training: where it fails, it costs that, not the run. Saving is none of them."""

    def __init__(self) -> None:
        self.say: Callable[[str], None] = lambda text: None
        self._failed: set[str] = set()

    @contextmanager
    def one(self, what: str) -> Iterator[None]:
        """A block that may fail: the disk, or shards that were changed meanwhile. Said the first time."""
        try:
            yield
        except (OSError, HodataError) as error:
            if what not in self._failed:
                self.say(f"warning: {what}: {error}; training goes on without")
            self._failed.add(what)


def _keep_best(run: Path, position: int, result: Report | None, measure: Mapping[str, str], chores: _Chores) -> bool:
    """Mark the checkpoint at this position if it is the best one so far; drop the ones in between.

    Args:
        run: its folder.
        position: of the checkpoint.
        result: of its validation.
        measure: what the score is of. A run that goes on with another extent or other validation samples begins to
            compare anew: its scores say nothing beside the ones before.
        chores: what may fail.

    Returns:
        whether it is what `checkpoint.find` opens now.
    """
    if result is not None and result.pooled.jaccard is not None:
        best = checkpoint.best_score(run)
        comparable = best is not None and best.get("measure", measure) == measure
        if best is None or not comparable or result.pooled.jaccard > best["jaccard"]:
            score = {**result.to_json(), "measure": dict(measure)}
            checkpoint.mark_best(run, checkpoint.folder(run, position), score)
    with chores.one("removing old checkpoints"):
        checkpoint.remove_old(run)
    return checkpoint.find(run).position == position


def _show(
    run: Path,
    position: int,
    selection: Selection,
    predictor: NetworkPredictor,
    task: Task,
    extent: str,
    result: Report | None,
    log: RunLog,
    bar: Progress,
    skip_damaged: bool,
    chores: _Chores,
) -> None:
    """After an epoch: figures, a preview, the curves so far."""
    rows = selection.val_rows if result else selection.train_rows
    title = f"{'validation' if result else 'training'} samples after {position} samples"
    if result:
        pooled = result.pooled
        figures = {f"iou {name}": value for name, value in pooled.iou.items()}
        with chores.one("the log"):
            log.scalars(position, "val", {**figures, "jaccard": pooled.jaccard, "accuracy": pooled.accuracy})
        listed = "  ".join(f"IoU {name} {figure_text(value)}" for name, value in pooled.kinds.items())
        title += f" (extent {pooled.extent}): {listed}"
        bar.say(f"validation at {position}: {listed}  accuracy {figure_text(pooled.accuracy)} (extent {pooled.extent})")
    chosen = spread_rows(selection.index, rows, _PREVIEWS)
    extents = result.extents if result else dict.fromkeys(selection.rows, extent)
    sheet = example_sheet(selection.index, chosen, predictor, task, title, extents, skip_damaged=skip_damaged)
    with chores.one("the preview"):
        save_picture(sheet, run / "previews" / f"{position:010d}.png")
    with chores.one("the curves"):
        save_picture(training_curves(run), run / "curves.png")
    with chores.one("the log"):
        log.picture(position, "preview", np.asarray(sheet))
