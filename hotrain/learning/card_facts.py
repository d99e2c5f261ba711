"""What a model card says of a checkpoint: gathered from its run, its shards and their manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import ShardError
from hodata.files import replacing
from hodata.labels import HANDS, Label
from hodata.shards.reader import ShardIndex
from hotrain import checkpoint
from hotrain.checkpoint import Checkpoint
from hotrain.columns import present
from hotrain.errors import CheckpointError
from hotrain.input_rule import InputRule
from hotrain.learning.guards import missing_classes, set_pixels
from hotrain.learning.model_card import CARD, CardDataset, CardFacts, CardScore, CardSource, model_card
from hotrain.learning.selection import Selection, meanings_of
from hotrain.scoring.calibration import read_calibration

STRIDES = {"deeplabv3_mobilenet_v3_large": 16}  # the others: 8; a test measures them
_WORDS = ("title", "url", "licence", "citation")
_RULES = {
    "short-side": "the shorter side is scaled to {} pixels, the aspect is kept.",
    "squash": "both sides are scaled to {} pixels, whatever the aspect.",
}


def write_card(opened: Checkpoint, selection: Selection) -> None:
    """Write MODEL_CARD.md beside the weights of a checkpoint of this run; replaces an earlier one.

    Raises:
        CheckpointError: it cannot be written.
    """
    path, text = opened.path / CARD, model_card(card_facts(opened, selection))
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror or error}); is the disk full?") from error


def card_facts(opened: Checkpoint, selection: Selection) -> CardFacts:
    """The facts of one checkpoint.

    Args:
        opened: its validation scores are used if its run names it the best.
        selection: what the run trains on.
    """
    facts, task, index = opened.facts, opened.task, selection.index
    config: Mapping[str, Any] = facts.get("config", {})
    rule = InputRule.from_json(facts["input_rule"])
    calibration = read_calibration(opened)
    taught = np.flatnonzero(set_pixels(index, selection.train_rows, task, selection.tables)[:-1])
    return CardFacts(
        task=task.name,
        model=facts["model"],
        classes=task.public_classes,
        arms=any(int(members) >> arm & 1 for members in taught for arm in task.arm_to_hand),
        input_rule=_RULES[rule.kind].format(rule.size),
        stride=STRIDES.get(facts["model"], 8),
        samples_seen=opened.position,
        start=_start(config),
        open_labels=str(config.get("open_labels", "sets")),
        sides=_sides(index, selection.train_rows),
        sources=[_source(name, rows, opened, selection, rule) for name, rows in selection.rows.items()],
        datasets=[_dataset(name, words) for name, words in sorted(facts.get("datasets", {}).items())],
        scores=_scores(opened),
        calibration=(calibration.temperature, calibration.before.ece, calibration.after.ece) if calibration else None,
        versions=facts.get("versions", {}),
        data_hash=str(facts.get("data_hash", "")),
    )


def _start(config: Mapping[str, Any]) -> str:
    if config.get("init"):
        return f"the run {config['init']}"
    return {"coco": "torchvision's COCO weights", "none": "random weights"}.get(
        config.get("weights", ""), "a file of weights"
    )


def _source(
    name: str, rows: NDArray[np.int64], opened: Checkpoint, selection: Selection, rule: InputRule
) -> CardSource:
    index = selection.index
    return CardSource(
        name=name,
        samples=len(rows),
        groups=len(present(index, "group", rows)),
        meanings=[(meaning.name, meaning.description) for meaning in meanings_of(index, rows)],
        origins=[origin for origin in present(index, "mask_origin", rows) if origin],
        views=[view for view in present(index, "view", rows) if view],
        undecided=missing_classes(index, rows, opened.task),
        hand_sizes=hand_sizes(index, rows, rule),
    )


def dataset_words(index: ShardIndex, sources: Iterable[str]) -> dict[str, dict[str, str]]:
    """Source -> {title, url, licence, citation} out of its manifest; without what is missing or damaged there.

    A run keeps them in run.json and hands them on to the runs that start from it.
    """
    try:
        manifests = index.manifests
    except ShardError:  # shards are whole without their manifests
        manifests = {}
    found = {}
    for source in sources:
        dataset = manifests.get(source, {}).get("dataset", {})
        found[source] = {name: str(dataset[name]) for name in _WORDS if isinstance(dataset.get(name), str)}
    return found


def _dataset(name: str, words: Any) -> CardDataset:
    known = words if isinstance(words, dict) else {}
    return CardDataset(name, **{word: str(known.get(word, "")) for word in _WORDS})


def hand_sizes(index: ShardIndex, rows: NDArray[np.int64], rule: InputRule) -> tuple[float, float, float] | None:
    """10th, 50th and 90th percentile of the longer side of the hands' boxes, in pixels as the network sees them."""
    widths, heights = index.column("width")[rows].tolist(), index.column("height")[rows].tolist()
    sizes = []
    for width, height, boxes in zip(widths, heights, index.arrow("hand_boxes").take(rows).to_pylist(), strict=True):
        across, down = rule.network_size(width, height)
        for x0, y0, x1, y1 in boxes:
            sizes.append(max((x1 - x0 + 1) * across / width, (y1 - y0 + 1) * down / height))
    if not sizes:
        return None
    low, median, high = np.percentile(sizes, (10, 50, 90)).tolist()
    return low, median, high


def _sides(index: ShardIndex, rows: NDArray[np.int64]) -> tuple[float, float, float]:
    """Shares of the hand pixels that are stored as left, right and of unknown side."""
    counts = {label: int(index.column(f"pixels_{label.label_name}")[rows].sum(dtype=np.int64)) for label in HANDS}
    total = max(sum(counts.values()), 1)
    return counts[Label.LEFT_HAND] / total, counts[Label.RIGHT_HAND] / total, counts[Label.HAND] / total


def _scores(opened: Checkpoint) -> list[CardScore]:
    """Validation figures, if this checkpoint is the one that its run calls best."""
    run = opened.path.parent.parent
    score = checkpoint.best_score(run)
    if score is None or checkpoint.find(run).path.name != opened.path.name:
        return []
    parts = {"": score, **score["by_source"]}
    return [
        CardScore(name, own["samples"], own["extent"], own["kinds"], own["accuracy"]) for name, own in parts.items()
    ]
