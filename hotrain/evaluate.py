"""Exact evaluation: every selected sample once, on any number of processes, proven at the end.

The rows are cut into batches of equal image size before anything is known of the ranks; rank r takes batches r,
r + W, and so on. There is no collective until the end, where one sum joins the matrices, the number of samples and a
sum over the keys, which must be those of the selection.

A damaged sample ends the evaluation, unless the caller gives a tally: then it is scored nowhere, and named there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.labels import Meaning, Task, task_table
from hotrain.columns import coded, present
from hotrain.distributed import all_reduce_sum, rank, world_size
from hotrain.errors import SelectionError
from hotrain.loading.damage import Damaged, Tally
from hotrain.loading.data import decode_image, read_mask
from hotrain.predict import Predictor
from hotrain.scoring.metrics import Report, confusion, report, source_extent
from hotrain.scoring.sample_counts import SampleCounts

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
        names, self._code = coded(index, "meaning")
        self._meanings = [index.meanings[name] for name in names]
        self._keys = index.arrow("key")
        self._reader = index.reader()

    def meaning(self, row: int) -> Meaning:
        return self._meanings[self._code[row]]

    def mask(self, row: int) -> NDArray[np.uint8]:
        return read_mask(self._reader, row, self._keys[row].as_py())


@dataclass(frozen=True)
class Counts:
    """What an evaluation counted, over all ranks.

    Args:
        matrices: source -> int64 [2**K, K], pixels by what they may be and what was answered.
        samples: source -> images.
    """

    matrices: dict[str, NDArray[np.int64]]
    samples: dict[str, int]


def evaluate(
    index: ShardIndex,
    rows: NDArray[np.int64],
    task: Task,
    predictor: Predictor | RowPredictor,
    *,
    extent: str = "wrist",
    batch_size: int = 8,
    truth: Truth | None = None,
    tally: Tally | None = None,
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
        tally: leave out samples that cannot be read, and note them here; without it they raise.
        details: also keep the counts of every sample, boundaries and fingertips among them (`Report.details`).
        on_batch: called with the number of images after each batch of this rank.

    Raises:
        SelectionError: no row that can be scored, or the samples counted are not those selected.
        ShardError: damage, or a mask that holds an id which is no label.
        TrainingError: more damaged samples than the tally admits.
    """
    if not len(rows):
        raise SelectionError("no sample is selected for evaluation")
    truth = truth or StoredTruth(index)
    rows, not_scored = scored_rows(index, rows, truth)
    extents = source_extents(index, rows, task, truth, extent)
    by_sample = SampleCounts(index, rows, task, extents) if details else None
    counts = count(index, rows, task, predictor, truth, extents, batch_size, tally, on_batch, by_sample)
    found = report(counts.matrices, counts.samples, task, extents)
    return replace(found, not_scored=not_scored, details=by_sample)


def count(
    index: ShardIndex,
    rows: NDArray[np.int64],
    task: Task,
    predictor: Predictor | RowPredictor,
    truth: Truth,
    extents: Mapping[str, str],
    batch_size: int,
    tally: Tally | None = None,
    on_batch: Callable[[int], None] = lambda samples: None,
    by_sample: SampleCounts | None = None,
) -> Counts:
    """The counts behind `evaluate`, whose arguments these are: the same on every rank, at every number of ranks.

    `extents` says at which extent each source is scored, which a network's answers depend on (`predict.likeliest`).
    `by_sample` is filled with the counts of every image.
    """
    if not len(rows):
        raise SelectionError("no sample is selected for evaluation")
    names, source = coded(index, "source")
    sources = present(index, "source", rows)
    folds = {name: task.fold(extents[name]) for name in sources}
    key_of = dict(zip(rows.tolist(), index.arrow("key").take(rows).to_pylist(), strict=True))
    matrices = {name: np.zeros((1 << len(task.classes), len(task.classes)), dtype=np.int64) for name in sources}
    samples = dict.fromkeys(sources, 0)
    seen: list[str] = []
    damaged: list[Damaged] = []

    batches = equal_size_batches(index, rows, batch_size)[rank() :: world_size()]
    for batch in _load(index, batches, predictor, truth, tally is not None, by_sample is not None):
        answers: Sequence[NDArray[np.uint8]] | NDArray[np.uint8] = batch.prepared
        if not isinstance(predictor, RowPredictor):
            own = [folds[names[source[row]]] for row in batch.rows]
            answers = predictor.classes(batch.prepared, batch.size, np.stack(own)) if own else ()
        for row, mask, hands, answer in zip(batch.rows, batch.masks, batch.hands, answers, strict=True):
            sets = task_table(truth.meaning(row), task)[mask]
            if not sets.all():
                raise ShardError(f"{key_of[row]}: its mask holds id {mask[sets == 0][0]}, which is no label")
            matrix = confusion(sets, answer, len(task.classes))
            if by_sample is not None:
                by_sample.add(row, sets, answer, matrix, hands)
            matrices[names[source[row]]] += matrix
            samples[names[source[row]]] += 1
            seen.append(key_of[row])
        damaged += batch.damaged
        if tally is not None and world_size() == 1:
            tally.refuse_more(damaged)  # one rank of several would leave the others waiting for it at the end
        on_batch(len(batch.rows) + len(batch.damaged))

    counts, left_out, total = _join(Counts(matrices, samples), damaged, key_sum([*seen, *(d.key for d in damaged)]))
    expected = (len(rows), key_sum(list(key_of.values())))
    found = (sum(counts.samples.values()) + left_out, total)
    if found != expected or len(key_of) != len(rows):
        raise SelectionError(
            f"the evaluation counted {found[0]} samples with key sum {found[1]:016x}, the selection has {expected[0]} "
            f"with {expected[1]:016x}; do all ranks see the same shards?"
        )
    if left_out and tally is not None:
        tally.add(damaged)
    if by_sample is not None:
        by_sample.join()
    return counts


