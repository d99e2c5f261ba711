"""Boxes by row against the index read in the plain way."""

from __future__ import annotations

import numpy as np
import pytest

from hodata.shards.reader import ShardIndex
from hotrain.input_rule import InputRule
from hotrain.loading.hand_boxes import HandBoxes


def boxes_of(index: ShardIndex, row: int) -> list[list[int]]:
    return [box for box in index.arrow("hand_boxes")[row].as_py() if box[2] >= box[0] and box[3] >= box[1]]


def test_every_row_has_its_own_boxes(mixed: ShardIndex) -> None:
    boxes = HandBoxes(mixed)
    for row in range(len(mixed)):
        assert boxes.of(row).tolist() == boxes_of(mixed, row)
    assert sum(len(boxes.of(row)) for row in range(len(mixed)))


def test_the_typical_hand_is_the_mean_of_the_sources_medians(mixed: ShardIndex) -> None:
    rule, source = InputRule(96), mixed.column("source")
    rows = [np.flatnonzero(source == name) for name in ("ego", "wrist")]
    medians = []
    for own in rows:
        sizes = []
        for row in own:
            width, height = int(mixed.column("width")[row]), int(mixed.column("height")[row])
            seen = rule.network_size(width, height)
            for left, top, right, bottom in boxes_of(mixed, int(row)):
                sizes.append(((right - left + 1) * seen[0] / width * (bottom - top + 1) * seen[1] / height) ** 0.5)
        medians.append(np.median(sizes))
    assert HandBoxes(mixed).typical_size(mixed, rows, rule) == pytest.approx(np.sqrt(medians[0] * medians[1]), rel=1e-6)


def test_no_boxes_no_size(mixed: ShardIndex) -> None:
    assert HandBoxes(mixed).typical_size(mixed, [np.array([], dtype=np.int64)], InputRule(96)) == 1.0
