"""Flooding and arms called hand, against a twin that looks at each pixel; the truth of miniatures, found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from compare.flooding import ARM_AS_HAND, CALLED, OBJECT, TRULY, WRONGLY, Flooding
from compare.truth import FullTruth, kinds_seen
from hodata.errors import ShardError
from hodata.labels import ARMS, HANDS, MEANINGS, OBJECTS, SECOND, TASKS, Label

TASK = TASKS["hand-object"]
FIGURES = Flooding(TASK)
LABELS = [int(label) for label in Label]


def kind(label: int) -> str:
    """What a pixel is, by its exact label; second-order objects and void are open."""
    for name, labels in (("hand", HANDS), ("arm", ARMS), ("object", OBJECTS), ("open", SECOND | {Label.VOID})):
        if Label(label) in labels:
            return name
    return "background"


def slow(truth: np.ndarray, drawn: np.ndarray, answer: np.ndarray) -> dict[str, tuple[int, int]]:
    """Pixel by pixel, for masks that draw hands to the wrist and everything else as background."""
    found = {name: [0, 0] for name in FIGURES.names}

    def count(name: str, hit: bool) -> None:
        found[name][0] += hit
        found[name][1] += 1

    for true, label, number in zip(truth.ravel(), drawn.ravel(), answer.ravel(), strict=True):
        what, called = kind(int(true)), TASK.classes[number]
        if what == "open":
            continue
        if label == Label.BACKGROUND:
            count(CALLED, called in ("object", "arm"))
            count(TRULY, what in ("object", "arm"))
            if what == "background":
                count(WRONGLY, called in ("object", "arm"))
        if what == "arm":
            count(ARM_AS_HAND, called == "hand")
        if "object" in (what, called):
            count(OBJECT, what == called)
    return {name: (hit, total) for name, (hit, total) in found.items()}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), side=st.integers(1, 12))
def test_equals_the_slow_twin(seed: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice(LABELS, (side, side + 1)).astype(np.uint8)
    drawn = rng.choice([0, 0, int(Label.HAND), int(Label.VOID)], truth.shape).astype(np.uint8)
    answer = rng.integers(0, len(TASK.classes), truth.shape).astype(np.uint8)
    pixels = kinds_seen(truth, drawn, MEANINGS["hand-wrist"], answer, TASK)
    counts = FIGURES.counts(pixels[None])
    expected = slow(truth, drawn, answer)
    assert {name: tuple(counts[0, n, :2]) for n, name in enumerate(FIGURES.names)} == expected
    values = FIGURES.values(counts.sum(0))
    for number, (hit, total) in enumerate(expected.values()):
        assert values[number] == pytest.approx(hit / total) if total else np.isnan(values[number])


def test_a_perfect_answer_floods_by_exactly_the_truth_s_share() -> None:
    truth = np.full((10, 10), Label.BACKGROUND, np.uint8)
    truth[:2], truth[2:4], truth[4:5] = Label.RIGHT_HAND, Label.OBJECT_RIGHT, Label.RIGHT_ARM
    drawn = np.where(truth == Label.RIGHT_HAND, np.uint8(Label.RIGHT_HAND), np.uint8(0))
    answer = np.zeros_like(truth)
    answer[:2], answer[2:4], answer[4:5] = 1, 2, 3
    counts = FIGURES.counts(kinds_seen(truth, drawn, MEANINGS["hand-wrist"], answer, TASK)[None]).sum(0)
    found = dict(zip(FIGURES.names, FIGURES.values(counts).tolist(), strict=True))
    assert found == {CALLED: 0.375, TRULY: 0.375, WRONGLY: 0.0, OBJECT: 1.0, ARM_AS_HAND: 0.0}


class Index:
    """What `FullTruth` asks of an index."""

    plans = {"ho3d_v3": {"source": "ho3d"}}  # noqa: RUF012

    def reader(self) -> Index:
        return self

    def column(self, name: str) -> np.ndarray:
        return np.array(["ho3d_v3"], dtype=object)

    def json(self, row: int) -> dict[str, str]:
        return {"original_file": "evaluation/SM1/rgb/0001.jpg"}


def test_the_truth_of_a_picture_is_found_by_its_original_file(tmp_path: Path) -> None:
    truth = FullTruth(Index(), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ShardError, match=r"are the shards made of --raw"):
        truth.mask(0)
    path = tmp_path / "ho3d/truth/evaluation/SM1/rgb/0001.png"
    path.parent.mkdir(parents=True)
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(ids).save(path)
    np.testing.assert_array_equal(truth.mask(0), ids)
    assert truth.meaning(0).name == "exact"
