"""One job per shard in several processes, with progress inside of shards: one may take minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from multiprocessing import get_context
from typing import Any, TypeVar

from hodata.processes import spawned

Result = TypeVar("Result")
Advance = Callable[[int], None]
_POLL_SECONDS = 0.2
_counter: Any = None


def each_shard(
    work: Callable[..., Result],
    jobs: Sequence[tuple[Any, ...]],
    *,
    workers: int,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Result]:
    """`work(*job, advance)` for every job, results in the order of the jobs.

    Args:
        work: a function of a module; calls `advance(n)` as it goes.
        jobs: its arguments, all of which pickle.
        workers: processes; 1, or one job: this one.
        total: what all calls of `advance` sum up to.
        progress: called with (done, total) now and then, and at the end.

    Raises:
        HodataError: a process died.
    """
    report = progress or (lambda done, total: None)
    report(0, total)
    if workers <= 1 or len(jobs) <= 1:
        done = 0

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            report(done, total)

        yield from (work(*job, advance) for job in jobs)
    else:
        yield from _in_processes(work, jobs, min(workers, len(jobs)), total, report)
    report(total, total)


def _in_processes(
    work: Callable[..., Result],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    total: int,
    report: Callable[[int, int], None],
) -> Iterator[Result]:
    counter = get_context("spawn").Value("q", 0)
    with spawned(workers, "run the command again with fewer --workers", _start, (counter,)) as pool:
        futures: list[Future[Result]] = [pool.submit(_run, work, job) for job in jobs]
        for future in futures:
            while not future.done():
                wait([future], timeout=_POLL_SECONDS)
                report(min(counter.value, total), total)
            yield future.result()


def _start(counter: Any) -> None:
    global _counter
    _counter = counter


def _run(work: Callable[..., Result], job: tuple[Any, ...]) -> Result:
    return work(*job, _advance)


def _advance(amount: int) -> None:
    with _counter.get_lock():
        _counter.value += amount
