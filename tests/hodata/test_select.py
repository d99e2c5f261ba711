"""Choosing samples: rows, counts of an empty selection, keys of a file, and columns that are read late."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from test_cli import run

from hodata.build import BuildOptions, build
from hodata.errors import EmptySelectionError, HodataError, ShardError, WhereError
from hodata.shards import rows
from hodata.shards.index import schema
from hodata.shards.reader import ShardIndex
from hodata.shards.select import Selector, read_keys, select_rows
from hodata.sources.freihand import FreiHand


@pytest.fixture
def built(freihand_root: Path, tmp_path: Path) -> Path:
    """Shards of 48 + 3 samples, 10 a shard."""
    build(FreiHand(freihand_root), tmp_path / "out", BuildOptions("freihand", samples_per_shard=10))
    return tmp_path / "out"


def test_rows_are_those_of_expression_split_and_keys_together(built: Path) -> None:
    index = ShardIndex.open(built)
    keys, splits, frames = (index.column(name) for name in ("key", "split", "frame"))
    excluded = frozenset(keys[[0, 7, 9]].tolist())
    found = select_rows(index, Selector("frame < 10", excluded), "train")
    wanted = [
        row for row in range(len(index)) if splits[row] == "train" and frames[row] < 10 and keys[row] not in excluded
    ]
    assert found.rows.tolist() == wanted
    assert found.notes == []
    assert select_rows(index, Selector()).rows.tolist() == list(range(51))


def test_an_empty_selection_says_what_each_part_left(built: Path) -> None:
    index = ShardIndex.open(built)
    everything = frozenset(index.column("key").tolist())
    with pytest.raises(EmptySelectionError) as caught:
        select_rows(index, Selector("width = 32 and split = 'test' and frame > 1000", everything), "train")
    assert str(caught.value).splitlines() == [
        "no sample is selected of 51",
        "  51 left by  width = 32",
        "   3 left by  split = 'test'",
        "   0 left by  frame > 1000",
        "   0 left by  not among 51 excluded keys",
        "   0 left by  split train",
    ]


def test_excluded_keys_that_are_nowhere_become_a_note(built: Path) -> None:
    index = ShardIndex.open(built)
    keys = frozenset({index.column("key")[3], "nobody", "nothing"})
    found = select_rows(index, Selector(exclude=keys))
    assert len(found.rows) == 50
    assert found.notes == ["2 of 3 excluded keys are in none of the shards; the first: 'nobody'"]


def test_keys_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_bytes("\ufeff# blurred\r\na_1\r\n\n  b_2  \n".encode())
    assert read_keys(path) == ["a_1", "b_2"]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HodataError, match=r"keys\.txt: cannot be read as a list of keys"):
        read_keys(path)
    with pytest.raises(HodataError, match="cannot be read"):
        read_keys(tmp_path / "no.txt")


def test_a_selector_is_checked_when_made_and_pickles() -> None:
    with pytest.raises(WhereError):
        Selector("held and")
    selector = pickle.loads(pickle.dumps(Selector("held", frozenset({"a"}))))
    assert (selector.where, selector.exclude, bool(selector)) == ("held", {"a"}, True)
    assert not Selector("  ")


def test_columns_read_late_are_the_same(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early = ShardIndex.open(built)
    monkeypatch.setattr(rows, "LAZY_ROWS", 1)
    for index in (ShardIndex.open(built), ShardIndex.open([built / "*-000001.tar", built / "*test*.tar"])):
        kept = np.isin(early.column("shard"), [path.name for path in index.shards])
        for item in schema():
            assert index.arrow(item.name).to_pylist() == early.arrow(item.name).filter(kept.tolist()).to_pylist()
            assert str(index.column(item.name)) == str(early.column(item.name)[kept])
        assert index.table.equals(early.table.filter(kept.tolist()))
        assert index.data_hash(np.arange(len(index))) == early.data_hash(np.flatnonzero(kept))
        assert index.reader().json(3) == early.reader().json(int(np.flatnonzero(kept)[3]))
        wanted = np.intersect1d(select_rows(early, Selector("frame < 9")).rows, np.flatnonzero(kept))
        assert np.flatnonzero(kept)[select_rows(index, Selector("frame < 9")).rows].tolist() == wanted.tolist()


def test_a_key_twice_is_found_although_columns_are_read_late(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LAZY_ROWS", 1)
    ShardIndex.open(built)
    second = tmp_path / "second"
    second.mkdir()
    for path in built.iterdir():
        os.link(path, second / path.name)
    with pytest.raises(ShardError, match=r"stands in .*out.* and in .*second"):
        ShardIndex.open([built, second])


def test_an_index_replaced_while_it_is_open_is_refused(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LAZY_ROWS", 1)
    index = ShardIndex.open(built)
    path = built / "freihand.index"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(0, 0))
    with pytest.raises(ShardError, match="was replaced while it was read"):
        index.column("frame")


def test_the_command_line_inspects_a_selection(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys.txt"
    test = [key for key in ShardIndex.open(built).column("key") if "evaluation" in key]
    keys.write_text(f"{test[0]}\nnobody\n")
    code, text, messages = run(
        capsys,
        "inspect",
        built,
        "--where",
        "split = 'test'",
        "--exclude",
        keys,
        "--json",
        "--html",
        tmp_path / "p.html",
    )
    summary = json.loads(text)
    assert (code, summary["samples"], summary["shards"], list(summary["splits"])) == (0, 2, 1, ["test"])
    assert "note: 1 of 2 excluded keys are in none of the shards; the first: 'nobody'" in messages
    page = (tmp_path / "p.html").read_text()
    assert "2 of 2 samples are on this page" in page
    assert test[0] not in page
    code, text, messages = run(capsys, "inspect", built, "--where", "splitt = 'test'")
    assert (code, text) == (2, "")
    assert "error: no column 'splitt'; there are split\n  splitt = 'test'\n  ^^^^^^\n" in messages
    code, text, messages = run(capsys, "inspect", built, "--where", "split = 'tset'")
    assert (code, text) == (1, "")
    assert "no sample is selected of 51\n   0 left by  split = 'tset'" in messages