def source_extents(index: ShardIndex, rows: NDArray[np.int64], task: Task, truth: Truth, extent: str) -> dict[str, str]:
    """source -> the extent at which `evaluate` scores it: the wanted one if its masks decide it, else the other one."""
    found = {}
    for name in present(index, "source", rows):
        meanings = {meaning.name: meaning for meaning in map(truth.meaning, rows_of(index, rows, name).tolist())}
        found[name] = source_extent(list(meanings.values()), task, extent)
    return found


def rows_of(index: ShardIndex, rows: NDArray[np.int64], source: str) -> NDArray[np.int64]:
    """Those of some rows that are of one source."""
    names, code = coded(index, "source")
    return rows[code[rows] == names.index(source)]


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
    hands: list[list[Any]]  # of the JSON member; empty unless asked for
    size: tuple[int, int]  # width, height
    damaged: list[Damaged]


def _load(
    index: ShardIndex,
    batches: list[list[int]],
    predictor: Predictor | RowPredictor,
    truth: Truth,
    skip_damaged: bool,
    with_hands: bool,
) -> Iterator[_Loaded]:
    """Read and prepare batches in order, one ahead of the one that is being computed."""
    reader, keys = index.reader(), index.arrow("key")
    kinds, kind = coded(index, "image_kind")

    def load_one(row: int) -> tuple[NDArray[Any], NDArray[np.uint8], list[Any], tuple[int, int]] | Damaged:
        key = keys[row].as_py()
        try:
            hands = reader.json(row).get("hands", []) if with_hands else []
            mask = truth.mask(row)
            if isinstance(predictor, RowPredictor):
                return predictor.answer(row), mask, hands, (mask.shape[1], mask.shape[0])
            image = decode_image(reader.image(row), kinds[kind[row]], key)
            if mask.shape != image.shape[:2]:
                raise ShardError(f"{key}: image {image.shape[:2]} and mask {mask.shape} (height, width) differ")
        except ShardError as error:
            if not skip_damaged:
                raise
            return Damaged(key, str(error))
        return predictor.prepare(image), mask, hands, (image.shape[1], image.shape[0])

    with ThreadPoolExecutor(_LOADING_THREADS) as pool:
        ahead = [[pool.submit(load_one, row) for row in batch] for batch in batches[:1]]
        for number, batch in enumerate(batches):
            loaded = [(row, future.result()) for row, future in zip(batch, ahead.pop(), strict=True)]
            if number + 1 < len(batches):
                ahead.append([pool.submit(load_one, row) for row in batches[number + 1]])
            whole = [(row, item) for row, item in loaded if not isinstance(item, Damaged)]
            yield _Loaded(
                rows=[row for row, _ in whole],
                prepared=[item[0] for _, item in whole],
                masks=[item[1] for _, item in whole],
                hands=[item[2] for _, item in whole],
                size=whole[0][1][3] if whole else (0, 0),
                damaged=[item for _, item in loaded if isinstance(item, Damaged)],
            )


def _join(own: Counts, damaged: list[Damaged], total: int) -> tuple[Counts, int, int]:
    """Sum over the ranks in one collective: counts, damaged samples, key sum, which wraps around as int64 does."""
    names = list(own.matrices)
    shape = own.matrices[names[0]].shape
    parts = [own.matrices[name].ravel() for name in names]
    parts.append(np.array([*(own.samples[name] for name in names), len(damaged)], dtype=np.int64))
    parts.append(np.array([total], dtype=np.uint64).view(np.int64))
    joined = all_reduce_sum(torch.from_numpy(np.concatenate(parts))).numpy()
    matrices = joined[: -len(names) - 2].reshape(len(names), *shape)
    counted = joined[-len(names) - 2 : -2].tolist()
    counts = Counts(dict(zip(names, matrices, strict=True)), dict(zip(names, counted, strict=True)))
    return counts, int(joined[-2]), int(joined[-1:].view(np.uint64)[0])
