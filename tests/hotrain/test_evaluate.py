"""Exact evaluation: each sample once, on one process or several, against a plain loop."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import multiprocessing
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hodata.labels import MEANINGS, TASKS, Meaning, task_table
from hodata.shards.reader import ShardIndex
from hotrain.errors import SelectionError
from hotrain.evaluate import StoredTruth, count, equal_size_batches, evaluate, key_sum, source_extents
from hotrain.input_rule import InputRule
from hotrain.loading.data import decode_image
from hotrain.model import IMAGENET_MEAN, IMAGENET_STD, create_model
from hotrain.predict import NetworkPredictor, likeliest
from hotrain.scoring.metrics import confusion, score
from hotrain.scoring.scorecard import document, scorecard

TASK = TASKS["hand-object"]


class ByBrightness:
    """A predictor that needs no network: red pixels are hand, green ones object."""

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.where(image[..., 0] > 150, 1, np.where(image[..., 1] > 120, 2, 0)).astype(np.uint8)

    def classes(
        self, prepared: Sequence[NDArray[Any]], size: tuple[int, int], folds: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        assert all(image.shape == (size[1], size[0]) for image in prepared)
        return np.stack(prepared)


def test_equals_a_plain_loop(mixed: ShardIndex) -> None:
    rows = mixed.select(split="val")
    found = evaluate(mixed, rows, TASK, ByBrightness(), batch_size=3)
    reader = mixed.reader()
    for name, extent in (("ego", "arm"), ("wrist", "wrist")):
        matrix = np.zeros((16, 4), np.int64)
        own = [row for row in rows if mixed.column("source")[row] == name]
        for row in own:
            image = decode_image(reader.image(row), mixed.column("image_kind")[row], "k")
            sets = task_table(mixed.meanings[mixed.column("meaning")[row]], TASK)[reader.mask(row)]
            matrix += confusion(sets, ByBrightness().prepare(image), 4)
        assert found.by_source[name] == score(matrix, len(own), TASK, extent)
    assert found.pooled.samples == len(rows) == 9
    assert found.by_source["ego"].iou["hand"] > 0.9  # type: ignore[operator]
    assert found.by_source["wrist"].iou["object"] is None


def test_batches_hold_one_size_and_every_row_once(mixed: ShardIndex) -> None:
    rows = np.random.default_rng(0).permutation(len(mixed))
    batches = equal_size_batches(mixed, rows, 4)
    assert sorted(row for batch in batches for row in batch) == list(range(len(mixed)))
    assert batches == equal_size_batches(mixed, np.sort(rows), 4)
    for batch in batches:
        assert 1 <= len(batch) <= 4
        assert len({(mixed.column("width")[row], mixed.column("height")[row]) for row in batch}) == 1


def test_key_sum_is_its_definition() -> None:
    keys = [f"key{number}" for number in range(50)]
    expected = 0
    for key in keys:
        expected = (expected + int(np.frombuffer(hashlib.sha256(key.encode()).digest()[:8], "<u8")[0])) % 2**64
    assert key_sum(keys) == expected == key_sum(keys[::-1])


class Exact(StoredTruth):
    """The same masks, taken for the whole truth."""

    def meaning(self, row: int) -> Meaning:
        return MEANINGS["exact"]


def test_another_truth_can_be_given(mixed: ShardIndex) -> None:
    rows = mixed.select(split="val")
    found = evaluate(mixed, rows, TASK, ByBrightness(), truth=Exact(mixed))
    assert {scores.extent for scores in found.by_source.values()} == {"wrist"}
    assert found.by_source["wrist"].iou["background"] is not None


def test_details_are_the_counts_of_each_sample_and_add_up_to_the_report(mixed: ShardIndex) -> None:
    rows = mixed.select(split="val")
    found = evaluate(mixed, rows, TASK, ByBrightness(), batch_size=3, details=True)
    assert found.details is not None and found == evaluate(mixed, rows[::-1], TASK, ByBrightness())
    figures = found.details.figures
    for name, scores in found.by_source.items():
        total = found.details.values[found.details.sources == name].sum(0)
        values = dict(zip(figures.names, figures.values(total).tolist(), strict=True))
        assert values["kinds.hand"] == scores.kinds["hand"] and values["accuracy"] == scores.accuracy
        assert values["jaccard"] == pytest.approx(scores.jaccard)
    row = int(rows[4])
    own = evaluate(mixed, np.array([row]), TASK, ByBrightness(), details=True).details
    assert own is not None
    np.testing.assert_array_equal(found.details.values[4], own.values[0])
    card = scorecard(found.details)
    assert card.pooled.value["accuracy"] == found.pooled.accuracy
    assert card.by_source["ego"].groups == 2 and not card.by_source["ego"].interval


class NoGroundTruth(StoredTruth):
    """The masks of the larger images are no ground truth."""

    def meaning(self, row: int) -> Meaning:
        meaning = super().meaning(row)
        return replace(meaning, scored=meaning.name != "egohos")


def test_samples_that_are_no_ground_truth_are_left_out_and_counted(mixed: ShardIndex) -> None:
    rows = mixed.select(split="val")
    found = evaluate(mixed, rows, TASK, ByBrightness(), truth=NoGroundTruth(mixed), details=True)
    assert found.not_scored == {"ego": 5} and found.pooled.samples == 4 and set(found.by_source) == {"wrist"}
    assert found.to_json()["not_scored"] == {"ego": 5}
    own = evaluate(mixed, mixed.select(split="val", source="wrist"), TASK, ByBrightness())
    assert found.pooled == own.pooled and own.not_scored == {}
    with pytest.raises(SelectionError, match=r"all 5 selected samples \(ego\) are no ground truth"):
        evaluate(mixed, mixed.select(split="val", source="ego"), TASK, ByBrightness(), truth=NoGroundTruth(mixed))


def test_nothing_selected_is_refused(mixed: ShardIndex) -> None:
    with pytest.raises(SelectionError, match="no sample"):
        evaluate(mixed, np.array([], dtype=np.int64), TASK, ByBrightness())


def test_a_row_counted_twice_is_refused(mixed: ShardIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof at the end notices what a faulty sharding of the rows would do."""
    monkeypatch.setattr("hotrain.evaluate.equal_size_batches", lambda *_: [[0], [1], [1]])
    with pytest.raises(SelectionError, match="counted 3 samples with key sum"):
        evaluate(mixed, np.array([0, 1, 2]), TASK, ByBrightness())


