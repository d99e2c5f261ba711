"""The parser of `where`: tokens, grammar, and errors that show the place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import numpy as np

from hodata.errors import WhereError
from hodata.shards import where_values as values
from hodata.shards.where_values import COMPARISONS, CONDITION, LIST, NUMBER, TEXT, Node

_MAX_LENGTH, _MAX_DEPTH = 20_000, 50
_WORDS = frozenset(("and", "or", "not", "in", "like", "between", "true", "false", "count"))
_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign><>|!=|<=|>=|==|[=<>(),+*/-])|(?P<space>\s+)"
)


class Parser:
    """Recursive descent over the tokens (kind, text, start)."""

    def __init__(self, text: str) -> None:
        from hodata.shards.index import schema

        self.text = text
        if len(text) > _MAX_LENGTH:
            raise WhereError(f"the expression has {len(text):,} characters, over the limit of {_MAX_LENGTH:,}")
        self.types = {item.name: item.type for item in schema()}
        self.tokens: list[tuple[str, str, int]] = []
        place = 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                what = "a quote is not closed" if text[place] in "'\"" else f"{text[place]!r} means nothing here"
                self.fail(what, place, len(text) if text[place] in "'\"" else place + 1)
            kind = str(match.lastgroup)
            word = match[0].lower() if kind == "word" and match[0].lower() in _WORDS else match[0]
            if kind != "space":
                self.tokens.append(("keyword" if kind == "word" and word in _WORDS else kind, word, place))
            place = match.end()
        self.tokens.append(("end", "", len(text)))
        self.at = self.depth = 0

    def parse(self) -> Node:
        node = self.condition()
        if self.tokens[self.at][0] != "end":
            self.unexpected()
        return self.expect(node, CONDITION)

    def condition(self) -> Node:
        return self.chain(self.both, "or", np.logical_or)

    def both(self) -> Node:
        return self.chain(self.negation, "and", np.logical_and)

    def chain(self, operand: Callable[[], Node], word: str, join: np.ufunc) -> Node:
        nodes = [operand()]
        while self.accept(word):
            nodes.append(operand())
        if len(nodes) == 1:
            return nodes[0]
        parts = tuple(self.expect(node, CONDITION) for node in nodes)
        value = values.joined(join, parts)
        return Node(CONDITION, parts[0].start, parts[-1].stop, value, parts=parts if word == "and" else ())

    def negation(self) -> Node:
        start = self.tokens[self.at][2]
        if not self.accept("not"):
            return self.comparison()
        node = self.nested(lambda: self.expect(self.negation(), CONDITION))
        return Node(CONDITION, start, node.stop, values.negated(node))

    def comparison(self) -> Node:
        left = self.sum()
        kind, word, _ = self.tokens[self.at]
        if kind == "sign" and word in COMPARISONS:
            self.at += 1
            return self.compared(left, word, self.sum())
        negated = self.accept("not")
        if self.accept("in"):
            node = self.inside(left)
        elif self.accept("like"):
            pattern = self.expect(self.constant(), TEXT)
            if self.expect(left, TEXT).constant:
                self.fail("'like' goes with a column of text", left.start, left.stop)
            node = Node(CONDITION, left.start, pattern.stop, values.like(left, pattern))
        elif self.accept("between"):
            low = self.sum()
            if not self.accept("and"):
                self.unexpected("'and' and the upper bound")
            bounds = self.compared(left, ">=", low), self.compared(left, "<=", self.sum())
            node = Node(CONDITION, left.start, bounds[1].stop, values.joined(np.logical_and, bounds))
        elif negated:
            self.unexpected("'in', 'like' or 'between'")
        else:
            return left
        return replace(node, value=values.negated(node)) if negated else node

    def compared(self, left: Node, sign: str, right: Node) -> Node:
        if left.kind != right.kind or left.kind == LIST:
            what = f"{self.described(left)}, and {self.described(right)}: they cannot be compared"
            self.fail(what, left.start, right.stop)
        if left.kind == CONDITION and sign not in ("=", "==", "<>", "!="):
            self.fail(f"true and false have no order, {sign!r} cannot compare them", left.start, right.stop)
        return Node(CONDITION, left.start, right.stop, values.compared(left, sign, right))

    def inside(self, left: Node) -> Node:
        if not self.accept("("):
            column = self.expect(self.atom(), LIST)
            if not self.types[self.text[column.start : column.stop]].value_type.equals(self.types["key"]):
                self.fail("is a list of boxes; count(...) counts them", column.start, column.stop)
            if not left.constant or left.kind != TEXT:
                self.fail(f"only quoted text can be looked for in a list: 'mug' in {self.shown(column)}", left.start)
            return Node(CONDITION, left.start, column.stop, values.in_lists(left, column))
        choices = [self.expect(self.constant(), left.kind, left)]
        while self.accept(","):
            choices.append(self.expect(self.constant(), left.kind, left))
        stop = self.tokens[self.at][2] + 1
        if not self.accept(")"):
            self.unexpected("',' or ')'")
        return Node(CONDITION, left.start, stop, values.among(left, choices))

    def sum(self) -> Node:
        return self.calculated(self.product, ("+", "-"))

    def product(self) -> Node:
        return self.calculated(self.factor, ("*", "/"))

    def calculated(self, operand: Callable[[], Node], signs: tuple[str, str]) -> Node:
        left = operand()
        while (sign := self.tokens[self.at][1]) in signs and self.accept(sign):
            left, right = self.expect(left, NUMBER), self.expect(operand(), NUMBER)
            left = Node(NUMBER, left.start, right.stop, values.calculated(sign, left, right))
        return left

    def factor(self) -> Node:
        start = self.tokens[self.at][2]
        if not self.accept("-"):
            return self.atom()
        node = self.nested(lambda: self.expect(self.factor(), NUMBER))
        return replace(node, start=start, value=lambda columns: -node.value(columns))

    def constant(self) -> Node:
        node = self.factor()
        if not node.constant:
            self.fail("only numbers and quoted text can stand here", node.start, node.stop)
        return node

    def atom(self) -> Node:
        kind, word, start = self.tokens[self.at]
        stop = start + len(word)
        self.at += 1
        if kind == "number":
            return Node(NUMBER, start, stop, lambda columns: float(word), constant=True)
        if kind == "text":
            text = word[1:-1].replace(2 * word[0], word[0])
            return Node(TEXT, start, stop, lambda columns: text, constant=True)
        if word in ("true", "false") and kind == "keyword":
            return Node(CONDITION, start, stop, lambda columns: word == "true", constant=True)
        if word == "count" and kind == "keyword" and self.accept("("):
            column = self.expect(self.atom(), LIST)
            stop = self.tokens[self.at][2] + 1
            if not self.accept(")"):
                self.unexpected("')'")
            return Node(NUMBER, start, stop, values.lengths(column))
        if word == "(" and kind == "sign":
            node = self.nested(self.condition)
            stop = self.tokens[self.at][2] + 1
            if not self.accept(")"):
                self.unexpected("')'")
            return replace(node, start=start, stop=stop)
        if kind == "word":
            return self.column(word, start, stop)
        self.at -= 1
        return self.unexpected("a column, a number or quoted text")

    def column(self, name: str, start: int, stop: int) -> Node:
        if name not in self.types:
            self.fail(_no_column(name, list(self.types)), start, stop)
        kind, value = values.column(name, self.types[name])
        return Node(kind, start, stop, value)

    # ---- tokens and errors ----

    def accept(self, word: str) -> bool:
        kind, found, _ = self.tokens[self.at]
        if found != word or kind not in ("keyword", "sign"):
            return False
        self.at += 1
        return True

    def nested(self, parse: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"is nested more than {_MAX_DEPTH} deep", self.tokens[self.at][2])
        node = parse()
        self.depth -= 1
        return node

    def expect(self, node: Node, kind: str, beside: Node | None = None) -> Node:
        if node.kind == kind:
            return node
        if kind == CONDITION:
            cure = {NUMBER: "> 0", TEXT: "= '...'"}.get(node.kind, f"in the form 'name' in {self.shown(node)}")
            return self.fail(f"{self.described(node)}, not true or false; compare it: {cure}", node.start, node.stop)
        other = f" beside {self.described(beside)}" if beside else ""
        return self.fail(f"{self.described(node)}, expected {kind}{other}", node.start, node.stop)

    def described(self, node: Node) -> str:
        name = self.shown(node)
        return f"{name} is {node.kind}" + (f" ({self.types[name]})" if name in self.types else "")

    def shown(self, node: Node) -> str:
        return self.text[node.start : node.stop]

    def unexpected(self, expected: str = "'and', 'or' or the end") -> NoReturn:
        kind, word, start = self.tokens[self.at]
        found = "the expression ends" if kind == "end" else f"found {word!r}"
        self.fail(f"{found}, expected {expected}", start, start + len(word))

    def fail(self, what: str, start: int, stop: int = 0) -> NoReturn:
        line = re.sub(r"\s", " ", self.text)
        raise WhereError(f"{what}\n  {line}\n  {' ' * start}{'^' * max(stop - start, 1)}")


def _no_column(name: str, names: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name.lower(), names, 4, 0.6)
    near += [other for other in names if other not in near and (name.lower() in other or other in name.lower())]
    if near:
        return f"no column {name!r}; there are {', '.join(near[:6])}"
    return f"no column {name!r}; text stands in quotes: '{name}'; columns are {', '.join(names)}"
