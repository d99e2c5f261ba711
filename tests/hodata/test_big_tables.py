"""Big tables: the same numbers as json.load, whatever the file's spacing and the chunk; bad input by row."""

from __future__ import annotations

import io
import json
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hodata.errors import SourceError
from hodata.sources import big_tables
from hodata.sources.big_tables import cache_folder, is_converted, split_rows, table
from hodata.sources.freihand_tables import Tables


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HODATA_CACHE", str(tmp_path / "cache"))


def write(folder: Path, text: str) -> Path:
    path = folder / "numbers.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 2)])
@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 1}])
@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_rows_are_those_of_json(
    tmp_path: Path, shape: tuple[int, ...], style: dict, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(big_tables, "CHUNK", chunk)
    rows = np.random.default_rng(0).normal(size=(9, *shape)) * 10.0 ** np.arange(-4, 5).reshape(-1, *[1] * len(shape))
    path = write(tmp_path, " \n" + json.dumps(rows.tolist(), **style) + "\n")
    read = table(path, shape)
    assert isinstance(read, np.memmap) and not read.flags.writeable
    np.testing.assert_array_equal(read, rows)
    np.testing.assert_array_equal(table(path, shape, np.float32), rows.astype(np.float32))


def test_numbers_are_read_to_the_last_bit(tmp_path: Path) -> None:
    numbers = [0, -0.0, 1e-320, 0.1 + 0.2, 1.7976931348623157e308, 123456789012345678, 1e22, 5e-324]
    read = table(write(tmp_path, json.dumps(numbers)), ())
    np.testing.assert_array_equal(read.view(np.int64), np.array(numbers, dtype=float).view(np.int64))
    with pytest.raises(SourceError, match="row 1 "):
        table(write(tmp_path, "[1, 01, 2]"), ())


def test_an_empty_list_is_a_table_without_rows(tmp_path: Path) -> None:
    assert table(write(tmp_path, " [ ] "), (3,)).shape == (0, 3)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="[],1 -e.N", max_size=14), st.integers(1, 5))
def test_splitting_accepts_only_what_json_accepts(text: str, chunk: int) -> None:
    """Whatever is cut without an error, joined again, is the text; and JSON that is a list is never refused."""
    old, big_tables.CHUNK = big_tables.CHUNK, chunk
    try:
        rows = list(split_rows(io.BytesIO(text.encode()), longest=100))
    except ValueError:
        rows = None
    finally:
        big_tables.CHUNK = old
    if rows is not None:
        assert ("[" + ",".join(row.decode() for row in rows) + "]").replace(" ", "") == text.replace(" ", "")
    try:
        value = json.loads(text)
    except ValueError:
        return
    if isinstance(value, list):
        assert (rows is not None and [json.loads(row) for row in rows] == value) or "NaN" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[1, 2], [3]]", r"row 1 .*shape \[1\], expected \[2\]"),
        ("[[1, 2], [3, [4]]]", "row 1 .*not a regular list"),
        ("[[1, 2], [3, NaN]]", "row 1 .*NaN or Infinity"),
        ("[[1, 2], [3, -Infinity]]", "row 1 .*NaN or Infinity"),
        ("[[1, 2], [3, 1e999]]", "row 1 .*(too large|regular)"),
        ("[[1, 2], [3, null]]", "row 1 .*'null'"),
        ('[[1, 2], [3, "4"]]', "row 1 .*only numbers belong"),
        ("[[1, 2], [3, true]]", "row 1 .*'true'|row 1 .*only numbers"),
        ("[[1, 2],, [3, 4]]", "row 1 "),
        ("[[1, 2], [3, 4],]", "row 2 "),
        ("[[1, 2], [3 4]]", "row 1 "),
        ("[[1, 2], [3, 4]", "row 1 .*ends in the middle"),
        ("[[1, 2], [3, 4]]]", "row 2 .*not a list of rows"),
        ("[[1, 2], [3, 4]] [5]", "row 2 .*something follows"),
        ("[[1, 2], [3, 4]] 5", "row 2 .*something follows"),
        ("[[1, 2]], [[3, 4]]", "row 1 .*something follows"),
        ('{"a": [1, 2]}', "row 0 .*not a list of rows"),
        ("", "row 0 .*not a list of rows"),
        ("12", "row 0 .*not a list of rows"),
        ("[" * 100_000, "row 0 "),
        ("[[1, 2], [3, " + " " * 20_000, "row 1 .*longer than"),
    ],
)
def test_bad_tables_name_file_and_row(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SourceError, match=rf"(?s)numbers\.json: {said}"):
        table(path, (2,))
    assert not list(cache_folder().iterdir()), "nothing half-made is left"


