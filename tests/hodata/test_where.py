"""Expressions: against Python's own judgement row by row, against SQLite, and errors that show the place."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hodata.errors import WhereError
from hodata.shards.index import schema
from hodata.shards.where import Where

ROWS = 60


def draw(seed: int = 0) -> pa.Table:
    """An index of few different values, so that every comparison has both answers."""
    rng = np.random.default_rng(seed)
    columns = []
    for item in schema():
        if pa.types.is_string(item.type):
            columns.append(rng.choice(["ho3d", "egohos", "it's", "a%b", "", "Ärmel"], ROWS).tolist())
        elif pa.types.is_boolean(item.type):
            columns.append((rng.random(ROWS) < 0.5).tolist())
        elif pa.types.is_floating(item.type):
            columns.append(rng.choice(np.float32([-1, 0, 0.3, 0.7, 1]), ROWS).tolist())
        elif item.name == "objects":
            columns.append([rng.choice(["mug", "box", "can"], rng.integers(0, 3)).tolist() for _ in range(ROWS)])
        elif pa.types.is_list(item.type):
            columns.append([[[1, 2, 3, 4]] * int(rng.integers(0, 3)) for _ in range(ROWS)])
        else:
            columns.append(rng.integers(0, 5, ROWS).tolist())
    return pa.table(
        [pa.array(values, item.type) for values, item in zip(columns, schema(), strict=True)], schema=schema()
    )


TABLE = draw()


def mask(expression: str, table: pa.Table = TABLE) -> list[bool]:
    found = Where(expression).mask(table.column, len(table))
    assert found.dtype == bool
    assert found.shape == (len(table),)
    return found.tolist()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("source = 'ho3d'", lambda r: r["source"] == "ho3d"),
        ('source == "ho3d"', lambda r: r["source"] == "ho3d"),
        ("source <> 'ho3d' and split != \"egohos\"", lambda r: r["source"] != "ho3d" and r["split"] != "egohos"),
        ("source = 'it''s'", lambda r: r["source"] == "it's"),
        ("'ho3d' = source", lambda r: r["source"] == "ho3d"),
        ("source = split", lambda r: r["source"] == r["split"]),
        ("source < 'egohot'", lambda r: r["source"] < "egohot"),
        ("held", lambda r: r["held"]),
        ("NOT held", lambda r: not r["held"]),
        ("held = false", lambda r: not r["held"]),
        ("held <> (frame > 2)", lambda r: r["held"] != (r["frame"] > 2)),
        ("visible_fraction_hand > 0.3", lambda r: r["visible_fraction_hand"] > np.float32(0.3)),
        ("visible_fraction_hand = 0.3", lambda r: r["visible_fraction_hand"] == np.float32(0.3)),
        ("visible_fraction_hand in (-1, .3)", lambda r: r["visible_fraction_hand"] in (-1, np.float32(0.3))),
        ("frame between 1 and 3", lambda r: 1 <= r["frame"] <= 3),
        ("frame not between 1 and 3 or held", lambda r: not 1 <= r["frame"] <= 3 or r["held"]),
        ("frame in (1, 4)", lambda r: r["frame"] in (1, 4)),
        ("source not in ('ho3d', 'a%b')", lambda r: r["source"] not in ("ho3d", "a%b")),
        ("source like 'ego%'", lambda r: r["source"].startswith("ego")),
        ("source not like '_o%'", lambda r: r["source"][1:2] != "o"),
        ("source like 'Ärm__'", lambda r: r["source"] == "Ärmel"),
        ("'mug' in objects", lambda r: "mug" in r["objects"]),
        ("'mug' not in objects", lambda r: "mug" not in r["objects"]),
        ("count(objects) = 2 or COUNT( hand_boxes ) >= 1", lambda r: len(r["objects"]) == 2 or r["hand_boxes"] != []),
        ("frame + 2 * width - 1 > height / 2", lambda r: r["frame"] + 2 * r["width"] - 1 > r["height"] / 2),
        ("-frame < -2", lambda r: r["frame"] > 2),
        ("frame / width > 1", lambda r: r["frame"] > r["width"] if r["width"] else r["frame"] > 0),
        ("held or frame = 1 and width = 2", lambda r: r["held"] or (r["frame"] == 1 and r["width"] == 2)),
        ("(held or frame = 1) and width = 2", lambda r: (r["held"] or r["frame"] == 1) and r["width"] == 2),
        ("not held and frame = 1", lambda r: not r["held"] and r["frame"] == 1),
        ("not (held and frame = 1)", lambda r: not (r["held"] and r["frame"] == 1)),
        ("1 = 1", lambda r: True),
        ("'a' = 'b'", lambda r: False),
        ("frame < 1e2 and frame >= 0.", lambda r: True),
    ],
)
def test_each_row_is_judged_as_python_judges_it(expression: str, expected: Any) -> None:
    wanted = [bool(expected(row)) for row in TABLE.to_pylist()]
    assert mask(expression) == wanted
    assert any(wanted) or "'b'" in expression


LEAVES = st.one_of(
    st.builds(
        "{} {} {}".format,
        st.sampled_from(["frame", "width", "height", "pixels_hand", "visible_fraction_hand"]),
        st.sampled_from(["=", "<>", "<", "<=", ">", ">="]),
        st.sampled_from(["0", "2", "-1", "0.5", "width", "2 * frame - 1", "(3 + height) / 2.0"]),
    ),
    st.builds(
        "{} {} '{}'".format,
        st.sampled_from(["source", "split", "group"]),
        st.sampled_from(["=", "<>", "<", ">=", "not like", "like"]),
        st.sampled_from(["ho3d", "it''s", "ego%", "_o3d", ""]),
    ),
    st.sampled_from(
        ["held", "held = true", "frame in (0, 2)", "source not in ('ho3d', '')", "frame between 1 and width"]
    ),
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("{} or {}".format, inner, inner),
        st.builds("not {}".format, inner.map("({})".format)),
        st.builds("{} and {}".format, inner, inner),
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def sqlite() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("pragma case_sensitive_like = on")
    scalar = [item.name for item in schema() if not pa.types.is_list(item.type)]
    connection.execute(f"create table t ({', '.join(f'[{name}]' for name in scalar)})")
    rows = [tuple(row[name] for name in scalar) for row in TABLE.to_pylist()]
    connection.executemany(f"insert into t values ({', '.join('?' * len(scalar))})", rows)
    return connection


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS)
def test_sqlite_chooses_the_same_rows(sqlite: sqlite3.Connection, expression: str) -> None:
    chosen = {
        row for (row,) in sqlite.execute(f"select rowid - 1 from t where {expression.replace('group', '[group]')}")
    }
    assert set(np.flatnonzero(mask(expression)).tolist()) == chosen


def test_dictionary_encoded_text_gives_the_same_answer() -> None:
    coded = {name: TABLE.column(name).dictionary_encode() for name in ("source", "split", "group")}
    for expression in ("source = 'ho3d'", "source like '%o%' or split in ('egohos')", "group < source"):
        found = Where(expression).mask(lambda name: coded.get(name, TABLE.column(name)), ROWS)
        assert found.tolist() == mask(expression)


def test_parts_are_the_outermost_ands() -> None:
    where = Where(" (held and frame = 1) AND (width = 2 or height = 3) ")
    assert where.parts == ["(held and frame = 1)", "(width = 2 or height = 3)"]
    assert Where("held").parts == ["held"]
    both = np.logical_and.reduce(where.masks(TABLE.column, ROWS))
    assert both.tolist() == mask("held and frame = 1 and (width = 2 or height = 3)")


def test_nothing_but_the_grammar_is_understood() -> None:
    assert mask("held") == mask("held", TABLE.append_column("evil", pa.array(["x"] * ROWS)))
    for text in (
        "__import__('os').system('true')",
        "held; drop table x",
        "lambda: held",
        "held -- comment",
        "evil = 'x'",
    ):
        with pytest.raises(WhereError):
            Where(text)


@pytest.mark.parametrize(
    ("expression", "what", "under"),
    [
        ("sorce = 'x'", "no column 'sorce'; there are source", "sorce"),
        ("pixels > 3", "no column 'pixels'; there are pixels_", "pixels"),
        ("source = ho3d", "no column 'ho3d'; text stands in quotes: 'ho3d'", "ho3d"),
        ("held and frame = 'x'", "frame is a number (int64), and 'x' is text", "frame = 'x'"),
        ("source > 3", "source is text (string), and 3 is a number", "source > 3"),
        ("split = 'train' and frame", "frame is a number (int64), not true or false; compare it: > 0", "frame"),
        ("objects", "compare it: in the form 'name' in objects", "objects"),
        ("held < true", "true and false have no order", "held < true"),
        ("source in ('a', 1)", "1 is a number, expected text beside source", "1"),
        ("frame in objects", "only quoted text can be looked for in a list: 'mug' in objects", "f"),
        ("'x' in hand_boxes", "is a list of boxes", "hand_boxes"),
        ("count(source) = 1", "source is text (string), expected a list", "source"),
        ("frame like 'x'", "frame is a number (int64), expected text", "frame"),
        ("source like split", "only numbers and quoted text", "split"),
        ("source = 'x", "a quote is not closed", "'x"),
        ("held # x", "'#' means nothing here", "#"),
        ("(held", "the expression ends, expected ')'", ""),
        ("held held", "found 'held', expected 'and', 'or' or the end", "held"),
        ("held and", "the expression ends, expected a column", ""),
        ("frame between 1 or 2", "found 'or', expected 'and' and the upper bound", "or"),
        ("frame not 3", "found '3', expected 'in', 'like' or 'between'", "3"),
        ("frame = 1 = 2", "found '=', expected", "="),
        ("   ", "the expression ends", ""),
        ("(" * 80 + "held" + ")" * 80, "nested more than 50 deep", "("),
        ("not " * 80 + "held", "nested more than 50 deep", "n"),
        ("- " * 80 + "frame > 0", "nested more than 50 deep", "-"),
    ],
)
def test_errors_show_the_place_and_the_cure(expression: str, what: str, under: str) -> None:
    with pytest.raises(WhereError) as caught:
        Where(expression)
    message, line, carets = str(caught.value).split("\n")
    assert what in message
    assert line == f"  {expression}"
    start, length = carets.index("^"), carets.count("^")
    assert line[start : start + length] == under or (under == "" and start == len(line))


def test_a_hostile_length_is_refused_at_once() -> None:
    with pytest.raises(WhereError, match="over the limit"):
        Where("held or " * 100_000 + "held")