class Undecided(ByBrightness):
    """Everywhere background is likelier than hand and than arm, and less likely than both together."""

    def classes(
        self, prepared: Sequence[NDArray[Any]], size: tuple[int, int], folds: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        chances = {"background": 0.4, "hand": 0.35, "arm": 0.2, "object": 0.05}
        each = torch.tensor([chances[name] for name in TASK.classes])[None, :, None, None]
        assert folds is not None and len(folds) == len(prepared)
        return likeliest(each.expand(len(prepared), -1, size[1], size[0]), folds).numpy()


def test_answers_depend_on_the_extent_of_their_source(mixed: ShardIndex) -> None:
    """Batches hold samples of both sources: where arms are hands, everything is one, elsewhere nothing is."""
    found = evaluate(mixed, mixed.select(split="val"), TASK, Undecided(), batch_size=16).by_source
    assert (found["ego"].extent, found["wrist"].extent) == ("arm", "wrist")
    assert found["ego"].iou["background"] == 0 and found["ego"].iou["hand"]
    assert found["wrist"].iou["hand"] == 0


# Rows to evaluate and batch sizes: not divisible, one image size missing, fewer samples than ranks, one sample.
SELECTIONS = ((None, 4), ("val", 3), ("tail", 1), ("one", 2))


def chosen_rows(index: ShardIndex, name: str | None) -> NDArray[np.int64]:
    if name in ("tail", "one"):
        return np.arange(len(index) - (2 if name == "tail" else 1), len(index))
    return index.select(split=name)


def count_selections(folder: str) -> list[dict[str, Any]]:
    index = ShardIndex.open(folder)
    found = []
    for name, batch_size in SELECTIONS:
        rows = chosen_rows(index, name)
        truth = StoredTruth(index)
        extents = source_extents(index, rows, TASK, truth, "wrist")
        counts = count(index, rows, TASK, ByBrightness(), truth, extents, batch_size)
        matrices = {source: matrix.tolist() for source, matrix in counts.matrices.items()}
        found.append({"matrices": matrices, "samples": counts.samples})
    return found


def _count_in_group(rank: int, world: int, port: int, folder: str, out: str) -> None:
    faulthandler.dump_traceback_later(100, exit=True)  # the watchdog: a rank that hangs says where, and ends
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    from hotrain.distributed import join_group, leave_group

    torch.set_num_threads(1)
    join_group("cpu")
    (Path(out) / f"{world}-{rank}.json").write_text(json.dumps(count_selections(folder)))
    index = ShardIndex.open(folder)
    found = evaluate(index, index.select(), TASK, ByBrightness(), batch_size=4, details=True)
    assert found.details is not None
    (Path(out) / f"figures-{rank}.json").write_text(json.dumps(document(found, scorecard(found.details))))
    np.save(Path(out) / f"{rank}.npy", found.details.values)
    leave_group()


@pytest.mark.parametrize("world", [3, *(pytest.param(world, marks=pytest.mark.soak) for world in (1, 2, 5, 7))])
def test_any_number_of_processes_counts_the_same(mixed: ShardIndex, tmp_path: Path, world: int) -> None:
    """Identical int64 matrices on every rank, with one thread each; more ranks than shards or samples included."""
    folder = str(mixed.shards[0].parent)
    found = evaluate(mixed, mixed.select(), TASK, ByBrightness(), batch_size=4, details=True)
    assert found.details is not None and (found.details.values.sum((1, 2)) > 0).all()
    figures = json.loads(json.dumps(document(found, scorecard(found.details))))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hotrain.evaluate"])
    group = [
        context.Process(target=_count_in_group, args=(rank, world, port, folder, str(tmp_path)))
        for rank in range(world)
    ]
    for process in group:
        process.start()
    for process in group:
        process.join(120)
        assert process.exitcode == 0
    alone = json.loads(json.dumps(count_selections(folder)))
    for rank in range(world):
        assert json.loads((tmp_path / f"{world}-{rank}.json").read_text()) == alone
        assert json.loads((tmp_path / f"figures-{rank}.json").read_text()) == figures
        np.testing.assert_array_equal(np.load(tmp_path / f"{rank}.npy"), found.details.values)
    for (name, _), counted in zip(SELECTIONS, alone, strict=True):
        assert sum(counted["samples"].values()) == len(chosen_rows(mixed, name))


def test_logits_are_resized_to_the_image_and_argmax_is_taken_there() -> None:
    torch.manual_seed(0)
    model = create_model("lraspp_mobilenet_v3_large", 3).train()
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    predictor = NetworkPredictor(model, InputRule(64), IMAGENET_MEAN, IMAGENET_STD, torch.device("cpu"))
    found = predictor.classes([predictor.prepare(image)] * 2, (120, 90))
    assert model.training

    small = torch.from_numpy(InputRule(64).resize(image).copy()).permute(2, 0, 1)[None].float() / 255
    small = (small - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    with torch.no_grad():
        logits = model.eval()(small)["out"]
    expected = functional.interpolate(logits, (90, 120), mode="bilinear").argmax(1).numpy()[0]
    assert found.shape == (2, 90, 120) and found.dtype == np.uint8
    assert (found[0] == expected).mean() > 0.999
    np.testing.assert_array_equal(found[0], found[1])
