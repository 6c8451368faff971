"""The number a piece of LaTeX stands for, as MATH-Vision's official evaluation sees it.

The official code converts LaTeX with latex2sympy2 and lets Python evaluate the printed result. This
module gives the same number, or None where the official code raises, by a small recursive-descent
reader of the same grammar. It never evaluates code, and gives up where a number grows too large, so
it always returns.

Quirks of the original that are kept, because verdicts depend on them:

- reading stops without complaint at a closing bracket that nothing opened, so `\\frac{1}{2}}cm` is
  one half; any other leftover makes the whole unreadable;
- any letter other than an exponential `e^...` is an unknown name, so `5cm` has no value;
- a degree sign is not understood, and natural logarithms and absolute values have no value;
- a power applies to the power left of it: `2^3^2` is 64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

Number = int | float

_TOKEN = re.compile(
    r"(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:\\%)?"  # number, perhaps a percentage
    r"|\\(?:[a-zA-Z]+|[{}])"  # command
    r"|\S"
)
_IGNORED = re.compile(r"\\displaystyle|\\quad|\\qquad|\\,|~|\$")
_CLOSES = {"(": ")", "[": "]", "{": "}", r"\{": r"\}"}
_ENDS = {"", "}", ")", "]", r"\}"}
_FUNCTIONS: dict[str, Callable[[float], Number]] = {
    r"\sin": math.sin,
    r"\cos": math.cos,
    r"\tan": math.tan,
    r"\arcsin": math.asin,
    r"\arccos": math.acos,
    r"\arctan": math.atan,
    r"\sinh": math.sinh,
    r"\cosh": math.cosh,
    r"\tanh": math.tanh,
    r"\log": math.log10,
    r"\exp": math.exp,
}
_CONSTANTS = {r"\pi": math.pi, r"\tau": math.tau}
_MAX_BITS = 10_000
_MAX_FACTORIAL = 3_000


class _UnreadableError(Exception):
    """The official conversion, or the evaluation of its result, raises here."""


def latex_number(latex: str) -> Number | None:
    """The value of `latex`, or None where the official code finds none."""
    try:
        return _Reader(latex).value()
    except (_UnreadableError, ArithmeticError, ValueError, TypeError, RecursionError):
        return None


class _Reader:
    def __init__(self, latex: str) -> None:
        text = latex.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
        text = text.replace(r"\left(", "(").replace(r"\right)", ")")
        self._tokens = _TOKEN.findall(_IGNORED.sub(" ", text))
        self._at = 0

    def value(self) -> Number:
        value = self._sum()
        if self._peek() not in _ENDS:
            raise _UnreadableError
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise _UnreadableError
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise _UnreadableError

    def _sum(self) -> Number:
        value = self._product()
        while self._peek() in {"+", "-"}:
            sign = self._next()
            other = self._product()
            value = value + other if sign == "+" else value - other
        return value

    def _product(self) -> Number:
        value = self._signed()
        while (token := self._peek()) in {"*", r"\times", r"\cdot", "/", r"\div", ":"}:
            self._next()
            other = self._signed()
            value = value / other if token in {"/", r"\div", ":"} else value * other
        return value

    def _signed(self) -> Number:
        if self._peek() in {"+", "-"}:
            return self._signed() if self._next() == "+" else -self._signed()
        value = self._factor()
        while self._starts_factor():
            value = value * self._factor()
        return value

    def _starts_factor(self) -> bool:
        token = self._peek()
        return (
            _is_number(token)
            or token.isalpha()
            or token in _CLOSES
            or token in _CONSTANTS
            or token in _FUNCTIONS
            or token in {r"\frac", r"\sqrt", r"\binom"}
        )

    def _factor(self) -> Number:
        value = self._atom()
        while self._peek() == "^":
            self._next()
            value = _power(value, self._argument())
        while self._peek() == "!":
            self._next()
            value = _factorial(value)
        return value

    def _argument(self) -> Number:
        """A braced expression, or one atom."""
        if self._peek() == "{":
            return self._group()
        return self._atom()

    def _group(self) -> Number:
        close = _CLOSES[self._next()]
        value = self._sum()
        self._expect(close)
        return value

    def _atom(self) -> Number:
        token = self._peek()
        if token in _CLOSES:
            return self._group()
        self._next()
        if _is_number(token):
            return _decimal(token)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if token == r"\frac":
            return self._argument() / self._argument()
        if token == r"\sqrt":
            return self._root()
        if token == r"\binom":
            return _binomial(self._argument(), self._argument())
        if token in _FUNCTIONS:
            return self._function(_FUNCTIONS[token])
        if token in {"e", "E"} and self._peek() == "^":
            self._next()
            return math.exp(self._argument())
        raise _UnreadableError

    def _root(self) -> Number:
        degree: Number = 2
        if self._peek() == "[":
            degree = self._group()
        value = self._argument()
        return math.sqrt(value) if degree == 2 else _power(value, 1 / degree)

    def _function(self, function: Callable[[float], Number]) -> Number:
        exponent: Number = 1
        if self._peek() == "^":
            self._next()
            exponent = self._argument()
        value = function(self._group() if self._peek() in _CLOSES else self._signed())
        return _power(value, exponent)


def _is_number(token: str) -> bool:
    return token[:1].isdecimal() or (token[:1] == "." and len(token) > 1)


def _decimal(token: str) -> Number:
    if token.endswith(r"\%"):
        return _decimal(token[:-2]) / 100
    value = Fraction(token.replace(",", ""))
    return value.numerator if value.denominator == 1 else float(value)


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int):
        if base.bit_length() * abs(exponent) > _MAX_BITS:
            raise _UnreadableError
        return base**exponent
    value = base**exponent
    if isinstance(value, complex):
        raise _UnreadableError
    return value


def _factorial(value: Number) -> int:
    if not isinstance(value, int) or value > _MAX_FACTORIAL:
        raise _UnreadableError
    return math.factorial(value)


def _binomial(upper: Number, lower: Number) -> int:
    if not isinstance(upper, int) or not isinstance(lower, int) or upper > _MAX_FACTORIAL:
        raise _UnreadableError
    return math.comb(upper, lower)
