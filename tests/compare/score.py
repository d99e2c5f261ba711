"""Score a run on a split test: counts of every picture, kept beside the run so that nothing is scored twice.

Shapes: N rows, F figures, K classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compare.data import Drawn
from compare.truth import FullTruth, kinds_seen
from hodata.labels import TASKS, Task

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex
    from hotrain.evaluate import Truth
    from hotrain.predict import NetworkPredictor

TASK = TASKS["hand-object"]
# What answers and counts are made by.
_COUNTING = (
    *("hodata.labels", "hodata.shards.png", "hotrain.evaluate", "hotrain.predict", "hotrain.input_rule"),
    *("hotrain.model", "hotrain.learning.augment", "hotrain.loading.data", "hotrain.scoring.boundary"),
    *("hotrain.scoring.figures", "hotrain.scoring.hand_regions", "hotrain.scoring.metrics"),
    *("hotrain.scoring.sample_counts", "compare.score", "compare.truth"),
)


@dataclass(frozen=True)
class Scores:
    """Counts of one run, on the pictures of one or several sets.

    Args:
        stored: int64 [N, F, 3] against the stored masks, each source at the extent that they decide.
        wrist, arm: int64 [N, F, 3] against the full truth, hands ending there.
        pixels: int64 [N, 2, 2**K, K], see `truth.kinds_seen`.
    """

    stored: NDArray[np.int64]
    wrist: NDArray[np.int64]
    arm: NDArray[np.int64]
    pixels: NDArray[np.int64]


class Answers:
    """Class maps that are made already, by row (`hotrain.evaluate.RowPredictor`)."""

    def __init__(self, maps: dict[int, NDArray[np.uint8]]) -> None:
        self._maps = maps

    def answer(self, row: int) -> NDArray[np.uint8]:
        return self._maps[row]


def scores_file(run: Path, drawn: Drawn) -> Path:
    """Where the scores of a run on a set of miniatures lie."""
    return run / ("-".join(filter(None, ("scores", drawn.name))) + ".npz")


def score_run(run: Path, drawn: Drawn, device: str = "cpu") -> Path:
    """Score a run's best checkpoint, computed on `device`, unless that is done: `scores_file`.

    For a process of its own.
    """
    from hodata.shards.reader import ShardIndex
    from hotrain.checkpoint import find

    path, opened, index = scores_file(run, drawn), find(run), ShardIndex.open(drawn.shards)
    rows = index.select(split="test")
    stamp = stamp_of(opened.path / "weights.safetensors", index.data_hash(rows))
    if _stamp_in(path) == stamp:
        return path
    import torch

    from hotrain.predict import load_predictor

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    scores = score(index, rows, load_predictor(opened, torch.device(device)), drawn.raw)
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        np.savez_compressed(file, stamp=np.array(stamp), **vars(scores))
    partial.replace(path)
    return path


def stamp_of(weights: Path, data: str) -> str:
    """What scores are of: a hash of the weights, of the pictures, and of the code that counts."""
    digest = hashlib.sha256(data.encode())
    for path in (weights, *_counting_code()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _counting_code() -> list[Path]:
    return [Path(str(spec.origin)) for spec in map(find_spec, _COUNTING) if spec is not None]


def _stamp_in(path: Path) -> str:
    """Of scores that are there; empty where there are none, or older ones without."""
    try:
        with np.load(path) as arrays:
            return str(arrays["stamp"])
    except (OSError, KeyError, ValueError):
        return ""


def read_scores(run: Path, sets: Sequence[Drawn]) -> Scores:
    """What `score_run` wrote, of all sets, one after the other."""
    parts: dict[str, list[NDArray[np.int64]]] = {field.name: [] for field in fields(Scores)}
    for drawn in sets:
        with np.load(scores_file(run, drawn)) as arrays:
            for name, part in parts.items():
                part.append(arrays[name])
    return Scores(**{name: np.concatenate(part) for name, part in parts.items()})


def score(index: ShardIndex, rows: NDArray[np.int64], predictor: NetworkPredictor, raw: Path) -> Scores:
    """Answer every row once, and count against the stored masks and against the full truth."""
    from hotrain.evaluate import StoredTruth, source_extents

    full, stored = FullTruth(index, raw), StoredTruth(index)
    asked: dict[str, tuple[str, Truth]] = {"stored": ("wrist", stored), "wrist": ("wrist", full), "arm": ("arm", full)}
    extents = [source_extents(index, rows, TASK, truth, extent) for extent, truth in asked.values()]
    maps = dict(zip(asked, answer_rows(index, rows, TASK, predictor, extents), strict=True))
    counts = {name: count(index, rows, TASK, maps[name], extent, truth) for name, (extent, truth) in asked.items()}
    pixels = [
        kinds_seen(full.mask(row), stored.mask(row), stored.meaning(row), maps["wrist"][row], TASK)
        for row in rows.tolist()
    ]
    return Scores(**counts, pixels=np.stack(pixels))


def count(
    index: ShardIndex,
    rows: NDArray[np.int64],
    task: Task,
    maps: dict[int, NDArray[np.uint8]],
    extent: str,
    truth: Truth | None = None,
) -> NDArray[np.int64]:
    """int64 [N, F, 3] of `hotrain.scoring.figures.Figures`: answers against the stored masks, or another truth.

    Args:
        index: the shards.
        rows: int64 [N].
        task: whose classes the answers are.
        maps: row -> class ids uint8 [H, W], chosen for that extent.
        extent: wanted, as in `hotrain.evaluate`.
        truth: None: the stored masks.
    """
    from hotrain.evaluate import evaluate

    details = evaluate(index, rows, task, Answers(maps), extent=extent, truth=truth, details=True).details
    assert details is not None and np.array_equal(details.rows, rows)
    return details.values


def answers_of_run(
    index: ShardIndex, rows: NDArray[np.int64], run: Path, extent: str, device: str = "cpu"
) -> dict[int, NDArray[np.uint8]]:
    """Class ids uint8 [H, W] of each row by a run's best checkpoint, computed on `device`, for `count` at an extent."""
    import torch

    from hotrain.checkpoint import find
    from hotrain.evaluate import StoredTruth, source_extents
    from hotrain.predict import load_predictor

    opened = find(run)
    extents = source_extents(index, rows, opened.task, StoredTruth(index), extent)
    predictor = load_predictor(opened, torch.device(device))
    return answer_rows(index, rows, opened.task, predictor, [extents])[0]


