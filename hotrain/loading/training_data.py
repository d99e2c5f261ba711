"""The crops of a run, as its options say: made by `fit` to learn from, and by its preview to look at."""

from __future__ import annotations

import numpy as np

from hotrain.config import FitConfig
from hotrain.input_rule import InputRule
from hotrain.learning.selection import Selection
from hotrain.loading.composite import CompositeRule
from hotrain.loading.crop import CropRule
from hotrain.loading.data import CropData
from hotrain.loading.degrade import DegradeRule
from hotrain.loading.hand_boxes import HandBoxes
from hotrain.order import Order


def training_data(config: FitConfig, selection: Selection) -> CropData:
    """The training crops of a run by position; raises SelectionError on weights that name no source."""
    sizes = {name: len(rows) for name, rows in selection.rows.items()}
    # Between every sample alike, where a large source drowns a small one, and every source alike, where a small one is
    # learnt by heart.
    weights = {name: size**0.5 for name, size in sizes.items()} | dict(config.source_weights)
    order = Order(sizes, config.seed, weights, _shard_sizes(selection, config.order))
    rule = InputRule(config.size or config.crop, config.input_rule)
    index, rows = selection.index, selection.rows
    hands = HandBoxes(index) if config.aim or config.even else None
    return CropData(
        index,
        rows,
        order,
        rule,
        CropRule.of_strength(
            config.crop,
            config.jitter,
            flip=config.flip,
            aim=config.aim,
            even=config.even,
            hand_size=hands.typical_size(index, rows.values(), rule) if hands and config.even else 0.0,
        ),
        composite=CompositeRule(config.background, config.paste),
        degrade=DegradeRule(config.blur, config.noise, config.jpeg),
        hands=hands,
        skip_damaged=config.on_corrupt == "skip",
    )


def _shard_sizes(selection: Selection, order: str) -> dict[str, list[int]] | None:
    """Source -> samples in each of its shards, which block order goes by."""
    if order != "blocks":
        return None
    numbers = selection.index.shard_number
    return {name: np.unique(numbers[rows], return_counts=True)[1].tolist() for name, rows in selection.rows.items()}
