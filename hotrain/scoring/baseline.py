"""A classifier by colour alone: how far do the pictures' colours give their labels away?

It sees no shape and no place, so what a network scores above it is what it has understood of the pictures. It is
fitted on the training samples with the same sets of classes, and scored by the same metrics.

Shapes: N bins of colour, K classes, S sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.labels import Task, task_table
from hotrain.errors import SelectionError
from hotrain.evaluate import StoredTruth, Truth, source_extents
from hotrain.loading.damage import Damaged, Tally
from hotrain.loading.data import decode_image
from hotrain.scoring.metrics import report

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

_BITS = 5  # of each channel: 32**3 bins
_SHIFT = 8 - _BITS
MOST = 2000  # training samples that are fitted to
_EM_STEPS = 100
_SMOOTHING = 1.0  # pixels of the overall mixture that every bin has seen besides its own
_FACTORS = 2.0 ** np.arange(-4, 4.5, 0.5)


class ColorHistogram:
    """One class per bin of colour; a `Predictor`."""

    def __init__(self, class_of_bin: NDArray[np.uint8]) -> None:
        self._class_of_bin = class_of_bin

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] -> the class of every pixel, uint8 [H, W]."""
        return self._class_of_bin[color_bins(image)]

    def classes(
        self, prepared: Sequence[NDArray[Any]], size: tuple[int, int], folds: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """What `prepare` said: each class's factor was chosen at one extent already."""
        return np.stack(prepared)


def fit_color_histogram(
    index: ShardIndex,
    rows: NDArray[np.int64],
    task: Task,
    *,
    extent: str = "wrist",
    tally: Tally | None = None,
    on_sample: Callable[[], None] = lambda: None,
) -> ColorHistogram:
    """Fit on training samples.

    The probability of each class in each bin maximises the likelihood that the set loss uses (expectation
    maximisation over the classes a pixel may be). Then each class gets a factor, chosen by coordinate ascent for the
    best mean IoU of hand and object on the same samples: the plain argmax would hardly ever answer a rare class.

    Args:
        index: the shards.
        rows: int64 [N], the training samples; of more than `MOST` that many are taken, evenly.
        task: classes to tell apart.
        extent: at which the factors are chosen.
        tally: leave out samples that cannot be read, and note them here; without it they raise.
        on_sample: called after each sample.

    Raises:
        SelectionError: no rows.
    """
    if not len(rows):
        raise SelectionError("no training sample is selected, so no colour histogram can be fitted")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(np.int64))]
    truth = StoredTruth(index)
    counts = _count(index, rows, task, truth, tally, on_sample)
    extents = source_extents(index, rows, task, truth, extent)
    posterior = fit_posterior(np.sum(list(counts.values()), 0), len(task.classes))
    return ColorHistogram(_choose_factors(posterior, counts, task, extents))


def color_bins(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """uint8 [..., 3] -> bin number int32 [...]."""
    coarse = (image >> _SHIFT).astype(np.int32)
    return (coarse[..., 0] << 2 * _BITS) | (coarse[..., 1] << _BITS) | coarse[..., 2]


def fit_posterior(counts: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Probability of each class in each bin.

    Args:
        counts: int64 [N, 2**K], pixels by bin and set of possible classes.
        classes: K.

    Returns:
        float64 [N, K], rows sum to 1.
    """
    full = (1 << classes) - 1
    sets = np.flatnonzero(counts.sum(0))
    sets = sets[(sets != 0) & (sets != full)]
    member = ((sets[:, None] >> np.arange(classes)) & 1).astype(np.float64)  # [sets, K]
    seen = counts[:, sets].astype(np.float64)
    prior = _maximise(seen.sum(0, keepdims=True), member, np.full((1, classes), 1.0 / classes), 0.0)
    return _maximise(seen, member, prior, _SMOOTHING)


def _maximise(
    seen: NDArray[np.float64], member: NDArray[np.float64], prior: NDArray[np.float64], smoothing: float
) -> NDArray[np.float64]:
    """EM: share each pixel among the classes of its set in proportion to their probability in its bin."""
    posterior = np.repeat(prior, len(seen), 0)
    for _ in range(_EM_STEPS):
        of_set = np.maximum(posterior @ member.T, 1e-300)  # [N, sets]
        expected = posterior * ((seen / of_set) @ member) + smoothing * prior
        posterior = expected / np.maximum(expected.sum(1, keepdims=True), 1e-300)
    return posterior


def _count(
    index: ShardIndex,
    rows: NDArray[np.int64],
    task: Task,
    truth: Truth,
    tally: Tally | None,
    on_sample: Callable[[], None],
) -> dict[str, NDArray[np.int64]]:
    """Source -> int64 [N, 2**K], pixels by bin and set."""
    reader = index.reader()
    names, kinds, keys = (index.column(name) for name in ("source", "image_kind", "key"))
    width = 1 << len(task.classes)
    counts: dict[str, NDArray[np.int64]] = {}
    damaged: list[Damaged] = []
    for row in rows.tolist():
        on_sample()
        try:
            bins = color_bins(decode_image(reader.image(row), kinds[row], keys[row]))
            sets = task_table(truth.meaning(row), task)[truth.mask(row)]
        except ShardError as error:
            if tally is None:
                raise
            damaged.append(Damaged(keys[row], str(error)))
            continue
        cells = np.bincount((bins * width + sets).ravel(), minlength=width << 3 * _BITS)
        of_source = counts.setdefault(names[row], np.zeros((1 << 3 * _BITS, width), dtype=np.int64))
        of_source += cells.reshape(of_source.shape)
    if tally is not None:
        tally.add(damaged)
    return counts


def _choose_factors(
    posterior: NDArray[np.float64], counts: dict[str, NDArray[np.int64]], task: Task, extents: dict[str, str]
) -> NDArray[np.uint8]:
    """uint8 [N]: argmax of factor x posterior, with the factors that score best on the counted pixels."""
    classes = posterior.shape[1]
    used = np.flatnonzero(np.sum([matrix.sum(1) for matrix in counts.values()], 0))
    kept = {name: matrix[used] for name, matrix in counts.items()}
    samples = dict.fromkeys(counts, 0)

    def score(factors: NDArray[np.float64]) -> float:
        answer = (posterior[used] * factors).argmax(1)
        matrices = {
            name: np.stack([matrix[answer == c].sum(0) for c in range(classes)], 1) for name, matrix in kept.items()
        }
        return report(matrices, samples, task, extents).pooled.jaccard or 0.0

    factors = np.ones(classes)
    best = score(factors)
    for _ in range(2):
        for c in range(1, classes):  # the background's factor is free: only ratios matter
            for factor in _FACTORS:
                tried = factors.copy()
                tried[c] = factor
                if (value := score(tried)) > best:
                    best, factors = value, tried
    return (posterior * factors).argmax(1).astype(np.uint8)