def answer_rows(
    index: ShardIndex,
    rows: NDArray[np.int64],
    task: Task,
    predictor: NetworkPredictor,
    extents: Sequence[Mapping[str, str]],
) -> list[dict[int, NDArray[np.uint8]]]:
    """Row -> class ids uint8 [H, W], for each of some ways to end hands: source -> extent."""
    from hotrain.evaluate import equal_size_batches
    from hotrain.predict import likeliest

    sources = index.column("source")
    maps: list[dict[int, NDArray[np.uint8]]] = [{} for _ in extents]
    for batch in equal_size_batches(index, rows, 8):
        images = read_images(index, batch)
        size = (images[0].shape[1], images[0].shape[0])
        probabilities = predictor.logits([predictor.prepare(image) for image in images], size).softmax(1)
        for own, extent in zip(maps, extents, strict=True):
            folds = np.stack([task.fold(extent[sources[row]]) for row in batch])
            own |= dict(zip(batch, likeliest(probabilities, folds).cpu().numpy(), strict=True))
    return maps


def read_images(index: ShardIndex, rows: Sequence[int]) -> list[NDArray[np.uint8]]:
    """uint8 [H, W, 3] each."""
    from hotrain.columns import coded
    from hotrain.loading.data import decode_image

    reader, keys = index.reader(), index.arrow("key")
    kinds, kind = coded(index, "image_kind")
    return [decode_image(reader.image(row), kinds[kind[row]], keys[row].as_py()) for row in rows]
