r"""Is the final answer of a response mathematically the expected one?

The answer is read from after the thinking, from the last `\boxed{}`, else from a statement ("the
answer is ..."), else from the last line. It is right if, after one spelling is made of both, the
text is the same; or both have the same value by exact or 50-digit arithmetic; or, for forms that
the own reader lacks, math-verify proves them equal.

Equal: 1/2, 0.5, \frac12 and 50%; 2\frac{1}{2} and 5/2; 1,234 and 1234; 1.5e3 and 1500; `5 cm`, `5`
and `50 mm`; `$5` and `5 dollars`; `30°` and 30; `x = 3` and 3; `x > 3` and (3, \infty); \pm 3,
`3 or -3` and {3, -3}; (x+1)^2 and x^2+2x+1; 2x = 4y and x = 2y; a decimal of six significant
digits or more and what it rounds or truncates (1.414214 and \sqrt{2}); the letter of a choice and
its value.

On purpose not equal: 0.33 and 1/3; 3 and `3 or 4`; (1, 2) and (2, 1); (1, 2), [1, 2] and {1, 2};
`5 cm` and `5 m`; `x = 3` and `y = 3`; 30° and \pi/6 without `rad`; 0.5 and 0.5%.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from rewards.reading import equality, symbolic, values
from rewards.reading.answer_text import (
    MAX_LENGTH,
    PERCENT,
    Unit,
    as_time,
    as_words,
    clean,
    split_unit,
)
from rewards.reading.expression import Node, UnreadableError, parse
from rewards.reading.extraction import after_thinking, boxes, final_answer, stated
from rewards.reading.options import LETTERS, find_letter, letter_of, names_several
from thinking_rl.types import Outcome, Problem, Score

_LETTER = re.compile(
    r"^(?:(?:option|choice|answer)s? *)?[(\[{]? *([A-Za-z]) *[)\]}]?(?:[.:,)] *|$| +(?=\S))"
)
_BRACKETED = re.compile(r"\(([A-Z])\)")
_PLAIN_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?\Z")
_BASE = re.compile(r"(?<=\d)_\{?\d{1,2}\}?$|_\{?\\?text\{[a-z]+\}\}?$")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]+")
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-DF-HJ-Za-df-hj-z](?![A-Za-z])")
_REPEATING = re.compile(r"^(-?\d*)\.(\d*)\\overline ?\{(\d{1,20})\}$")


def math_answer(problem: Problem, response: str) -> Score:
    """1.0 if the final answer is the expected one, else 0.0; not graded where it is too large
    to be compared. See the module for what counts as equal.
    """
    answer, summary = final_answer(response), after_thinking(response) or ""
    if answer is not None and problem.choices and not boxes(summary):
        if names_several(summary) and stated(summary) is None:
            answer = None
        else:
            answer = find_letter(summary, len(problem.choices)) or answer
    try:
        right = answer is not None and is_right(problem, answer)
    except (values.TooLargeError, symbolic.RefusedError) as error:
        return Score(0.0, None, Outcome.NOT_GRADED, extracted=answer, error=str(error))
    return Score(float(right), right, Outcome.RIGHT if right else Outcome.WRONG, extracted=answer)


def is_right(problem: Problem, answer: str) -> bool:
    """Whether an extracted answer is the problem's; a letter and its option's value both count."""
    if not problem.choices:
        return equal(problem.answer, answer)
    expected = letter_of(problem.answer, problem.choices)
    if expected is None:
        return equal(problem.answer, answer)
    return option_named_by(answer, problem.choices) == expected


def option_named_by(answer: str, choices: tuple[str, ...]) -> str | None:
    """The option that a short answer names: its letter (`B`, `(B) 45`), or its value alone.

    None where it names none, several, or a letter beside another option's value.
    """
    cleaned = clean(answer[:MAX_LENGTH])
    match = _LETTER.match(cleaned)
    letter = match[1].upper() if match else ""
    names_option = match is not None and letter in LETTERS[: len(choices)]
    rest = cleaned[match.end() :].strip(" ().:") if match else ""
    if names_option and not rest:
        return letter
    by_value = _option_of_value(cleaned, choices)
    if not names_option or by_value is not None:
        return by_value
    if len(set(_BRACKETED.findall(cleaned))) > 1:
        return None
    is_explicit = cleaned[:1] in ("(", "[", "{") or cleaned[1:2] in (")", ".", ":")
    stated = _option_of_value(rest, choices)
    if stated is not None:
        return letter if stated == letter or _repeats(choices, stated, letter) else None
    return letter if is_explicit else None  # "a triangle" names no letter


def _option_of_value(value: str, choices: tuple[str, ...]) -> str | None:
    """The one option whose text, if more than a letter, says what `value` says."""
    for letter, text in zip(LETTERS, choices, strict=False):
        is_letter = len(text) < 12 and re.fullmatch(r"\(?[A-Za-z]\)?", clean(text)) is not None
        if not is_letter and equal(text, value):
            return letter
    return None


def _repeats(choices: tuple[str, ...], first: str, second: str) -> bool:
    return equal(choices[LETTERS.index(first)], choices[LETTERS.index(second)])


def equal(gold: str, answer: str) -> bool:
    """Whether `answer` says the same as `gold`. Raises TooLargeError or RefusedError."""
    if len(answer) > MAX_LENGTH or len(gold) > MAX_LENGTH:
        return gold.strip() == answer.strip()
    gold_text, answer_text = _cleaned_gold(gold), clean(answer)
    if gold_text == answer_text:
        return bool(gold_text)
    if _PLAIN_NUMBER.match(gold_text) and _PLAIN_NUMBER.match(answer_text):
        return Fraction(gold_text) == Fraction(answer_text)
    gold_time, answer_time = as_time(gold_text), as_time(answer_text)
    if gold_time is not None and answer_time is not None:
        return _same_time(gold_time, answer_time)
    return _same_mathematics(gold_text, answer_text)


@lru_cache(maxsize=4096)
def _cleaned_gold(gold: str) -> str:
    boxed = boxes(gold)
    return clean(boxed[-1] if boxed else gold)


def _same_time(gold: tuple[int, bool], answer: tuple[int, bool]) -> bool:
    (minutes, is_known), (other, other_known) = gold, answer
    if is_known and other_known:
        return minutes % 1440 == other % 1440
    return minutes % 720 == other % 720


def _same_mathematics(gold: str, answer: str) -> bool:
    gold_node, answer_node = _read(gold), _read(answer)
    if gold_node is not None and answer_node is not None:
        if _only_letters(gold) and _only_letters(answer):
            return as_words(gold) == as_words(answer)  # ABC is not ACB, "no" is not "on"
        if equality.same(gold_node, answer_node):
            return True
        if _same_lists(gold, gold_node, answer, answer_node):
            return True
    (gold_value, gold_unit), (answer_value, answer_unit) = _with_unit(gold), _with_unit(answer)
    if (gold_value, answer_value) != (gold, answer):
        first, second = _read(gold_value), _read(answer_value)
        if first is not None and second is not None:
            return _same_quantity(first, gold_unit, second, answer_unit)
    if gold_node is not None and answer_node is not None:
        return False
    if as_words(gold) == as_words(answer) and not _has_operators(gold + answer):
        return bool(as_words(gold))
    if _PLAIN_NUMBER.match(gold) and "=" not in answer and _VARIABLE.search(answer):
        return False  # an expression in variables is no number
    return _needs_sympy(gold) and _needs_sympy(answer) and symbolic.proves(gold, answer)


@lru_cache(maxsize=4096)
def _read(text: str) -> Node | None:
    repeating = _REPEATING.match(text)
    if repeating:
        return _repeating_decimal(*repeating.groups())
    try:
        return parse(_BASE.sub("", text))
    except UnreadableError:
        return None


def _repeating_decimal(whole: str, head: str, period: str) -> Node:
    value = Fraction(int(head or 0), 10 ** len(head))
    value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(head))
    value += abs(int(whole.lstrip("-") or 0))
    return ("number", -value if whole.startswith("-") else value, None)


def _same_lists(gold: str, gold_node: Node, answer: str, answer_node: Node) -> bool:
    """`100,200` is two numbers where the other side has two."""
    if (gold_node[0] == "list") == (answer_node[0] == "list"):
        return False
    try:
        if answer_node[0] != "list":
            return equality.same(gold_node, parse(answer, thousands=False))
        return equality.same(parse(gold, thousands=False), answer_node)
    except UnreadableError:
        return False


@lru_cache(maxsize=4096)
def _with_unit(text: str) -> tuple[str, Unit | None]:
    start = max((text.rfind(m) + len(m) for m in ("=", "\\approx") if m in text), default=0)
    if start:  # AB = 5 cm
        value, unit = split_unit(text[start:].strip())
        return f"{text[:start]} {value}", unit
    return split_unit(text)


def _same_quantity(gold: Node, unit: Unit | None, answer: Node, other: Unit | None) -> bool:
    if unit is None and other is None:
        return equality.same(gold, answer)
    if PERCENT in (unit, other) and unit != other:
        return _same_share(gold, unit, answer, other)
    if unit is None or other is None:  # a unit may be left out, except radians
        stated = unit or other
        return stated is not None and stated[0] != "radians" and equality.same(gold, answer)
    if {unit[0], other[0]} == {"angle", "radians"}:
        degrees, radians = (gold, answer) if unit[0] == "angle" else (answer, gold)
        return equality.same(_in_radians(degrees), radians)
    return unit[0] == other[0] and equality.same(
        equality.product_of(gold, unit[1] / other[1]), answer
    )


def _same_share(gold: Node, unit: Unit | None, answer: Node, other: Unit | None) -> bool:
    """50% is 0.5, and 50 where the question asks how many percent; 0.5% is not 0.5."""
    if unit is not None and other is not None:
        return False
    percent, number = (gold, answer) if unit is not None else (answer, gold)
    if equality.same(equality.product_of(percent, PERCENT[1]), number):
        return True
    return values.largest(number) > 1 and equality.same(percent, number)


def _in_radians(degrees: Node) -> Node:
    half_turn: Node = ("divide", ("symbol", "pi"), ("number", Fraction(180), None))
    return ("multiply", degrees, half_turn)


def _only_letters(text: str) -> bool:
    return text.replace(" ", "").isalpha()


def _has_operators(text: str) -> bool:
    return any(mark in text for mark in "+-*/^=<>\\")


def _needs_sympy(text: str) -> bool:
    """Whether it is mathematics that the own reader could not read."""
    if _read(text) is not None:
        return True
    return "\\" in text and not any(len(word) > 3 for word in _WORD.findall(text))
