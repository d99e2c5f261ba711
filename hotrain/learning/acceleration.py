"""How the model runs in a training step: normalisation across ranks, number format, compiler, algorithms, processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hotrain.distributed import world_size
from hotrain.errors import TrainingError


def place(model: nn.Module, device: torch.device, sync_batchnorm: bool) -> nn.Module:
    """Move a model to its device, channels last; its parameters and the names in its state dict stay.

    Args:
        model: changed in place, and returned.
        device: where to.
        sync_batchnorm: BatchNorm normalises over the images of all ranks.

    Raises:
        TrainingError: synchronised BatchNorm on a CPU, which torch does not have.
    """
    if sync_batchnorm:
        if device.type != "cuda":
            raise TrainingError(
                f"--sync-batchnorm needs CUDA, and this run computes on {device}; leave it out (BatchNorm then sees "
                "each process's own images)"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    placed: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


class TrainingModel:
    """A model as a step calls it: shared among the ranks, compiled if wanted. The model itself stays as it is.

    Args:
        model: on `device`; saved and evaluated under its own names.
        device: where it is.
        precision: `auto` (bf16 on CUDA, fp32 elsewhere), `bf16` or `fp32`; parameters are float32 always.
        compiled: whether torch.compile translates it, at the first step.
    """

    def __init__(self, model: nn.Module, device: torch.device, precision: str, compiled: bool) -> None:
        ids = [device.index] if device.type == "cuda" else None
        self.parallel = model
        if world_size() > 1:
            # Gradients lie where they are summed, so they are not copied.
            self.parallel = DistributedDataParallel(model, ids, gradient_as_bucket_view=True)
        # Around DistributedDataParallel, which then still sends gradients while others are computed.
        self.forward: Any = torch.compile(self.parallel) if compiled else self.parallel
        self.compiled, self._device = compiled, device
        self._bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda")

    def autocast(self) -> AbstractContextManager[Any]:
        """For the forward pass: convolutions in bfloat16, or everything in float32."""
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)

    def without_sync(self, last: bool) -> AbstractContextManager[Any]:
        """For the passes of a step: gradients travel between the ranks in the last one alone."""
        if last or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        quiet: AbstractContextManager[Any] = self.parallel.no_sync()
        return quiet

    @contextmanager
    def searching(self) -> Iterator[None]:
        """For the passes of a step: cuDNN tries its algorithms for each convolution once and keeps the fastest.

        Not for validation, whose images come in many sizes: each would be searched for anew.
        """
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise TrainingError where the compiler fails, in the forward or in the backward pass."""
        if not self.compiled:
            yield
            return
        from torch._dynamo.exc import TorchDynamoException

        try:
            yield
        except TorchDynamoException as error:
            reason = " ".join(str(error).strip().split("\n\n")[0].split())  # what follows is advice on torch's logs
            raise TrainingError(
                f"--compile: torch.compile cannot translate this model here ({reason or error!r}); leave --compile "
                "out (--no-compile where a recipe or the run that goes on has it)"
            ) from error
