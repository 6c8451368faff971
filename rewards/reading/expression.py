"""A small, safe reader of mathematical answers: text to a tree, without evaluating anything.

Nodes are tuples, the first element names the kind:

- ("number", Fraction, decimals or None), ("symbol", name), ("infinity",)
- ("add" | "multiply" | "divide" | "power" | "root" | "log" | "modulo" | "binomial", a, b)
- ("negate" | "factorial", a), ("function", name, a), ("plusminus", a, b, first sign)
- ("sequence", opening, closing, items): tuples, intervals, sets; ("matrix", rows)
- ("ratio", items): three terms or more; one of two is a division
- ("list", items): `1, 2`, `1 or 2`, unions; ("relation", [a, op, b, ...])
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

MAX_DEPTH = 40
MAX_DIGITS = 400

Node = tuple[Any, ...]


class UnreadableError(ValueError):
    """The text is no expression that this reader knows."""


FUNCTIONS = ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan")
FUNCTIONS += ("sinh", "cosh", "tanh", "ln", "exp")
_WORDS = {
    **{name: ("command", name) for name in FUNCTIONS},
    "log": ("command", "log"),
    "sqrt": ("command", "sqrt"),
    "pi": ("command", "pi"),
    "and": ("operator", ","),
    "or": ("operator", ","),
    "inf": ("command", "infty"),
    "infinity": ("command", "infty"),
    "oo": ("command", "infty"),
    "mod": ("command", "bmod"),
    "asin": ("command", "arcsin"),
    "acos": ("command", "arccos"),
    "atan": ("command", "arctan"),
}
_GREEK = re.compile(
    r"(?:var)?(?:epsilon|theta|phi)|alpha|beta|gamma|delta|zeta|eta|iota|kappa|lambda|mu|nu|xi|rho"
    r"|sigma|tau|upsilon|chi|psi|omega|Gamma|Delta|Theta|Lambda|Sigma|Phi|Psi|Omega|ell"
)
_RELATIONS = {"=": "=", "<": "<", ">": ">", "lt": "<", "gt": ">"}
_RELATIONS |= {"le": "<=", "ge": ">=", "ne": "!=", "approx": "~"}
_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc")
_IGNORED = (
    "measuredangle",
    "angle",
    "triangle",
    "overrightarrow",
    "vec",
)
_MARKS = {"bar": "bar", "overline": "bar", "hat": "hat", "widehat": "hat", "tilde": "tilde"}
_TOKEN = re.compile(
    r" *(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+(?![\w.]))?|\.\d+)"
    r"|\\(?P<environment>(?:begin|end)\{[a-z]*\})|\\(?P<command>[A-Za-z]+)"
    r"|(?P<newline>\\\\)|\\(?P<brace>[{}|])|(?P<word>[A-Za-z]+)|(?P<operator>[^\s\\]))"
)
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")

MATRICES = tuple(f"begin{{{name}matrix}}" for name in ("", "p", "b", "B"))

Token = tuple[str, str]


def parse(cleaned: str, thousands: bool = True) -> Node:
    """Read a cleaned answer.

    Args:
        thousands: read `1,234` outside of brackets as one number.

    Raises:
        UnreadableError: it follows no rule of the grammar.
    """
    if thousands and "," in cleaned:
        cleaned = _join_thousands(cleaned)
    reader = _Reader(_tokens(cleaned))
    node = reader.answer()
    if reader.position < len(reader.tokens):
        raise UnreadableError(f"unexpected {reader.tokens[reader.position][1]!r}")
    return node


def _join_thousands(text: str) -> str:
    def joined(match: re.Match[str]) -> str:
        before = text[: match.start()]
        depth = sum(before.count(mark) for mark in "([") - sum(before.count(m) for m in ")]")
        in_set = before.count("\\{") > before.count("\\}")
        return match[0] if depth > 0 or in_set else match[0].replace(",", "")

    return _THOUSANDS.sub(joined, text)


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnreadableError(f"unexpected {text[position : position + 10]!r}")
        position = match.end()
        kind = match.lastgroup or ""
        value = match[kind]
        if (kind == "command" and value in _RELATIONS) or (
            kind == "operator" and value in _RELATIONS
        ):
            tokens.append(("relation", _RELATIONS[value]))
        elif kind == "command" and value in _IGNORED:
            pass
        elif (kind == "command" and value == "cup") or (kind == "operator" and value == ";"):
            tokens.append(("operator", ","))
        elif kind == "command" and value in ("degree", "circ"):
            tokens.append(("operator", "°"))
        elif kind == "word":
            tokens.extend(_word(value))
        else:
            tokens.append((kind, value))
    return tokens


def _word(word: str) -> list[Token]:
    """A known name, or letters to be multiplied; a longer word is no mathematics."""
    if len(word) > 1 and word in _WORDS:
        return [_WORDS[word]]
    if len(word) > 3:
        raise UnreadableError(f"a word: {word!r}")
    return [("symbol", letter) for letter in word]


class _Reader:
    """Recursive descent; every method reads one level of precedence."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.in_trigonometric = 0

    def peek(self) -> Token:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")

    def take(self) -> Token:
        token = self.peek()
        self.position += 1
        return token

    def accept(self, kind: str, value: str) -> bool:
        if self.peek() == (kind, value):
            self.position += 1
            return True
        return False

    def expect(self, kind: str, value: str) -> None:
        if not self.accept(kind, value):
            raise UnreadableError(f"expected {value!r}, found {self.peek()[1]!r}")

    def answer(self) -> Node:
        items = self.items()
        return items[0] if len(items) == 1 else ("list", items)

    def items(self) -> list[Node]:
        items = [self.relation()]
        while self.accept("operator", ","):
            while self.accept("operator", ","):  # "1, 2, and 3"
                pass
            items.append(self.relation())
        return items

    def relation(self) -> Node:
        chain: list[Any] = [self.ratio()]
        if self.peek() == ("command", "in") and chain[0][0] == "symbol":  # x \in [1, 2]
            self.position += 1
            return self.sum()
        while self.peek()[0] == "relation":
            chain.append(self.take()[1])
            chain.append(self.ratio())
        return ("relation", chain) if len(chain) > 1 else chain[0]

    def ratio(self) -> Node:
        terms = [self.sum()]
        while self.accept("operator", ":"):
            terms.append(self.sum())
        if len(terms) == 1:
            return terms[0]
        return ("divide", *terms) if len(terms) == 2 else ("ratio", terms)

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("nested too deeply")
        node = self.signed()
        while True:
            if self.accept("operator", "+"):
                node = ("add", node, self.product())
            elif self.accept("operator", "-"):
                node = ("add", node, ("negate", self.product()))
            elif self.accept("command", "pm"):
                node = ("plusminus", node, self.product(), 1)
            elif self.accept("command", "mp"):
                node = ("plusminus", node, self.product(), -1)
            else:
                self.depth -= 1
                return node

    def signed(self) -> Node:
        zero = ("number", Fraction(0), None)
        if self.accept("operator", "-"):
            return ("negate", self.signed_product())
        if self.accept("command", "pm"):
            return ("plusminus", zero, self.product(), 1)
        if self.accept("command", "mp"):
            return ("plusminus", zero, self.product(), -1)
        self.accept("operator", "+")
        return self.product()

    def signed_product(self) -> Node:
        return ("negate", self.product()) if self.accept("operator", "-") else self.product()

    def product(self) -> Node:
        node = self.factor()
        while True:
            if self.accept("operator", "*"):
                node = ("multiply", node, self.signed_factor())
            elif self.accept("operator", "/"):
                node = ("divide", node, self.signed_factor())
            elif self.accept("command", "bmod"):
                node = ("modulo", node, self.signed_factor())
            elif self.starts_factor():
                node = self.juxtaposed(node)
            else:
                return node

    def juxtaposed(self, node: Node) -> Node:
        """Implicit multiplication, or a mixed number (`2 1/2`, `2\\frac{1}{2}`)."""
        start = self.position
        following = self.factor()
        if _is_integer(node):
            fraction = following
            if _is_integer(following) and self.accept("operator", "/"):
                fraction = ("divide", following, self.factor())
            if (
                fraction[0] == "divide"
                and _is_integer(fraction[1])
                and _is_integer(fraction[2])
                and fraction[1][1] < fraction[2][1]
                and not self.follows_group(start)
            ):
                return ("add", node, fraction)
        is_apart = self.follows_group(start) and node[0] != "number"
        if following[0] == "number" and not is_apart:
            raise UnreadableError("a number after a factor")  # x2, 3 (4): times, index or two?
        return ("multiply", node, following)

    def follows_group(self, start: int) -> bool:
        return self.tokens[start] == ("operator", "(")

    def signed_factor(self) -> Node:
        return ("negate", self.factor()) if self.accept("operator", "-") else self.factor()

    def starts_factor(self) -> bool:
        kind, value = self.peek()
        if kind == "command":
            return value not in ("pm", "mp", "in", "setminus", "bmod", "rfloor", "rceil")
        return (
            kind in ("number", "symbol")
            or (kind == "brace" and value == "{")
            or (kind == "operator" and value in "({[")
        )

    def factor(self) -> Node:
        node = self.atom()
        while True:
            if self.accept("operator", "^"):
                node = ("power", node, self.argument())
            elif self.accept("operator", "!"):
                if self.peek() == ("operator", "!"):
                    raise UnreadableError("a double factorial")
                node = ("factorial", node)
            elif self.accept("operator", "°"):
                node = ("multiply", node, _DEGREE) if self.in_trigonometric else node
            elif self.peek() == ("operator", "_"):
                raise UnreadableError("a subscript")
            elif self.accept("operator", "%"):
                node = ("divide", node, ("number", Fraction(100), None))
            else:
                return node

    def argument(self) -> Node:
        """What follows ^, \\frac or \\sqrt: a group, or one digit, letter or command."""
        if self.accept("operator", "{"):
            node = self.sum()
            self.expect("operator", "}")
            return node
        if self.accept("operator", "-"):
            return ("negate", self.argument())
        kind, value = self.peek()
        if kind == "number" and self.tokens[self.position - 1][1] != "^" and len(value) > 1:
            # \frac12 is one half: the number gives its first digit only
            if not value.isdigit():
                raise UnreadableError("a decimal without braces")
            self.tokens[self.position] = ("number", value[1:])
            return ("number", Fraction(int(value[0])), None)
        return self.atom()

    def atom(self) -> Node:
        kind, value = self.take()
        if kind == "number":
            return _number(value)
        if kind == "symbol":
            return self.symbol(value)
        if kind == "command":
            return self.command(value)
        if kind == "environment" and value in MATRICES:
            return self.matrix()
        if kind == "operator" and value in "([":
            return self.sequence(value)
        if (kind, value) == ("brace", "{"):
            return self.sequence("{")
        if (kind, value) == ("operator", "{"):
            items = self.items()
            self.expect("operator", "}")
            return items[0] if len(items) == 1 else ("sequence", "{", "}", items)
        if (kind, value) == ("operator", "|"):
            node = ("function", "abs", self.sum())
            self.expect("operator", "|")
            return node
        raise UnreadableError(f"unexpected {value or 'end'!r}")

    def symbol(self, name: str) -> Node:
        if self.accept("operator", "_"):
            kind, value = self.take()
            if (kind, value) == ("operator", "{"):
                value = ""
                while not self.accept("operator", "}"):
                    kind, part = self.take()
                    if kind not in ("number", "symbol"):
                        raise UnreadableError("a subscript")
                    value += part
            elif kind not in ("number", "symbol"):
                raise UnreadableError("a subscript")
            name = f"{name}_{value}"
        while self.accept("operator", "'"):
            name += "'"
        return ("symbol", name)

    def sequence(self, opening: str) -> Node:
        if opening == "{" and self.accept("brace", "}"):
            return ("sequence", "{", "}", [])
        items = self.items()
        kind, closing = self.take()
        if (opening == "{") != (kind == "brace") or closing not in ")]}":
            raise UnreadableError(f"expected the end of {opening!r}, found {closing!r}")
        if len(items) == 1 and opening + closing in ("()", "[]"):
            return items[0]
        return ("sequence", opening, closing, items)

    def command(self, name: str) -> Node:
        if name == "frac":
            above = self.argument()
            return ("divide", above, self.argument())
        if name == "sqrt":
            index: Node = ("number", Fraction(2), None)
            if self.accept("operator", "["):
                index = self.sum()
                self.expect("operator", "]")
            return ("root", self.argument(), index)
        if name == "binom":
            above = self.argument()
            return ("binomial", above, self.argument())
        if name in ("lfloor", "lceil"):
            node = ("function", name[1:], self.sum())
            self.expect("command", f"r{name[1:]}")
            return node
        if name == "log":
            base: Node = ("number", Fraction(10), None)
            if self.accept("operator", "_"):
                base = self.argument()
            return ("log", self.function_argument(), base)
        if name in FUNCTIONS:
            return self.function(name)
        if name == "infty":
            return ("infinity",)
        if name == "pi" or _GREEK.fullmatch(name):
            return self.symbol(name)
        if name in ("emptyset", "varnothing"):
            return ("sequence", "{", "}", [])
        if name == "mathbb":
            letter = self.argument()
            return _REALS if letter == ("symbol", "R") else ("symbol", f"mathbb {letter}")
        if name in _MARKS:  # \bar{x} is not x
            marked = self.argument()
            if marked[0] != "symbol":
                raise UnreadableError(f"a {_MARKS[name]} over more than a letter")
            return ("symbol", f"{_MARKS[name]} {marked[1]}")
        raise UnreadableError(f"unknown command \\{name}")

    def function(self, name: str) -> Node:
        power = self.argument() if self.accept("operator", "^") else None
        if power is not None and power[0] == "negate":
            if not name.startswith(("sin", "cos", "tan")) or len(name) != 3:
                raise UnreadableError("an inverse function")
            return ("function", "arc" + name, self.function_argument())  # \tan^{-1}
        self.in_trigonometric += name in _TRIGONOMETRIC
        node: Node = ("function", name, self.function_argument())
        self.in_trigonometric -= name in _TRIGONOMETRIC
        return node if power is None else ("power", node, power)

    def function_argument(self) -> Node:
        """A group, or the factors that follow: \\sin 2x, \\log_2 8."""
        is_group = self.peek() in (("operator", "("), ("operator", "{"))
        if self.peek() == ("operator", "-"):
            return self.signed_factor()
        node = self.factor()
        while not is_group and self.starts_factor() and self.peek()[0] != "command":
            node = ("multiply", node, self.factor())
        return node

    def matrix(self) -> Node:
        rows: list[list[Node]] = [[]]
        while True:
            if self.peek()[0] not in ("environment", "newline"):
                rows[-1].append(self.sum())
            kind, value = self.take()
            if kind == "environment" and value.startswith("end"):
                return ("matrix", [row for row in rows if row])
            if kind == "newline":
                rows.append([])
            elif (kind, value) != ("operator", "&"):
                raise UnreadableError(f"unexpected {value!r} in a matrix")


_REALS: Node = ("sequence", "(", ")", [("negate", ("infinity",)), ("infinity",)])
_DEGREE: Node = ("divide", ("symbol", "pi"), ("number", Fraction(180), None))


def _number(text: str) -> Node:
    if len(text) > MAX_DIGITS:
        raise UnreadableError("a number of too many digits")
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent) > 4:
        raise UnreadableError("an exponent of too many digits")
    _, _, decimals = mantissa.partition(".")
    return ("number", Fraction(text), len(decimals) - int(exponent or 0) if decimals else None)


def _is_integer(node: Node) -> bool:
    return node[0] == "number" and node[2] is None and node[1].denominator == 1
