"""One optimizer step of a run, over the micro-batches of this rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hodata.labels import Task
from hotrain.columns import coded
from hotrain.config import FitConfig
from hotrain.distributed import all_gather, all_reduce_sum, rank, world_size
from hotrain.errors import TrainingError
from hotrain.learning.acceleration import Trained
from hotrain.learning.augment import ColorRule, jitter_colors, normalize
from hotrain.learning.criterion import Criterion, Divisors
from hotrain.learning.guards import set_pixels
from hotrain.learning.loss import class_sets, set_weights
from hotrain.learning.selection import Selection, meanings_of
from hotrain.learning.start import Start
from hotrain.loading.data import Batch
from hotrain.model import logits_of
from hotrain.order import uniforms
from hotrain.scoring.metrics import confusion, report, source_extent

DROPOUT = 2  # purpose of the random numbers drawn here, see `order.uniforms`


class Flags(NamedTuple):
    """What any rank may ask of all of them; it travels with the counts of a step, so nobody waits for it alone."""

    stop: bool = False  # save and end
    save: bool = False  # save
    damaged: bool = False  # a sample of this step could not be read


class Step:
    """Forward, backward, update.

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
        self._trained = Trained(start.model, device, config.precision, config.compile)
        index = selection.index
        self._keys = index.table.column("key")
        self._sources, self._source = coded(index, "source")
        self._tables = torch.from_numpy(selection.tables).to(device)
        pixels = set_pixels(index, selection.train_rows, task, selection.tables)
        self._criterion = Criterion(self._tables, set_weights(pixels, config.balance), config, device)
        self._extents = {
            name: source_extent(meanings_of(index, rows), task, config.extent) for name, rows in selection.rows.items()
        }
        self._logits: Tensor | None = None

    def take(self, parts: Sequence[Batch], position: int, flags: Flags) -> tuple[float, Flags]:
        """Learn from one batch.

        Args:
            parts: this rank's micro-batches.
            position: where the batch begins.
            flags: of this rank.

        Returns:
            the loss of the whole batch, as `criterion` defines it; the flags that any rank has set.

        Raises:
            TrainingError: the loss, or with clipping the norm of its gradient, is not finite; on every rank.
        """
        torch.manual_seed(int(uniforms(self._seed, position, DROPOUT, rank() + 1)[-1] * 2**53))
        self._trained.parallel.train()
        moved = [{name: value.to(self._device, non_blocking=True) for name, value in part.items()} for part in parts]
        sets = [class_sets(part["label"], part["meaning"], self._tables) for part in moved]
        amounts = torch.stack([self._criterion.amounts(each) for each in sets]).sum(0)
        total = all_reduce_sum(torch.cat([amounts, torch.tensor(flags, dtype=torch.int64)]))
        agreed = Flags(*(total[-len(flags) :] > 0).tolist())
        divisors = self._criterion.divisors(total[: -len(flags)])

        self._optimizer.zero_grad(set_to_none=True)
        summed = torch.zeros((), device=self._device)
        for number, (part, of_part, each) in enumerate(zip(moved, parts, sets, strict=True)):
            with self._trained.explained(), self._trained.without_sync(last=number == len(parts) - 1):
                loss = self._loss(part["image"], of_part["position"], each, divisors)
                # DistributedDataParallel divides gradients by the number of ranks; the divisors are those of all.
                (loss * world_size()).backward()
            summed += loss.detach()
        value = float(all_reduce_sum(torch.tensor([float(summed)], dtype=torch.float64))[0])
        self._refuse_infinite("loss", value, position, parts)
        if self._clip:
            # After the last pass every rank holds the gradient of the whole batch, so the norm is one number too.
            norm = torch.nn.utils.clip_grad_norm_(self._trained.parallel.parameters(), self._clip)
            self._refuse_infinite("norm of the gradient", float(norm), position, parts)
        self._optimizer.step()
        return value, agreed

    def training_scores(self, part: Batch) -> dict[str, float | None]:
        """IoU of hand and object on the crops of the last forward pass: a glimpse, not a score."""
        assert self._logits is not None
        answers = self._logits.argmax(1).byte().cpu().numpy()
        sets = class_sets(part["label"], part["meaning"], self._tables.cpu()).numpy()
        matrices: dict[str, Any] = {}
        for row, of_row, answer in zip(part["row"].tolist(), sets, answers, strict=True):
            name = self._sources[self._source[row]]
            matrices[name] = matrices.get(name, 0) + confusion(of_row, answer, len(self._task.classes))
        kinds = report(matrices, dict.fromkeys(matrices, 0), self._task, self._extents).pooled.kinds
        return {f"iou {name}": value for name, value in kinds.items()}

    def _refuse_infinite(self, what: str, value: float, position: int, parts: Sequence[Batch]) -> None:
        """Raise TrainingError with the keys of the whole batch; `value` is the same on every rank, so all raise."""
        if np.isfinite(value):
            return
        own = [self._keys[row].as_py() for part in parts for row in part["row"].tolist()]
        keys = [key for of_rank in all_gather(own) for key in of_rank]
        raise TrainingError(
            f"the {what} is {value} at position {position}; lower --lr. The samples of this step: {', '.join(keys)}"
        )

    def _loss(self, image: Tensor, position: Tensor, sets: Tensor, divisors: Divisors) -> Tensor:
        """What a micro-batch adds to the loss of the whole batch."""
        pixels = normalize(jitter_colors(image, self._seed, position, self._colors), self._start.mean, self._start.std)
        with self._trained.autocast():
            outputs = logits_of(self._trained.forward, pixels)
        self._logits = outputs["out"].detach()
        return self._criterion(outputs, sets, divisors)
