"""The values of an expression's parts: numbers in NumPy, text and lists in Arrow."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Callable[[str], "pa.Array | pa.ChunkedArray"]
Value = Callable[[Columns], Any]
CONDITION, NUMBER, TEXT, LIST = "true or false", "a number", "text", "a list"
COMPARISONS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "=": (operator.eq, "equal"),
    "==": (operator.eq, "equal"),
    "<>": (operator.ne, "not_equal"),
    "!=": (operator.ne, "not_equal"),
    "<": (operator.lt, "less"),
    "<=": (operator.le, "less_equal"),
    ">": (operator.gt, "greater"),
    ">=": (operator.ge, "greater_equal"),
}
ARITHMETIC = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.true_divide}


@dataclass(frozen=True)
class Node:
    """A part of an expression: what kind of value it has, where it stands, and how to get that value."""

    kind: str
    start: int
    stop: int
    value: Value
    constant: bool = False
    parts: tuple[Node, ...] = ()  # of an `and` on the top level


def column(name: str, kind: pa.DataType) -> tuple[str, Value]:
    """What kind of value a column of this Arrow type has, and how to get it."""
    import pyarrow.types as kinds

    if kinds.is_string(kind):
        return TEXT, lambda columns: _strings(columns(name))
    if kinds.is_list(kind):
        return LIST, lambda columns: _whole(columns(name))
    if kinds.is_boolean(kind):
        return CONDITION, lambda columns: _mask(columns(name))
    return NUMBER, lambda columns: _numbers(columns(name))


def joined(join: np.ufunc, parts: Sequence[Node]) -> Value:
    """`and` or `or` of conditions."""

    def value(columns: Columns) -> Any:
        result = parts[0].value(columns)
        for part in parts[1:]:
            result = join(result, part.value(columns))
        return result

    return value


def negated(node: Node) -> Value:
    return lambda columns: np.logical_not(node.value(columns))


def calculated(sign: str, left: Node, right: Node) -> Value:
    return lambda columns: ARITHMETIC[sign](left.value(columns), right.value(columns))


def compared(left: Node, sign: str, right: Node) -> Value:
    """Two values of one kind."""
    plain, of_arrow = COMPARISONS[sign]
    if left.kind != TEXT or (left.constant and right.constant):
        return lambda columns: plain(left.value(columns), right.value(columns))

    def value(columns: Columns) -> Any:
        import pyarrow.compute as pc

        return _mask(getattr(pc, of_arrow)(left.value(columns), right.value(columns)))

    return value


def among(left: Node, choices: Sequence[Node]) -> Value:
    """Whether a value is one of some constants."""

    def value(columns: Columns) -> Any:
        of, values = left.value(columns), [choice.value(columns) for choice in choices]
        if left.kind != TEXT or left.constant:
            return np.logical_or.reduce([of == item for item in values])
        import pyarrow as pa
        import pyarrow.compute as pc

        return _mask(pc.is_in(of, value_set=pa.array(values)))

    return value


def like(left: Node, pattern: Node) -> Value:
    """SQL's pattern: `%` any text, `_` one character."""

    def value(columns: Columns) -> Any:
        import pyarrow.compute as pc

        return _mask(pc.match_like(left.value(columns), pattern=pattern.value(columns)))

    return value


def in_lists(text: Node, lists: Node) -> Value:
    """Which lists hold a text."""

    def value(columns: Columns) -> Any:
        import pyarrow.compute as pc

        whole = lists.value(columns)
        found = np.zeros(len(whole), dtype=bool)
        holds = _mask(pc.equal(pc.list_flatten(whole), text.value(columns)))
        found[pc.list_parent_indices(whole).to_numpy()[holds]] = True
        return found

    return value


def lengths(lists: Node) -> Value:
    """How many items each list has."""

    def value(columns: Columns) -> Any:
        import pyarrow.compute as pc

        return _numbers(pc.list_value_length(lists.value(columns)))

    return value


def _mask(array: Any) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = _whole(array).to_numpy(zero_copy_only=False)
    return mask


def _numbers(array: Any) -> NDArray[Any]:
    """Integers to 64 bits, so that products fit; float32 stays, so that 0.3 equals a stored 0.3."""
    values: NDArray[Any] = _whole(array).to_numpy(zero_copy_only=False)
    return values if values.dtype.kind == "f" else values.astype(np.int64)


def _strings(array: Any) -> Any:
    import pyarrow as pa

    return array.cast(pa.string()) if pa.types.is_dictionary(array.type) else array


def _whole(array: Any) -> Any:
    import pyarrow as pa

    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
