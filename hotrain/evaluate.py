"""Exact evaluation: every selected sample once, on any number of processes, proven at the end.

The rows are cut into batches of equal image size before anything is known of the ranks; rank r takes batches r,
r + W, and so on. There is no collective until the end, where one sum joins the matrices, the number of samples and a
sum over the keys, which must be those of the selection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.labels import Meaning, Task, task_table
from hotrain.data import decode_image
from hotrain.distributed import all_reduce_sum, rank, world_size
from hotrain.errors import SelectionError
from hotrain.metrics import Report, confusion, report, source_extent
from hotrain.predict import Predictor
from hotrain.sample_counts import SampleCounts

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

_LOADING_THREADS = 2  # decoders release the GIL; two keep up with a small model on the CPU


class Truth(Protocol):
    """What a prediction is scored against."""

    def meaning(self, row: int) -> Meaning: ...

    def mask(self, row: int) -> NDArray[np.uint8]:
        """Label map uint8 [H, W]."""
        ...


@runtime_checkable
class RowPredictor(Protocol):
    """A predictor that knows its answers by row and needs no image: masks that another program wrote."""

    def answer(self, row: int) -> NDArray[np.uint8]:
        """Class ids uint8 [H, W] of one row; called in loading threads."""
        ...


class StoredTruth:
    """The masks in the shards."""

    def __init__(self, index: ShardIndex) -> None:
        self._names = index.column("meaning")
        self._meanings = index.meanings
        self._reader = index.reader()

    def meaning(self, row: int) -> Meaning:
        return self._meanings[self._names[row]]

    def mask(self, row: int) -> NDArray[np.uint8]:
        return self._reader.mask(row)


def evaluate(
    index: ShardIndex,
    rows: NDArray[np.int64],
    task: Task,
    predictor: Predictor | RowPredictor,
    *,
    extent: str = "wrist",
    batch_size: int = 8,
    truth: Truth | None = None,
    details: bool = False,
    on_batch: Callable[[int], None] = lambda samples: None,
) -> Report:
    """Score a predictor on some rows, counted at native resolution.

    Every rank of a process group must call it with the same rows; every rank gets the same report. Rows whose meaning
    says that their masks are no ground truth are left out and reported.

    Args:
        index: the shards.
        rows: int64 [N], each once.
        task: whose classes the predictor answers with.
        predictor: gives every pixel a class.
        extent: wanted; a source whose masks cannot decide it is scored at the other one (see `Scores.extent`).
        batch_size: images at a time.
        truth: what to score against; without it the stored masks.
        details: also keep the counts of every sample, boundaries and fingertips among them (`Report.details`).
        on_batch: called with the number of images after each batch of this rank.

    Raises:
        SelectionError: no row that can be scored, or the samples counted are not those selected.
        ShardError: damage, or a mask that holds an id which is no label.
    """
    if not len(rows):
        raise SelectionError("no sample is selected for evaluation")
    truth = truth or StoredTruth(index)
    rows, not_scored = scored_rows(index, rows, truth)
    names, keys = index.column("source"), index.column("key")
    sources = sorted(set(names[rows]))
    extents = {name: _extent(truth, rows[names[rows] == name], task, extent) for name in sources}
    by_sample = SampleCounts(index, rows, task, extents) if details else None
    matrices = {name: np.zeros((1 << len(task.classes), len(task.classes)), dtype=np.int64) for name in sources}
    samples = dict.fromkeys(sources, 0)
    counted: list[str] = []

    batches = equal_size_batches(index, rows, batch_size)[rank() :: world_size()]
    for batch in _load(index, batches, predictor, truth):
        answers = batch.prepared
        if not isinstance(predictor, RowPredictor):
            answers = list(predictor.classes(batch.prepared, batch.size))
        for row, mask, answer in zip(batch.rows, batch.masks, answers, strict=True):
            sets = task_table(truth.meaning(row), task)[mask]
            if not sets.all():
                raise ShardError(f"{keys[row]}: its mask holds id {mask[sets == 0][0]}, which is no label")
            matrix = confusion(sets, answer, len(task.classes))
            if by_sample is not None:
                by_sample.add(row, sets, answer, matrix)
            matrices[names[row]] += matrix
            samples[names[row]] += 1
            counted.append(keys[row])
        on_batch(len(batch.rows))

    matrices, samples, total = _join(matrices, samples, key_sum(counted))
    expected = (len(rows), key_sum(keys[rows].tolist()))
    found = (sum(samples.values()), total)
    if found != expected:
        raise SelectionError(
            f"the evaluation counted {found[0]} samples with key sum {found[1]:016x}, the selection has {expected[0]} "
            f"with {expected[1]:016x}; do all ranks see the same shards?"
        )
    if by_sample is not None:
        by_sample.join()
    return replace(report(matrices, samples, task, extents), not_scored=not_scored, details=by_sample)


def scored_rows(index: ShardIndex, rows: NDArray[np.int64], truth: Truth) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Leave out the rows whose masks are no ground truth: HO-3D's evaluation frames have objects and no hands.

    Returns:
        int64: the rows that can be scored; source -> how many of its rows were left out.

    Raises:
        SelectionError: none is left.
    """
    scored = np.array([truth.meaning(row).scored for row in rows.tolist()], dtype=bool)
    names, counts = np.unique(index.column("source")[rows[~scored]].astype(str), return_counts=True)
    if not scored.any():
        raise SelectionError(
            f"the masks of all {len(rows)} selected samples ({', '.join(names)}) are no ground truth to score against; "
            "choose other shards or another --split"
        )
    return rows[scored], dict(zip(names.tolist(), counts.tolist(), strict=True))


