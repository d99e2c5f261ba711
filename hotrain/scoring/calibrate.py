"""Find a model's temperature on samples that it was not trained on.

Shapes: M pixels, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hodata.labels import Task, fold_sets, task_table
from hotrain.errors import SelectionError
from hotrain.evaluate import StoredTruth, equal_size_batches, scored_rows, source_extents
from hotrain.loading.data import decode_image
from hotrain.predict import NetworkPredictor, at_size
from hotrain.scoring.calibration import Calibration, fit_temperature, reliability, set_nll, softmax

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

SEED = 0
SAMPLES, PIXELS = 400, 1000  # images, and pixels of each: the temperature is one number
BATCH = 8  # images of one size at a time


def calibrate(
    index: ShardIndex,
    rows: NDArray[np.int64],
    task: Task,
    predictor: NetworkPredictor,
    *,
    extent: str = "wrist",
    samples: int = SAMPLES,
    pixels: int = PIXELS,
    on_sample: Callable[[], None] = lambda: None,
) -> Calibration:
    """Choose the temperature with the smallest negative log likelihood of the decided pixels' sets.

    The reliability table is about answers as people get them: arms folded at the extent of each source, over the pixels
    whose set then has one class. Every image gives equally many pixels, drawn by raw Philox words keyed by its key, so
    the same shards and weights give the same temperature.

    Args:
        index: the shards.
        rows: int64 [N], of the split val.
        task: whose classes the predictor answers with.
        predictor: of the model.
        extent: wanted, as in `evaluate`.
        samples: at most so many rows, those whose keys hash lowest.
        pixels: of each image, drawn with replacement.
        on_sample: called after each.

    Raises:
        SelectionError: no row, or no decided pixel.
        ShardError: damage.
    """
    if not len(rows):
        raise SelectionError("no sample is selected for calibration")
    truth = StoredTruth(index)
    rows, _ = scored_rows(index, rows, truth)
    keys, kinds, sources = index.column("key"), index.column("image_kind"), index.column("source")
    rows = np.array(sorted(sorted(rows.tolist(), key=lambda row: _digest(str(keys[row])))[:samples]), dtype=np.int64)
    extents = source_extents(index, rows, task, truth, extent)
    reader = index.reader()
    logits: list[NDArray[np.float32]] = []
    sets: list[NDArray[np.uint8]] = []
    folds: list[NDArray[np.uint8]] = []
    for batch in equal_size_batches(index, rows, BATCH):
        images = [decode_image(reader.image(row), kinds[row], keys[row]) for row in batch]
        size = (images[0].shape[1], images[0].shape[0])
        answers = predictor.network_logits([predictor.prepare(image) for image in images])
        for row, small in zip(batch, answers, strict=True):
            of_pixels = task_table(truth.meaning(row), task)[truth.mask(row)].ravel()
            places = drawn_places(of_pixels, (1 << len(task.classes)) - 1, keys[row], pixels)
            if len(places):
                answer = at_size(small[None], size)[0]
                chosen = answer.flatten(1)[:, torch.from_numpy(places).to(answer.device)]
                logits.append(chosen.T.cpu().numpy())
                sets.append(of_pixels[places])
                folds.append(np.repeat(task.fold(extents[sources[row]])[None], len(places), 0))
            on_sample()
    if not logits:
        raise SelectionError("the masks of the selected samples decide no pixel, so nothing can be calibrated on them")
    return of_pixels_drawn(
        np.concatenate(logits),
        np.concatenate(sets),
        np.concatenate(folds),
        {
            "samples": len(rows),
            "pixels": sum(map(len, sets)),
            "extents": extents,
            "data_hash": index.data_hash(rows),
            "seed": SEED,
        },
    )


def of_pixels_drawn(
    logits: NDArray[np.float32], sets: NDArray[np.uint8], folds: NDArray[np.uint8], facts: dict[str, Any]
) -> Calibration:
    """The calibration from pixels: logits [M, K], sets uint8 [M], and each one's `Task.fold` uint8 [M, K]."""
    temperature = fit_temperature(logits, sets)
    found = []
    for degree in (1.0, temperature):
        probabilities = softmax(logits, degree)
        public = np.zeros((len(logits), int(folds.max()) + 1))
        possible = np.zeros(len(logits), dtype=np.uint8)
        for fold in np.unique(folds, axis=0):
            own = (folds == fold).all(1)
            for c, to in enumerate(fold.tolist()):
                public[own, to] += probabilities[own, c]
            possible[own] = fold_sets(fold)[sets[own]]
        single = (possible & (possible - 1)) == 0
        truth = np.log2(possible[single].astype(np.float64)).astype(np.int64)
        found.append(reliability(set_nll(logits, sets, degree), public[single], truth))
    return Calibration(temperature, found[0], found[1], facts)


def drawn_places(sets: NDArray[np.uint8], full: int, key: str, count: int) -> NDArray[np.int64]:
    """int64 [count or 0]: places of decided pixels among sets uint8 [M], the same for one key every time."""
    decided = np.flatnonzero(sets != full)
    if not len(decided):
        return decided.astype(np.int64)
    words = np.random.Philox(key=int.from_bytes(_digest(f"calibrate/{SEED}/{key}")[:16], "little")).random_raw(count)
    uniform = (words >> np.uint64(11)) * 2.0**-53
    return np.asarray(decided[(uniform * len(decided)).astype(np.int64)], dtype=np.int64)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
