"""Which rows an expression chooses: a small SQL-like WHERE over the columns of the index, never evaluated as code.

    source = 'ho3d_v3' and held and visible_fraction_hand > 0.3
    split in ('train', 'val') and not (group like 'ho3d/SM%' or 'mug' in objects)
    count(hand_boxes) = 2 and pixels_hand between 500 and 0.2 * width * height

Words may be in capitals; text stands in '...' or "...", a quote in it is doubled. Binding, loosest first:

    condition  = both {"or" both}          both = negation {"and" negation}          negation = ["not"] comparison
    comparison = sum [compare sum | ["not"] ("in" list | "in" column | "like" text | "between" sum "and" sum)]
    sum        = product {("+" | "-") product}      product = factor {("*" | "/") factor}      factor = ["-"] atom
    atom       = column | number | text | "true" | "false" | "count" "(" column ")" | "(" condition ")"
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hodata.shards.where_parser import Parser
from hodata.shards.where_values import Columns


class Where:
    """A checked expression.

    Args:
        expression: see the module's text.

    Raises:
        WhereError: it is no condition, names no column of an index, or mixes text and numbers.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._root = Parser(expression).parse()

    @property
    def parts(self) -> list[str]:
        """The expression cut at its outermost `and`s."""
        return [self.expression[node.start : node.stop] for node in self._root.parts or (self._root,)]

    def masks(self, columns: Columns, rows: int) -> list[NDArray[np.bool_]]:
        """For each of `parts`: bool [rows], True where it holds.

        Args:
            columns: gives a column of an index (text may be dictionary-encoded).
            rows: how many there are.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            found = [np.asarray(node.value(columns)) for node in self._root.parts or (self._root,)]
        return [np.broadcast_to(mask, (rows,)).astype(bool) for mask in found]

    def mask(self, columns: Columns, rows: int) -> NDArray[np.bool_]:
        """bool [rows]: True where the whole expression holds."""
        return np.logical_and.reduce(self.masks(columns, rows))
