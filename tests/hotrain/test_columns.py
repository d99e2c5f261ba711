"""Columns of an index as numbers, and that a run reads no more of them than it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from drawn_shards import Spec

from hodata.shards.reader import ShardIndex
from hotrain.columns import coded, present
from hotrain.config import FitConfig
from hotrain.fit import fit


@pytest.mark.parametrize("name", ["source", "meaning", "image_kind", "group", "key"])
def test_coded_is_a_slow_look_at_each_row(opened: Callable[..., ShardIndex], name: str) -> None:
    index = opened(Spec("b", samples=5, kind="png"), Spec("a", "val", 4, "egohos"), Spec("c", "test", 3))
    slow = index.table.column(name).to_pylist()
    values, codes = coded(index, name)
    assert values == sorted(set(slow)) and [values[code] for code in codes] == slow and codes.dtype == np.int32
    rows = np.array([0, 3, 11])
    assert present(index, name, rows) == sorted({slow[row] for row in rows})
    # Of some shards alone: what others hold is not among the values.
    part = ShardIndex.open(index.shards[1:2])
    assert coded(part, name)[0] == sorted(set(part.table.column(name).to_pylist()))


def test_values_that_no_row_has_are_none() -> None:
    """A build's index lists the values of all its shards, of which some may be left out."""
    read = pa.DictionaryArray.from_arrays(pa.array([2, 2, 0], pa.int32()), ["b", "of another shard", "a"])
    values, codes = coded(SimpleNamespace(arrow=lambda name: read), "source")  # type: ignore[arg-type]
    assert values == ["a", "b"] and codes.tolist() == [0, 0, 1]


def test_a_run_does_not_read_the_whole_index(
    mixed: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a million samples all columns take seconds and hundreds of megabytes in every process."""

    def whole(self: ShardIndex) -> None:
        raise AssertionError("all columns are read")

    monkeypatch.setattr(ShardIndex, "table", property(whole))
    shards = (str(mixed.shards[0].parent),)
    options = {"model": "lraspp_mobilenet_v3_large", "weights": "none", "epochs": 1, "samples_per_epoch": 4}
    fit(FitConfig(shards, str(tmp_path / "run"), crop=32, batch_size=4, workers=0, device="cpu", **options))
    assert (tmp_path / "run" / "best.json").is_file()
