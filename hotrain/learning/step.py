"""One optimizer step of a run, over the micro-batches of this rank."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hodata.labels import Task
from hotrain.columns import coded
from hotrain.config import FitConfig
from hotrain.distributed import all_gather, all_reduce_sum, rank, world_size
from hotrain.errors import TrainingError
from hotrain.learning.acceleration import TrainingModel
from hotrain.learning.augment import ColorRule, jitter_colors, normalize
from hotrain.learning.criterion import Criterion, Divisors
from hotrain.learning.guards import set_pixels
from hotrain.learning.loss import class_sets, set_weights
from hotrain.learning.selection import Selection, meanings_of
from hotrain.learning.start import Start
from hotrain.loading.data import Batch
from hotrain.model import logits_of
from hotrain.order import uniforms
from hotrain.scoring.metrics import report, source_extent

DROPOUT = 2  # purpose of the random numbers drawn here, see `order.uniforms`


class Flags(NamedTuple):
    """What any rank may ask of all of them; it travels with the counts of a step, so nobody waits for it alone."""

    stop: bool = False  # save and end
    save: bool = False  # save
    damaged: bool = False  # a sample of this step could not be read


class _Pending(NamedTuple):
    """A step whose loss is not known yet: the device may still be computing it.

    Args:
        position: of its batch.
        figures: float64 [1 or 2], on the CPU once `arrived`: what this rank adds to the loss, and the norm of the whole
            batch's gradient where gradients are clipped.
        arrived: on CUDA, when `figures` has. Asking the device for a number would be waiting for all that was sent to
            it, the next step too.
        rows: of this rank's samples.
    """

    position: int
    figures: Tensor
    arrived: torch.cuda.Event | None
    rows: list[Tensor]


class Step:
    """Forward, backward, update.

    A loss is read when the next step has been sent to the device, which so has work while the CPU prepares a batch. One
    that is not finite therefore ends the run a step late; call `settle` before anything is saved.

    Args:
        start: the model, on `device`, and its normalisation.
        optimizer: over the model's parameters.
        task: whose classes the model tells apart.
        selection: gives the meanings, and each set's share of the pixels.
        config: of the run.
        device: where to compute.
    """

    def __init__(
        self,
        start: Start,
        optimizer: torch.optim.Optimizer,
        task: Task,
        selection: Selection,
        config: FitConfig,
        device: torch.device,
    ) -> None:
        self._start, self._optimizer, self._task, self._device = start, optimizer, task, device
        self._seed, self._clip, self._colors = config.seed, config.clip, ColorRule.of_strength(config.jitter)
        self._trained = TrainingModel(start.model, device, config.precision, config.compile)
        index = selection.index
        self._keys = index.arrow("key")
        self._sources, self._source = coded(index, "source")
        tables = torch.from_numpy(selection.tables)
        self._tables = tables.to(device)
        pixels = set_pixels(index, selection.train_rows, task, selection.tables)
        self._criterion = Criterion(tables, set_weights(pixels, config.balance), config, device)
        self._extents = {
            name: source_extent(meanings_of(index, rows), task, config.extent) for name, rows in selection.rows.items()
        }
        self._pending: _Pending | None = None
        self._seen: tuple[Tensor, Tensor] | None = None  # logits and sets of the last forward pass

    def take(self, parts: Sequence[Batch], position: int, flags: Flags) -> tuple[list[float], Flags]:
        """Learn from one batch.

        Args:
            parts: this rank's micro-batches.
            position: where the batch begins.
            flags: of this rank.

        Returns:
            the loss of the step before, as `settle` gives it; the flags that any rank has set.

        Raises:
            TrainingError: as `settle`, of the step before.
        """
        torch.manual_seed(int(uniforms(self._seed, position, DROPOUT, rank() + 1)[-1] * 2**53))
        self._trained.parallel.train()
        moved = [
            {name: part[name].to(self._device, non_blocking=True) for name in ("image", "label", "meaning")}
            for part in parts
        ]
        sets = [class_sets(part["label"], part["meaning"], self._tables) for part in moved]
        amounts = torch.stack([self._criterion.amounts(part["counts"], part["meaning"]) for part in parts]).sum(0)
        total = all_reduce_sum(torch.cat([amounts, torch.tensor(flags, dtype=torch.int64)]))
        agreed = Flags(*(total[-len(flags) :] > 0).tolist())
        divisors = self._criterion.divisors(total[: -len(flags)])

        self._optimizer.zero_grad(set_to_none=True)
        summed = torch.zeros((), device=self._device)
        for number, (there, part, each) in enumerate(zip(moved, parts, sets, strict=True)):
            last = number == len(parts) - 1
            with self._trained.explained(), self._trained.searching(), self._trained.without_sync(last):
                loss = self._loss(there["image"], part["position"], each, divisors)
                # DistributedDataParallel divides gradients by the number of ranks; the divisors are those of all.
                (loss * world_size()).backward()
            summed += loss.detach()
        figures = [summed]
        if self._clip:
            # After the last pass every rank holds the gradient of the whole batch, so the norm is one number too.
            figures.append(torch.nn.utils.clip_grad_norm_(self._trained.parallel.parameters(), self._clip))
        self._optimizer.step()
        before = self.settle()
        self._pending = self._send_back(position, figures, [part["row"] for part in parts])
        return before, agreed

    def _send_back(self, position: int, figures: Sequence[Tensor], rows: list[Tensor]) -> _Pending:
        told = torch.stack([figure.double() for figure in figures]).to("cpu", non_blocking=True)
        arrived = None
        if self._device.type == "cuda":
            arrived = torch.cuda.Event()
            arrived.record()
        return _Pending(position, told, arrived, rows)

    def settle(self) -> list[float]:
        """Wait for the last step; every rank must call it.

        Returns:
            the loss of its whole batch, as `criterion` defines it; empty if it was given out before.

        Raises:
            TrainingError: that, or with clipping the norm of its gradient, is not finite; on every rank.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return []
        if pending.arrived:
            pending.arrived.synchronize()
        loss, *norm = pending.figures
        value = float(all_reduce_sum(loss))
        self._refuse_infinite("loss", value, pending)
        if norm:
            self._refuse_infinite("norm of the gradient", float(norm[0]), pending)
        return [value]

    def training_scores(self, part: Batch) -> dict[str, float | None]:
        """IoU of hand and object on the crops of the last forward pass: a glimpse, not a score.

        It waits for the device, which counts: the CPU takes a tenth of a second and more for a large batch.
        """
        assert self._seen is not None
        logits, sets = self._seen
        classes = len(self._task.classes)
        source = torch.from_numpy(self._source[part["row"].numpy()].astype(np.int64)).to(self._device)
        cells = ((source[:, None, None] << classes) + sets) * classes + logits.argmax(1)
        shape = (len(self._sources), 1 << classes, classes)
        counts = torch.bincount(cells.reshape(-1), minlength=prod(shape)).cpu().numpy().reshape(shape)
        matrices = {name: of_source for name, of_source in zip(self._sources, counts, strict=True) if of_source.any()}
        kinds = report(matrices, dict.fromkeys(matrices, 0), self._task, self._extents).pooled.kinds
        return {f"iou {name}": value for name, value in kinds.items()}

    def _refuse_infinite(self, what: str, value: float, step: _Pending) -> None:
        """Raise TrainingError with the keys of the whole batch; `value` is the same on every rank, so all raise."""
        if np.isfinite(value):
            return
        own = [self._keys[row].as_py() for rows in step.rows for row in rows.tolist()]
        keys = [key for of_rank in all_gather(own) for key in of_rank]
        raise TrainingError(
            f"the {what} is {value} at position {step.position}; lower --lr. The samples of this step: "
            + ", ".join(keys)
        )

    def _loss(self, image: Tensor, position: Tensor, sets: Tensor, divisors: Divisors) -> Tensor:
        """What a micro-batch adds to the loss of the whole batch."""
        pixels = normalize(jitter_colors(image, self._seed, position, self._colors), self._start.mean, self._start.std)
        with self._trained.autocast():
            outputs = logits_of(self._trained.forward, pixels)
        self._seen = outputs["out"].detach(), sets
        return self._criterion(outputs, sets, divisors)
