"""Whether two expressions have the same value, by exact or 50-digit arithmetic.

Constants are evaluated; expressions with variables are compared at fixed points, where two
different expressions agree only by a coincidence of 40 digits at every point. Nothing here calls
`eval` or sympy, and sizes are bounded before anything is computed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath

from rewards.reading.expression import Node

DIGITS = 50
SAME_DIGITS = 40
POINTS = 6
SPARE_POINTS = 4
"""Larger ones, for expressions that are not defined at enough of the others."""
FEWEST_POINTS = 3
FLOAT_DIGITS = 15
"""Significant digits from which on a decimal is taken for a binary float, good to 14 of them."""
DECIMAL_DIGITS = 6
"""Significant digits from which on a decimal may stand for a value that no decimal gives."""
MAX_BITS = 100_000
MAX_FACTORIAL = 2_000

_context = mpmath.MPContext()
_context.dps = DIGITS
_NUMBER_CONSTANTS = {"pi": _context.pi, "e": _context.e, "i": _context.j}
_FUNCTIONS = {
    name: getattr(_context, name)
    for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp", "ln")
} | {
    "arcsin": _context.asin,
    "arccos": _context.acos,
    "arctan": _context.atan,
    "abs": abs,
    "floor": _context.floor,
    "ceil": _context.ceil,
}


class TooLargeError(ValueError):
    """A number too large to compute: such answers cannot be compared by value."""


class UndefinedError(ValueError):
    """The expression has no value here (division by zero, no such function...)."""


def same_value(gold: Node, answer: Node) -> bool:
    """Whether two expressions have the same value, or are the same function of their variables."""
    if gold == answer:
        return True
    gold_names, answer_names = variables(gold), variables(answer)
    if not gold_names and not answer_names:
        try:
            return _same_constant(gold, answer, evaluate(gold, {}), evaluate(answer, {}))
        except UndefinedError:
            return False
    points = 0
    for first, second in _value_pairs(gold, answer, gold_names | answer_names):
        if not _close(first, second):
            return False
        points += 1
    return points >= FEWEST_POINTS


def proportional(gold: Node, answer: Node, positive: bool) -> bool:
    """Whether two expressions differ by a constant factor other than 0."""
    ratio, points = None, 0
    for first, second in _value_pairs(gold, answer, variables(gold) | variables(answer)):
        if any(_close(value, 0) or _is_infinite(value) for value in (first, second)):
            return False
        here = _context.mpmathify(first) / second
        if positive and not (_context.im(here) == 0 and here > 0):
            return False
        if ratio is not None and not _close(here, ratio):
            return False
        ratio, points = here, points + 1
    return points >= FEWEST_POINTS


def _value_pairs(gold: Node, answer: Node, names: set[str]) -> Iterator[tuple[Any, Any]]:
    """Values at the points where both are defined, which is to say real unless `i` is named."""
    is_real = not (_names_i(gold) or _names_i(answer))
    found = 0
    for index in range(POINTS + SPARE_POINTS):
        if index >= POINTS and found >= FEWEST_POINTS:
            return
        point = {name: _coordinate(name, index) for name in names}
        try:
            pair = evaluate(gold, point), evaluate(answer, point)
        except UndefinedError:
            continue
        if not is_real or all(_context.im(_float(value)) == 0 for value in pair):
            found += 1
            yield pair


def _names_i(node: Any) -> bool:
    if isinstance(node, tuple | list):
        return node == ("symbol", "i") or any(_names_i(child) for child in node)
    return False


@lru_cache(maxsize=4096)
def _coordinate(name: str, index: int) -> Fraction:
    """A fixed point for each variable: four positive, one negative, one of mixed signs, and
    larger ones.
    """
    generator = random.Random(f"{name} {index}")
    is_negative = index == POINTS - 2 or (index == POINTS - 1 and generator.random() < 0.5)
    size = Fraction(generator.randint(300, 3000), 1009) * 7 ** max(0, index - POINTS + 1)
    return -size if is_negative else size


def _close(first: Any, second: Any) -> bool:
    if isinstance(first, Fraction | int) and isinstance(second, Fraction | int):
        return first == second
    if _is_infinite(first) or _is_infinite(second):
        return _float(first) == _float(second)
    difference = abs(_context.mpmathify(_float(first)) - _float(second))
    size = max(abs(_float(first)), abs(_float(second))) if first != 0 and second != 0 else 1
    return difference <= size * _context.mpf(10) ** -SAME_DIGITS


def _is_infinite(value: Any) -> bool:
    return _context.isinf(_float(value))


def _same_constant(gold: Node, answer: Node, first: Any, second: Any) -> bool:
    if _close(first, second):
        return True
    gold_places, answer_places = _decimals(gold), _decimals(answer)
    if _is_float(gold_places, first) or _is_float(answer_places, second):
        size = abs(_float(first))
        return abs(_float(first) - _float(second)) <= size * _context.mpf(10) ** (1 - FLOAT_DIGITS)
    if (gold_places is None) == (answer_places is None):
        return False  # two decimals, or two exact values: they differ
    decimal, places, exact = (
        (first, gold_places, second) if gold_places is not None else (second, answer_places, first)
    )
    assert places is not None
    if _context.im(_float(exact)) != 0 or _terminates(exact):
        return False
    digits = _significant(decimal, places)
    return digits >= 10 ** (DECIMAL_DIGITS - 1) and _is_near(exact, decimal, places)


def _is_near(exact: Any, decimal: Any, places: int) -> bool:
    """Whether a decimal of so many places is the value rounded, or cut off."""
    value, shown = abs(_float(exact)), abs(_float(decimal))
    unit = _context.mpf(10) ** -places
    is_rounded = abs(shown - value) <= unit / 2
    is_truncated = value - unit < shown <= value
    same_sign = (_float(decimal) < 0) == (_float(exact) < 0)
    return same_sign and (is_rounded or is_truncated)


def _significant(decimal: Fraction, places: int) -> int:
    """The digits of a decimal as a whole number."""
    scale = Fraction(10) ** places
    return abs(int(decimal * scale))


def _is_float(places: int | None, value: Any) -> bool:
    """Whether a decimal has as many digits as a binary float prints."""
    return places is not None and _significant(value, places) >= 10 ** (FLOAT_DIGITS - 1)


def rounds(exact: Node, rounded: Node) -> float | None:
    """How far, as a share of it, `rounded` is from a value that no decimal gives; None where it
    does not round that value.
    """
    try:
        if variables(exact) or variables(rounded):
            return None
        value, shown = evaluate(exact, {}), evaluate(rounded, {})
        places = _decimals(rounded)
        if places is None and isinstance(shown, Fraction) and shown.denominator == 1:
            places = 0
        if places is None or _context.im(_float(value)) != 0 or _terminates(value) or value == 0:
            return None
        if not _is_near(value, shown, places):
            return None
        return float(abs(_float(value) - _float(shown)) / abs(_float(value)))
    except (UndefinedError, TypeError):
        return None


def _terminates(value: Any) -> bool:
    """Whether a value can be written as a decimal in full: then nothing else stands for it."""
    if not isinstance(value, Fraction):
        return False
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _decimals(node: Node) -> int | None:
    """Places after the point of a decimal, perhaps times a power of ten; None of anything else."""
    if node[0] == "negate":
        return _decimals(node[1])
    if node[0] == "multiply" and node[2][0] == "power":
        places, (_, base, exponent) = _decimals(node[1]), node[2]
        sign, exponent = (-1, exponent[1]) if exponent[0] == "negate" else (1, exponent)
        is_power = base[:2] == ("number", 10) and exponent[0] == "number"
        if places is None or not is_power or exponent[1].denominator != 1 or exponent[1] > 999:
            return None
        return places - sign * int(exponent[1])
    return node[2] if node[0] == "number" else None


def variables(node: Any) -> set[str]:
    """Names of the symbols that are no known constant."""
    if isinstance(node, list):
        return set().union(*(variables(child) for child in node))
    if not isinstance(node, tuple):
        return set()
    if node and node[0] == "symbol":
        return set() if node[1] in _NUMBER_CONSTANTS else {node[1]}
    return set().union(*(variables(child) for child in node))


def evaluate(node: Node, point: Mapping[str, Fraction]) -> Any:
    """The value at a point: a Fraction where exact, else a number of 50 digits.

    Raises:
        TooLargeError: a value would be out of bounds; before it is computed.
        UndefinedError: there is no value.
    """
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind == "symbol":
        constant = _NUMBER_CONSTANTS.get(node[1])
        return point[node[1]] if constant is None else +constant
    if kind == "infinity":
        return _context.inf
    if kind in ("list", "sequence", "relation", "matrix", "ratio"):
        raise UndefinedError(f"a {kind} has no value")
    if kind == "function":
        return _function(node[1], evaluate(node[2], point))
    values = [evaluate(child, point) for child in node[1:]]
    try:
        return _bounded(_OPERATIONS[kind](*values))
    except (ZeroDivisionError, OverflowError, ValueError) as error:
        if isinstance(error, TooLargeError):
            raise
        raise UndefinedError(str(error)) from error


def _float(value: Any) -> Any:
    if isinstance(value, Fraction):
        return _context.mpf(value.numerator) / value.denominator
    return value


def _bounded(value: Any) -> Any:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise TooLargeError("a number too large")
        return value
    real = _context.re(value)
    if _context.isnan(real):
        raise UndefinedError("not a number")
    if not _context.isinf(real) and real != 0 and abs(_context.mag(real)) > MAX_BITS:
        raise TooLargeError("a number too large")
    return value


def _arithmetic(exact: Any) -> Any:
    def operation(*values: Any) -> Any:
        if all(isinstance(value, Fraction) for value in values):
            return exact(*values)
        return exact(*(_float(value) for value in values))

    return operation


def _log2_size(value: Any) -> float:
    """About how many bits the value has on either side of the point."""
    if isinstance(value, Fraction):
        return float(max(value.numerator.bit_length(), value.denominator.bit_length()))
    if value == 0 or _context.isinf(abs(value)):
        return 1.0
    return max(1.0, float(abs(_context.mag(value))))


def _power(base: Any, exponent: Any) -> Any:
    size = abs(_float(exponent))
    if size > MAX_BITS or size * _log2_size(base) > MAX_BITS:
        raise TooLargeError("a power too large")
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        if base == 0 and exponent <= 0:
            raise ZeroDivisionError("zero to the power of zero or less")
        return base ** int(exponent)
    return _context.power(_float(base), _float(exponent))


def _root(value: Any, index: Any) -> Any:
    if isinstance(index, Fraction) and index.denominator == 1 and 0 < index <= MAX_BITS:
        exact = _exact_root(value, int(index))
        if exact is not None:
            return exact
        if index % 2 == 1 and _context.im(_float(value)) == 0 and _float(value) < 0:
            return -_context.root(-_float(value), int(index))
    return _power(_float(value), Fraction(1) / index if isinstance(index, Fraction) else 1 / index)


def _exact_root(value: Any, index: int) -> Fraction | None:
    if index != 2 or not isinstance(value, Fraction) or value < 0:
        return None
    above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
    is_exact = above * above == value.numerator and below * below == value.denominator
    return Fraction(above, below) if is_exact else None


def _log(value: Any, base: Any) -> Any:
    return _context.log(_float(value)) / _context.log(_float(base))


def _factorial(value: Any) -> Any:
    if not isinstance(value, Fraction) or value.denominator != 1:
        return _context.gamma(_float(value) + 1)
    if value < 0:
        raise ValueError("factorial of a negative number")
    if value > MAX_FACTORIAL:
        raise TooLargeError("a factorial too large")
    return Fraction(math.factorial(int(value)))


def _binomial(above: Any, below: Any) -> Any:
    if max(abs(_float(above)), abs(_float(below))) > MAX_FACTORIAL:
        raise TooLargeError("a binomial coefficient too large")
    if all(isinstance(v, Fraction) and v.denominator == 1 and v >= 0 for v in (above, below)):
        return Fraction(math.comb(int(above), int(below)))
    return _context.binomial(_float(above), _float(below))


def _modulo(value: Any, modulus: Any) -> Any:
    if not all(isinstance(v, Fraction) and v.denominator == 1 for v in (value, modulus)):
        raise ValueError("a remainder of no whole numbers")
    return value % modulus


def _function(name: str, value: Any) -> Any:
    if name == "abs":
        return abs(value)
    if name in ("floor", "ceil") and isinstance(value, Fraction):
        return Fraction(math.floor(value) if name == "floor" else math.ceil(value))
    if abs(_float(value)) > MAX_BITS:
        if name in ("exp", "sinh", "cosh"):
            raise TooLargeError("an exponential too large")
        if _context.isinf(_float(value)):
            raise UndefinedError(f"{name} of infinity")
    try:
        return _bounded(_FUNCTIONS[name](_float(value)))
    except (ZeroDivisionError, OverflowError) as error:
        raise UndefinedError(str(error)) from error
    except ValueError as error:
        if isinstance(error, TooLargeError | UndefinedError):
            raise
        raise UndefinedError(str(error)) from error


_OPERATIONS = {
    "add": _arithmetic(lambda a, b: a + b),
    "multiply": _arithmetic(lambda a, b: a * b),
    "divide": _arithmetic(lambda a, b: a / b),
    "negate": _arithmetic(lambda a: -a),
    "power": _power,
    "root": _root,
    "log": _log,
    "factorial": _factorial,
    "binomial": _binomial,
    "modulo": _modulo,
}


def largest(node: Node) -> float:
    """Size of a constant; 0.0 where it has none."""
    try:
        return 0.0 if variables(node) else float(abs(_float(evaluate(node, {}))))
    except (ValueError, OverflowError, TypeError):
        return 0.0
