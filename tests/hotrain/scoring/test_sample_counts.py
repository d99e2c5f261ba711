"""Key points in shards reach their figures; the samples that are shown are the worst and the best."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from drawn_shards import Spec, draw, encode

from hodata.labels import MEANINGS, TASKS, Label, task_table
from hodata.sample import Hand, Record, Sample
from hodata.shards.index import IndexInfo
from hodata.shards.reader import ShardIndex
from hodata.shards.writer import ShardWriter
from hotrain.evaluate import evaluate
from hotrain.scoring.figures import FINGERTIPS, WITHOUT_WRIST, Figures
from hotrain.scoring.hand_regions import fingertip_discs, wrist_bands
from hotrain.scoring.worst import worst_and_best

TASK = TASKS["hand"]


@pytest.fixture
def with_hands(tmp_path: Path) -> ShardIndex:
    """Three samples whose fingertips stand on the hand's disc; the last one has no key points."""
    spec = Spec("posed", "test", kind="png")
    info = IndexInfo(spec.name, "0" * 64, {}, tuple(meaning.to_json() for meaning in MEANINGS.values()), ())
    with ShardWriter(tmp_path, "posed-test-000000", info, "none", False) as writer:
        for number in range(3):
            image, mask = draw(spec, number)
            rows, columns = np.nonzero(mask == Label.HAND)
            points = np.stack([columns, rows], 1)[np.linspace(0, len(rows) - 1, 21).astype(int)].astype(float)
            loop = points[0] + [[-4.0, -3.0], [5.0, -3.0], [5.0, 2.0], [-4.0, 2.0]]
            hand = Hand(
                keypoints_px=points.tolist(),
                valid=[True] * 21,
                in_front=[tip != 12 for tip in range(21)],
                wrist_loop=loop.tolist(),
            )
            sample = Sample(encode(image, "png"), "png", mask, "exact", hands=[hand] if number < 2 else [])
            key = f"posed_{number}"
            writer.add(sample, Record(key, f"posed/{number}", "", f"{key}.png"), key=key, split="test")
    return ShardIndex.open(tmp_path)


class HalfOfTheHand:
    """Hand where it is red and in the upper half."""

    def prepare(self, image: np.ndarray) -> np.ndarray:
        answer = (image[..., 0] > 150).astype(np.uint8)
        answer[24:] = 0
        return answer

    def classes(self, prepared: Any, size: tuple[int, int], folds: np.ndarray | None = None) -> np.ndarray:
        return np.stack(prepared)


def test_fingertips_and_wrists_are_scored_where_shards_have_them(with_hands: ShardIndex) -> None:
    found = evaluate(with_hands, with_hands.select(), TASK, HalfOfTheHand(), details=True).details
    assert found is not None
    tips, wrist = (found.figures.counted.index(name) for name in (FINGERTIPS, WITHOUT_WRIST))
    reader = with_hands.reader()
    for row in range(3):
        mask = reader.mask(row)
        hand = task_table(MEANINGS["exact"], TASK)[mask] == 0b010
        answer = HalfOfTheHand().prepare(draw(Spec("posed", "test"), row)[0]) == 1
        hands = reader.json(row)["hands"]
        discs, bands = fingertip_discs(hands, hand), wrist_bands(hands, mask.shape)
        if row == 2:
            assert discs is None and bands is None and not found.values[row, [tips, wrist]].any()
            continue
        assert discs is not None and bands is not None
        seen = int((hand & discs).sum())
        assert found.values[row, tips].tolist() == [int((hand & discs & answer).sum()), seen, seen]
        kept = hand & ~bands
        expected = [int((kept & answer).sum()), int(((hand | answer) & ~bands).sum()), int(kept.sum())]
        assert found.values[row, wrist].tolist() == expected and 0 < expected[2] < hand.sum()


def test_the_worst_come_first_and_no_group_fills_the_list() -> None:
    figures = Figures(TASK)
    hand = figures.counted.index("kinds.hand")
    values = np.zeros((12, len(figures.counted), 3), np.int64)
    values[:11, hand] = [[hits, 100, 100] for hits in (50, 10, 11, 12, 90, 30, 95, 94, 93, 40, 60)]  # 11: no hand
    groups = np.array(["a", "b", "b", "b", "c", "c", "d", "d", "d", "e", "e", "f"], dtype=object)
    worst, best = worst_and_best(SimpleNamespace(figures=figures, values=values, groups=groups), 4, 3)  # type: ignore[arg-type]
    assert worst == [1, 2, 5, 9]
    assert best == [6, 7, 4]
    worst, best = worst_and_best(SimpleNamespace(figures=figures, values=values, groups=groups), 99, 99)  # type: ignore[arg-type]
    assert len(worst) == 10 - 1 and 11 not in worst and not set(worst) & set(best)