def equal_size_batches(index: ShardIndex, rows: NDArray[np.int64], batch_size: int) -> list[list[int]]:
    """Cut rows into batches of one image size each, by (width, height, row): the same cut wherever it is made."""
    widths, heights = index.column("width")[rows], index.column("height")[rows]
    ordered = np.lexsort((rows, heights, widths))
    batches: list[list[int]] = []
    previous = None
    for place in ordered.tolist():
        size = (widths[place], heights[place])
        if size != previous or len(batches[-1]) == batch_size:
            batches.append([])
        previous = size
        batches[-1].append(int(rows[place]))
    return batches


def key_sum(keys: Sequence[str]) -> int:
    """Sum modulo 2**64 of the first 8 bytes (little-endian) of each key's sha256."""
    return sum(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") for key in keys) % 2**64


@dataclass(frozen=True)
class _Loaded:
    rows: list[int]
    prepared: list[NDArray[Any]]
    masks: list[NDArray[np.uint8]]
    size: tuple[int, int]  # width, height


def _load(
    index: ShardIndex, batches: list[list[int]], predictor: Predictor | RowPredictor, truth: Truth
) -> Iterator[_Loaded]:
    """Read and prepare batches in order, one ahead of the one that is being computed."""
    reader = index.reader()
    kinds, keys = index.column("image_kind"), index.column("key")

    def load_one(row: int) -> tuple[NDArray[Any], NDArray[np.uint8], tuple[int, int]]:
        if isinstance(predictor, RowPredictor):
            mask = truth.mask(row)
            return predictor.answer(row), mask, (mask.shape[1], mask.shape[0])
        image = decode_image(reader.image(row), kinds[row], keys[row])
        mask = truth.mask(row)
        if mask.shape != image.shape[:2]:
            raise ShardError(f"{keys[row]}: image {image.shape[:2]} and mask {mask.shape} (height, width) differ")
        return predictor.prepare(image), mask, (image.shape[1], image.shape[0])

    with ThreadPoolExecutor(_LOADING_THREADS) as pool:
        ahead = [[pool.submit(load_one, row) for row in batch] for batch in batches[:1]]
        for number, batch in enumerate(batches):
            loaded = [future.result() for future in ahead.pop()]
            if number + 1 < len(batches):
                ahead.append([pool.submit(load_one, row) for row in batches[number + 1]])
            yield _Loaded(batch, [item[0] for item in loaded], [item[1] for item in loaded], loaded[0][2])


def _join(
    matrices: dict[str, NDArray[np.int64]], samples: dict[str, int], total: int
) -> tuple[dict[str, NDArray[np.int64]], dict[str, int], int]:
    """Sum over the ranks in one collective; the key sum wraps around as int64 does."""
    names = list(matrices)
    parts = [matrix.ravel() for matrix in matrices.values()]
    parts.append(np.array([samples[name] for name in names], dtype=np.int64))
    parts.append(np.array([total], dtype=np.uint64).view(np.int64))
    joined = all_reduce_sum(torch.from_numpy(np.concatenate(parts))).numpy()
    size = next(iter(matrices.values())).size
    shape = next(iter(matrices.values())).shape
    summed = {name: joined[n * size : (n + 1) * size].reshape(shape) for n, name in enumerate(names)}
    counts = {name: int(joined[len(names) * size + n]) for n, name in enumerate(names)}
    return summed, counts, int(joined[-1:].view(np.uint64)[0])


def _extent(truth: Truth, rows: NDArray[np.int64], task: Task, wanted: str) -> str:
    meanings = {meaning.name: meaning for meaning in map(truth.meaning, rows.tolist())}
    return source_extent(list(meanings.values()), task, wanted)
