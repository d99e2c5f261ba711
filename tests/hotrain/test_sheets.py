"""The pictures of a run show the answers that are scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_shards import Spec, write
from numpy.typing import NDArray

from hodata.labels import TASKS, Label
from hodata.shards.reader import ShardIndex
from hotrain import sheets
from hotrain.evaluate import evaluate
from hotrain.predict import answers
from hotrain.scoring import report_page
from hotrain.scoring.scorecard import scorecard

TASK = TASKS["hand-object"]


class Unsure:
    """Gives background 0.4, hand and arm 0.3 each, so that where hands end decides; notes what it answered."""

    def __init__(self) -> None:
        self.answered: list[list[int]] = []

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image

    def classes(
        self, prepared: Sequence[NDArray[Any]], size: tuple[int, int], folds: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        shares = {"background": 0.4, "hand": 0.3, "arm": 0.3, "object": 0.001}
        logits = torch.tensor([shares[name] for name in TASK.classes]).log()[:, None, None]
        found = answers(logits.expand(len(prepared), -1, size[1], size[0]), folds)
        self.answered += [np.unique(each).tolist() for each in found]
        return found


@pytest.fixture
def index(tmp_path: Path) -> ShardIndex:
    specs = [Spec("wrists", "val", 2), Spec("whole", "val", 2, "egohos", hand=Label.HAND)]
    return ShardIndex.open(str(write(tmp_path, specs)))


def test_sheets_and_pages_show_what_is_scored(index: ShardIndex, tmp_path: Path) -> None:
    rows = index.select(split="val")
    scored = Unsure()
    report = evaluate(index, rows, TASK, scored, batch_size=1, details=True)
    assert report.extents == {"wrists": "wrist", "whole": "arm"}
    assert sorted(scored.answered) == [[0], [0], [1], [1]]

    shown = Unsure()
    sheets.example_sheet(index, rows.tolist(), shown, TASK, "title", report.extents)
    by_source = dict(zip(index.column("source")[rows].tolist(), shown.answered, strict=True))
    assert by_source == {"wrists": [0], "whole": [1]}

    on_page = Unsure()
    assert report.details is not None
    card = scorecard(report.details)
    report_page.write_page(tmp_path / "page.html", "title", report, card, index, on_page)
    assert {tuple(each) for each in on_page.answered} == {(0,), (1,)}
