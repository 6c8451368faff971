"""Whether two parsed answers say the same: lists, sets, intervals, matrices, relations, values."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from rewards.reading.expression import Node
from rewards.reading.values import TooLargeError, proportional, rounds, same_value, variables

CLOSE = 0.01
"""`x \\approx y` stands for y too, where y is this near."""


def same(gold: Node, answer: Node) -> bool:
    """Whether `answer` says the same as `gold`.

    Raises:
        TooLargeError: a value is too large to compute.
    """
    gold_items, answer_items = _alternatives(gold), _alternatives(answer)
    if "{" in (gold[1:2] + answer[1:2]):  # a set has each member once
        gold_items, answer_items = _distinct(gold_items), _distinct(answer_items)
    if len(gold_items) != len(answer_items):
        return False
    left = list(answer_items)
    for item in gold_items:  # order does not matter in lists and sets
        match = next((other for other in left if _same_item(item, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _distinct(items: list[Node]) -> list[Node]:
    kept: list[Node] = []
    for item in items[:MAX_MEMBERS]:
        if not any(_same_item(item, other) for other in kept):
            kept.append(item)
    return kept + items[MAX_MEMBERS:]


MAX_MEMBERS = 30
"""Members of a set that are compared with each other."""


def _alternatives(node: Any) -> list[Node]:
    """The members of a list or a set; both values of a plus-minus; else the node alone."""
    if node[0] == "list" or _is_set(node):
        items = node[1] if node[0] == "list" else node[3]
        apart = [[item] if _is_set(item) else _alternatives(item) for item in items]
        return [part for parts in apart for part in parts]
    if node[0] == "relation" and node[1][1:2] == ["="] and len(node[1]) == 3:
        left, _, right = node[1]
        rights = _alternatives(right)
        if len(rights) > 1:  # x = \pm 3
            return [("relation", [left, "=", value]) for value in rights]
    signs = _count(node, "plusminus")
    if signs == 0:
        return [node]
    if signs > 3:
        raise TooLargeError("too many plus-minus signs")
    return [_with_sign(node, 1), _with_sign(node, -1)]


def _is_set(node: Node) -> bool:
    return node[0] == "sequence" and node[1] == "{"


def _count(node: Any, kind: str) -> int:
    if not isinstance(node, tuple | list):
        return 0
    own = isinstance(node, tuple) and bool(node) and node[0] == kind
    return int(own) + sum(_count(child, kind) for child in node)


def _with_sign(node: Any, sign: int) -> Any:
    """Every plus-minus resolved: all plus signs, or all minus signs (`\\mp` the other way)."""
    if isinstance(node, list):
        return [_with_sign(child, sign) for child in node]
    if not isinstance(node, tuple):
        return node
    if node and node[0] == "plusminus":
        first, second = _with_sign(node[1], sign), _with_sign(node[2], sign)
        return ("add", first, second if sign * node[3] > 0 else ("negate", second))
    return tuple(_with_sign(child, sign) for child in node)


def _same_item(gold: Node, answer: Node) -> bool:
    if gold[0] == "relation" or answer[0] == "relation":
        return _same_relation(gold, answer)
    if "ratio" in (gold[0], answer[0]):
        return _same_ratio(gold, answer)
    if _is_set(gold) and _is_set(answer):
        return same(gold, answer)
    if gold[0] in ("sequence", "matrix") or answer[0] in ("sequence", "matrix"):
        return _same_structure(gold, answer)
    if "list" in (gold[0], answer[0]):
        return same(gold, answer)
    return same_value(gold, answer)


def _same_structure(gold: Node, answer: Node) -> bool:
    gold_rows, answer_rows = _rows(gold), _rows(answer)
    if gold_rows is None or answer_rows is None or gold_rows[0] != answer_rows[0]:
        return False
    gold_cells, answer_cells = gold_rows[1], answer_rows[1]
    return len(gold_cells) == len(answer_cells) and all(
        _same_item(first, second) for first, second in zip(gold_cells, answer_cells, strict=True)
    )


def _same_ratio(gold: Node, answer: Node) -> bool:
    """Whether 1:2:3 and 2:4:6 are in proportion. Terms are divided: 0:0:0 is no ratio."""
    if gold[0] != answer[0] or len(gold[1]) != len(answer[1]):
        return False
    first, other_first = gold[1][0], answer[1][0]
    return all(
        same_value(("divide", term, first), ("divide", other_term, other_first))
        for term, other_term in zip(gold[1][1:], answer[1][1:], strict=True)
    )


def _rows(node: Any) -> tuple[str, list[Node]] | None:
    """Shape and cells: a vector written as a row or a column of a matrix is a tuple."""
    if node[0] == "sequence" and node[1] != "{":
        return f"{node[1]}{node[2]}", node[3]
    if node[0] == "matrix":
        rows = node[1]
        widths = {len(row) for row in rows}
        cells = [cell for row in rows for cell in row]
        is_vector = len(cells) > 1 and (len(rows) == 1 or widths == {1})
        return ("()" if is_vector else f"{len(rows)} by {widths}"), cells
    return None


def _same_relation(gold: Node, answer: Node) -> bool:
    gold, answer = _settled(gold, answer), _settled(answer, gold)
    if gold[0] == "relation" and answer[0] == "relation":
        if gold[1][1::2] == ["="] and answer[1][1::2] == ["="]:
            return _same_equation(gold[1], answer[1])
        first, second = _named_interval(gold), _named_interval(answer)
        if first and second:
            return first[0] == second[0] and _same_structure(first[1], second[1])
        return _same_inequality(gold[1], answer[1])
    if "relation" in (gold[0], answer[0]):  # x > 3 and (3, \infty)
        relation, other = (gold, answer) if gold[0] == "relation" else (answer, gold)
        interval = _named_interval(relation)
        return interval is not None and other[0] == "sequence" and _same_item(interval[1], other)
    return _same_item(gold, answer)


def _settled(node: Node, other: Node) -> Node:
    """A chain cut down to what it states: `x = 6/2 = 3` to `x = 3`, and to `3` where the other
    answer names no variable. Sides that differ, `2 = 3`, state nothing.
    """
    if node[0] != "relation" or not set(node[1][1::2]) <= {"=", "~"}:
        return node
    chain = node[1]
    names = [side for side in chain[::2] if is_name(side)]
    values = [side for side in chain[::2] if not is_name(side)]
    if not values:
        return node
    value = _common_value(values, chain, other)
    if value is None:
        is_equation = len(chain) == 3 and any(map(variables, values))
        return node if is_equation else NOTHING
    other_names_it = other[0] == "relation" and set(other[1][1::2]) <= {"=", "~"}
    return ("relation", [names[0], "=", value]) if names and other_names_it else value


NOTHING: Node = ("list", [])


def _common_value(values: list[Node], chain: list[Any], other: Node) -> Node | None:
    """The value that all sides of a chain have; None where they differ.

    A rounding of a value that no decimal gives is no other value (`6 + \\pi \\approx 9.14`), and
    stands for it where it is near and the other answer has it. Of two roundings neither does.
    """
    exact = values[0]
    rounded = [side for side in values[1:] if not _same_item(exact, side)]
    distances = [rounds(exact, side) if "~" in chain else None for side in rounded]
    if any(distance is None for distance in distances):
        return None
    is_near = len(rounded) == 1 and (distances[0] or 0) <= CLOSE
    if is_near and other[0] not in ("relation", "sequence") and _same_item(other, rounded[0]):
        return rounded[0]
    return exact


def is_name(node: Node) -> bool:
    """Whether a left-hand side only names what is asked for: x, AB, f(2), |AB|, x + y, AB/CD,
    \\sin A; not x^2, 2x.
    """
    kind = node[0]
    if kind == "symbol":
        return node[1] not in ("pi", "e")
    if kind == "multiply":  # AB, f(2), f(x)
        first, second = node[1], node[2]
        return is_name(first) and (is_name(second) or first[0] == "symbol")
    if kind == "sequence":
        return bool(node[3]) and all(is_name(item) for item in node[3])
    if kind == "function":
        return is_name(node[2])
    if kind == "ratio":
        return all(map(is_name, node[1]))
    if kind in ("add", "negate", "divide"):
        return all(is_name(child) for child in node[1:])
    return False


def _same_equation(gold: list[Any], answer: list[Any]) -> bool:
    (left, _, right), (other_left, _, other_right) = gold, answer
    if is_name(left) and is_name(other_left):
        return _same_item(right, other_right) and same_value(left, other_left)
    return proportional(_difference(left, right), _difference(other_left, other_right), False)


def _same_inequality(gold: list[Any], answer: list[Any]) -> bool:
    if len(gold) != 3 or len(answer) != 3:
        return False
    (left, operator, right), (other_left, other_operator, other_right) = (
        _ascending(gold),
        _ascending(answer),
    )
    if operator != other_operator:
        return False
    first, second = _difference(left, right), _difference(other_left, other_right)
    return proportional(first, second, positive=operator != "!=")


def _difference(left: Node, right: Node) -> Node:
    return ("add", left, ("negate", right))


def _ascending(chain: list[Any]) -> list[Any]:
    flipped = {">": "<", ">=": "<="}
    if all(operator in flipped for operator in chain[1::2]):
        chain = [flipped.get(part, part) if index % 2 else part for index, part in enumerate(chain)]
        return chain[::-1]
    return chain


def _named_interval(node: Node) -> tuple[str, Node] | None:
    """The variable and the interval of `a < x`, `x < b` or `a < x <= b`."""
    chain = _ascending(node[1])
    if not set(chain[1::2]) <= {"<", "<="}:
        return None
    infinity: Node = ("infinity",)
    if len(chain) == 3:
        if chain[0][0] == "symbol" and not variables(chain[2]):
            chain = [("negate", infinity), "<", *chain]
        elif chain[2][0] == "symbol" and not variables(chain[0]):
            chain = [*chain, "<", infinity]
    if len(chain) != 5 or chain[2][0] != "symbol":
        return None
    low, first, name, second, high = chain
    opening, closing = "(" if first == "<" else "[", ")" if second == "<" else "]"
    return name[1], ("sequence", opening, closing, [low, high])


def product_of(node: Node, factor: Fraction) -> Node:
    """The node times an exact factor, each item of a list alone."""
    if node[0] == "list":
        return ("list", [product_of(item, factor) for item in node[1]])
    return ("multiply", node, ("number", factor, None)) if factor != 1 else node
