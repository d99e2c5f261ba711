"""Processes: how many there may be, and workers that neither outlive their parent nor die unexplained."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any

from hodata.errors import HodataError


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def spawned(
    workers: int, advice: str, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Worker processes while the block runs. When it fails, what has not begun is cancelled.

    They are spawned, not forked: the caller may run threads.

    Args:
        workers: how many, at least 1.
        advice: what to do when a worker died; it ends the message.
        start: called with `arguments` in each worker before any work.

    Raises:
        HodataError: a worker died.
    """
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(start, *arguments)
    )
    try:
        yield pool
    except BrokenProcessPool:
        raise HodataError(f"a worker process died (killed, or out of memory); {advice}") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(start: Callable[..., None] | None, *arguments: Any) -> None:
    """In a worker: when the parent is killed, stop at once instead of writing beside the run that follows."""
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    if start is not None:
        start(*arguments)


def _die_with(parent: int) -> None:
    wait([parent])
    os._exit(1)