def test_nan_is_kept_where_single_bad_rows_are_allowed(tmp_path: Path) -> None:
    read = table(write(tmp_path, "[[1, NaN], [-Infinity, 4]]"), (2,), finite=False)
    np.testing.assert_array_equal(read, [[1, np.nan], [-np.inf, 4]])


def test_a_copy_is_used_until_the_file_changes(tmp_path: Path) -> None:
    path = write(tmp_path, "[[1, 2]]")
    read: list[int] = []
    assert not is_converted(path, (2,))
    assert table(path, (2,), report=read.append).tolist() == [[1, 2]]
    assert sum(read) == path.stat().st_size and is_converted(path, (2,))
    read.clear()
    table(path, (2,), report=read.append)
    assert not read, "mapped, not read again"
    facts = path.stat()
    path.write_text("[[3, 4]]")  # same size, a later time
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert table(path, (2,)).tolist() == [[3, 4]]
    assert len(list(cache_folder().iterdir())) == 1, "the copy of the old file is gone"
    other = tmp_path / "elsewhere" / "numbers.json"
    other.parent.mkdir()
    other.write_text("[[5, 6]]")
    assert table(other, (2,)).tolist() == [[5, 6]] and table(path, (2,)).tolist() == [[3, 4]]


def test_a_damaged_copy_is_made_again(tmp_path: Path) -> None:
    path = write(tmp_path, "[[1, 2], [3, 4]]")
    table(path, (2,))
    (copy,) = cache_folder().iterdir()
    copy.write_bytes(copy.read_bytes()[:-9])
    assert table(path, (2,)).tolist() == [[1, 2], [3, 4]]
    copy.write_bytes(b"")
    assert table(path, (2,)).tolist() == [[1, 2], [3, 4]]


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "[1]")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HODATA_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceError, match=r"cannot be written.*HODATA_CACHE"):
        table(path, ())
    with pytest.raises(SourceError, match=r"missing\.json: cannot be read"):
        table(tmp_path / "missing.json", ())
    monkeypatch.setenv("HODATA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(SourceError, match=r"folder\.json: cannot be read"):
        table(tmp_path / "folder.json", ())


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    row = json.dumps(np.random.default_rng(0).normal(size=(778, 3)).tolist())

    def peak(rows: int) -> int:
        path = write(tmp_path, "[" + ", ".join([row] * rows) + "]")
        tracemalloc.start()
        try:
            table(path, (778, 3), np.float32)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)
    assert peak(120) < 1.2 * peak(40), "6 MB of text need what 2 MB need"


def test_tables_travel_to_workers_without_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "training_K.json").write_text(json.dumps(np.ones((5000, 3, 3)).tolist()))
    tables = Tables(tmp_path, with_vertices=False)
    tables.prepare()
    sent = pickle.dumps(tables)
    assert len(sent) < 1000
    K = pickle.loads(sent).annotation("training", 4999).K
    assert K is not None and K.tolist() == np.ones((3, 3)).tolist()


def test_tables_of_different_lengths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "training_K.json").write_text(json.dumps(np.ones((4, 3, 3)).tolist()))
    (tmp_path / "training_scale.json").write_text(json.dumps([1.0] * 5))
    with pytest.raises(SourceError, match=r"training_K\.json has 4, training_scale\.json has 5"):
        Tables(tmp_path, with_vertices=False).prepare()


def test_progress_counts_megabytes_of_what_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hodata.sources.freihand_tables.LONG", 1)
    monkeypatch.setattr("hodata.sources.freihand_tables._MB", 1)
    (tmp_path / "training_K.json").write_text(json.dumps(np.ones((4, 3, 3)).tolist()))
    calls: list[tuple[int, int]] = []
    Tables(tmp_path, with_vertices=False).prepare(lambda *call: calls.append(call))
    size = (tmp_path / "training_K.json").stat().st_size
    assert calls[-1] == (size, size)
    calls.clear()
    Tables(tmp_path, with_vertices=False).prepare(lambda *call: calls.append(call))
    assert not calls
