"""Processes of a run: started by torchrun or by ourselves, joined by gloo and NCCL.

Without a process group everything here is the identity, so the rest of the code never asks.
"""

from __future__ import annotations

import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hodata.terminal import EXIT_INTERRUPTED, plain
from hotrain.config import DEVICES, NO_DEVICE
from hotrain.errors import Interrupted, TrainingError, in_words

T = TypeVar("T")


def rank() -> int:
    """This process's number, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes work together, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes and prints; also true to the launcher before and after the group."""
    return os.environ.get("RANK", "0") == "0"


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum over all ranks of a small CPU tensor, which is left as it was."""
    total = values.clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def all_gather(items: list[T]) -> list[list[T]]:
    """Every rank's list, by rank. Rarely used: objects are pickled."""
    if not dist.is_initialized():
        return [items]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, items)
    return gathered


def share_buffers(model: nn.Module) -> None:
    """Give every rank the main process's running statistics: each has seen other batches, one model is evaluated."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def require_same(facts: Mapping[str, Any]) -> None:
    """Compare what every rank has found out by itself; all of them must call it, before anything is sent between GPUs.

    Args:
        facts: name -> value; picklable and comparable.

    Raises:
        TrainingError: a value differs: on every rank, naming it and who has which; or a rank has ended before.
    """
    try:
        found = all_gather([(platform.node(), dict(facts))])
    except RuntimeError as error:  # gloo's: a socket was closed, or nobody came for half an hour
        raise TrainingError(
            "another process of this run ended, or hung, before the first step; the first error in the output of all "
            f"nodes says why ({str(error).partition(chr(10))[0]})"
        ) from error
    everyone = [own for part in found for own in part]
    for name in facts:
        owners: dict[str, list[str]] = {}
        for number, (node, own) in enumerate(everyone):
            owners.setdefault(repr(_rounded(own[name])), []).append(f"{number} ({node})")
        if len(owners) > 1:
            each = ", ".join(f"{value} on rank {', '.join(ranks)}" for value, ranks in owners.items())
            raise TrainingError(
                f"the processes of this run do not agree: {name} is {each}. All need the same options, shards and "
                "run's folder: copy what differs again, or use a disk that all nodes see; where its listing lags "
                "behind, start again"
            )


def _rounded(value: Any) -> Any:
    """Floats to 12 digits: the last ones differ between processors."""
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def under_torchrun() -> bool:
    """Whether a launcher has set this process's place in a group."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join_group(device: str) -> torch.device:
    """Join the processes of torchrun, if it started this one, and return the device of this process.

    Args:
        device: as of `chosen_device`.

    Raises:
        TrainingError: as `chosen_device`.
    """
    chosen = chosen_device(device)
    cuda = chosen.type == "cuda"
    if under_torchrun() and not dist.is_initialized():
        # Small tensors stay on the CPU: their sums must not wait for the GPU's queue.
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    if cuda:
        torch.cuda.set_device(chosen)
    return chosen


def chosen_device(name: str) -> torch.device:
    """The device that people mean.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes a GPU where there is one; without a number it is that of
            this process on its node.

    Raises:
        TrainingError: another name, or torch sees no such GPU, which it says itself in many words and a traceback.
    """
    if not DEVICES.fullmatch(name):
        raise TrainingError(f"--device {name}: {NO_DEVICE}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    number = int(name.partition(":")[2] or os.environ.get("LOCAL_RANK", "0"))
    count = torch.cuda.device_count()
    if number >= count:
        raise TrainingError(
            f"--device cuda:{number}: torch sees {count} CUDA GPUs here (nvidia-smi lists those of the machine, "
            "CUDA_VISIBLE_DEVICES hides some); leave --device out to compute on what there is"
        )
    return torch.device("cuda", number)


def leave_group() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """`join_group` for the block, then `leave_group`.

    Leaving a group of GPUs waits for the other ranks of the node, which do not come where one has failed alone: its
    error is told at once, and ends this process without leaving. An `Interrupted` all ranks have together.
    """
    place = join_group(device)
    try:
        yield place
    except BaseException as error:
        if place.type == "cuda" and dist.is_initialized() and not isinstance(error, Interrupted):
            _end_now(error)
        raise
    finally:
        leave_group()


def _end_now(error: BaseException) -> NoReturn:
    """Say why, and end this process without Python's own clean-up, which leaves the group too."""
    words = in_words(error) if isinstance(error, Exception) else None
    told = words or "".join(traceback.format_exception(error)).rstrip()
    _tell(told)
    sys.stdout.flush()
    os._exit(getattr(error, "exit_code", 1))


def _tell(words: str) -> None:
    print(f"error (rank {os.environ.get('RANK')}): {plain(words)}", file=sys.stderr, flush=True)


def processes_wanted(device: str) -> int:
    """How many processes to start here: one per visible GPU, one where a launcher or `--device` has decided."""
    if under_torchrun() or device not in ("auto", "cuda"):
        return 1
    return max(torch.cuda.device_count(), 1)


def launch(work: Callable[..., Any], arguments: tuple[Any, ...], processes: int) -> None:
    """Run `work(*arguments)` here, or in several processes of this machine through torch's own launcher.

    Args:
        work: a module-level function.
        arguments: picklable.
        processes: 1 runs it in this process.

    Raises:
        SystemExit: with several processes, the exit code of the first that failed; it has said why. 75 after a signal:
            whether the ranks saved in time is not known here.
    """
    if processes == 1:
        work(*arguments)
        return
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    # Each process would otherwise start a thread per core.
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    try:
        elastic_launch(config, _in_child)(work, arguments)
    except ChildFailedError as error:
        raise SystemExit(error.get_first_failure()[1].exitcode) from None
    except SignalException as error:
        # The launcher has handed the signal on and waited: the ranks saved what they had.
        raise SystemExit(EXIT_INTERRUPTED) from error


def _in_child(work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """What the command line does around `work`, in a process that has none."""
    try:
        work(*arguments)
    except Interrupted:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except Exception as error:
        words = in_words(error)
        if words is None:
            raise
        _tell(words)
        raise SystemExit(getattr(error, "exit_code", 1)) from None
