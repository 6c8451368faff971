r"""Is the final answer of a response mathematically the expected one?

The answer is read from after the thinking, from the last `\boxed{}`, a statement ("the answer is
..."), or the last line. It is right if, after one spelling is made of both, the text is the same;
or both have the same value by exact or 50-digit arithmetic; or, for an expected answer in forms
that the own reader lacks, math-verify proves them equal.

An answer that offers several values where one is expected, or that is denied or taken back, is
wrong, and so is one that is too large to compute. docs/rewards.md has the table of what is equal.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from rewards.reading import equality, symbolic, values
from rewards.reading.answer_text import (
    MAX_LENGTH,
    as_based,
    as_time,
    as_words,
    clean,
)
from rewards.reading.expression import Node, UnreadableError, parse
from rewards.reading.extraction import (
    Reading,
    after_thinking,
    boxes,
    every_box,
    last_line,
    read_answer,
)
from rewards.reading.options import LETTERS, letter_of, letter_stated, lists_letters, named_letters
from rewards.reading.units import PERCENT, Unit, split_unit
from rewards.reading.words import is_hedged, is_negated
from thinking_rl.types import Problem, Score

_PLAIN_NUMBER = re.compile(r"-?\d{1,14}(?:\.\d{1,14})?\Z", re.ASCII)
_TRIGONOMETRY = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_WORDS_ONLY = re.compile(r"[A-Za-z][A-Za-z \-'\",.?;:]*\Z")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]+")
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-DF-HJ-Za-df-hj-z](?![A-Za-z])")
_REPEATING = re.compile(r"^(-?\d*)\.(\d*)\\overline ?\{(\d{1,20})\}$")
_JUMP = re.compile(
    r"\\(?:to|rightarrow|Rightarrow|implies|iff|mapsto|longrightarrow|leadsto|equiv)"
    r"(?![A-Za-z])|[→⇒⟹↦]|->|=>"
)
_LABEL = re.compile(r"[^\d=<>(,;]*(?:_ ?\{?\w+\}?|\([^()]*\))*[^\d=<>(,;]*")


def math_answer(problem: Problem, response: str) -> Score:
    """1.0 if the final answer is the expected one, else 0.0. See the module for what counts as
    equal.
    """
    reading = read_answer(response)
    if reading is None:
        return Score(0.0, False, note="no answer")
    if reading.doubt:
        return Score(0.0, False, reading.text, note=reading.doubt)
    try:
        right = _is_right(problem, reading, after_thinking(response) or "")
    except values.TooLargeError as error:
        return Score(0.0, False, reading.text, note=str(error))
    return Score(float(right), right, reading.text)


def _is_right(problem: Problem, reading: Reading, summary: str) -> bool:
    """A letter and its option's value both count."""
    expected = letter_of(problem.answer, problem.choices) if problem.choices else None
    if expected is not None:
        return chosen_option(reading, summary, problem.choices) == expected
    if equal(problem.answer, reading.text):
        return True
    several = reading.kind == "box" and summary.count("\\boxed") > 1
    return several and equal(problem.answer, every_box(summary))


def chosen_option(reading: Reading, summary: str, choices: tuple[str, ...]) -> str | None:
    """The letter of the option that a response settles on; None if it names none, or several."""
    if reading.doubt:
        return None
    text = reading.text
    if reading.kind != "line":
        return option_named_by(text, choices)
    if lists_letters(summary):
        return None
    letter = letter_stated(summary, len(choices))
    if letter is not None and _is_contradicted(letter, last_line(summary), choices):
        return None
    if letter is not None or len(named_letters(text, len(choices))) > 1:
        return letter
    if text == last_line(summary):
        return option_named_by(text, choices)
    return _option_of_value(clean(text[:MAX_LENGTH]), choices)


def option_named_by(answer: str, choices: tuple[str, ...]) -> str | None:
    """The option that a short answer names: its letter (`B`, `(B) 45`), or its value alone.

    None where it names none, several, or a letter beside another option's value.
    """
    verbatim = answer.strip()
    if len(verbatim) > 1 and verbatim in choices:  # `(b)` where the options are (c), (b), (a)
        return LETTERS[choices.index(verbatim)]
    cleaned = clean(answer[:MAX_LENGTH])
    if cleaned in LETTERS[: len(choices)] and len(cleaned) == 1:
        return cleaned
    by_value = _option_of_value(cleaned, choices)
    if by_value is None:
        by_value = _option_leading(cleaned, choices)
    match = _LETTER.match(cleaned)
    letter = match[1].upper() if match else ""
    if match is None or letter not in LETTERS[: len(choices)]:
        return by_value or _affirmed(cleaned, choices)
    rest = cleaned[match.end() :].lstrip(" ).:,").rstrip(" .:,")
    if not rest or rest.upper() == letter:
        return letter
    if len(rest) == 1 and rest.upper() in LETTERS[: len(choices)]:  # (A) c
        return None
    if by_value is not None:
        return by_value
    stated = _option_of_value(rest, choices)
    if stated is not None:
        return letter if stated == letter or _repeats(choices, stated, letter) else None
    is_explicit = cleaned[:1] in ("(", "[", "{") or cleaned[1:2] in (")", ".", ":")
    if not is_explicit:  # "a triangle" names no letter
        return _affirmed(cleaned, choices)
    is_open = is_hedged(rest) or is_negated(rest) or len(named_letters(cleaned, len(choices))) > 1
    is_text = rest[0].isalnum() or rest[0] in "$\\-"
    return letter if is_text and not is_open else None


def _is_contradicted(letter: str, line: str, choices: tuple[str, ...]) -> bool:
    """Whether a line that is a letter and a value has another option's value: `(B) 12 cm`."""
    cleaned = clean(line[:MAX_LENGTH])
    match = _LETTER.match(cleaned)
    if match is None or match[1].upper() != letter:
        return False
    stated = _option_of_value(cleaned[match.end() :].strip(" .:,"), choices)
    return stated not in (None, letter) and not _repeats(choices, str(stated), letter)


def _affirmed(cleaned: str, choices: tuple[str, ...]) -> str | None:
    """The letter of `option B`, `B is correct`, `it is B`: one letter among words that only affirm
    it.
    """
    named = named_letters(cleaned, len(choices))
    others = set(_CAPITAL.findall(cleaned)) - {*named, "I"}  # another option's name
    return named[0] if len(named) == 1 and not others and _AFFIRMS.fullmatch(cleaned) else None


_CAPITAL = re.compile(r"\b[A-Z]\b")
_AFFIRMS = re.compile(
    r"(?:\(?[A-Z]\)?(?![A-Za-z])|(?i:the|correct|right|best|final|answer|option|choice|letter|is|it"
    r"|must|be|so|therefore|thus|hence|choose|pick|select|i|we|figure|picture|image|one|fits|works"
    r"|that|would|should)(?![A-Za-z])|因此|所以|选项|選項|选|選|项|項|[*:.,\s]){1,20}"
    r"(?:(?:because|since|as)\b[^A-Z]*)?"
)
_LETTER = re.compile(
    r"^(?:(?:option|choice|answer)s? *)?[(\[{]? *([A-Za-z]) *[)\]}]?(?:[.:,)] *|$| +(?=\S))",
    re.IGNORECASE,
)


def _option_of_value(value: str, choices: tuple[str, ...]) -> str | None:
    """The option whose text, if more than its own letter, is `value`, else says the same."""
    for letter, text in zip(LETTERS, choices, strict=False):
        if len(value) > 1 and clean(text) == value:  # among 1,2,3 and 2,1,3
            return letter
    for letter, text in zip(LETTERS, choices, strict=False):
        bare = text.strip(" ().$")
        is_label = len(bare) == 1 and bare.upper() in LETTERS[: len(choices)]
        if not is_label and equal(text, value, may_prove=False):
            return letter
    return None


def _option_leading(cleaned: str, choices: tuple[str, ...]) -> str | None:
    """The option whose text the answer begins with, before a comma: `no, it is ...`."""
    folded = cleaned.casefold()
    for letter, text in zip(LETTERS, choices, strict=False):
        start = clean(text).casefold()
        rest = folded[len(start) :]
        if len(start) > 1 and folded.startswith(start) and rest[:1] in (",", ";", ":", "."):
            others = [clean(other).casefold() for other in choices if other != text]
            return None if any(other and other in rest for other in others) else letter
    return None


def _repeats(choices: tuple[str, ...], first: str, second: str) -> bool:
    return clean(choices[LETTERS.index(first)]) == clean(choices[LETTERS.index(second)])


def equal(gold: str, answer: str, may_prove: bool = True) -> bool:
    """Whether `answer` says the same as `gold`.

    Args:
        may_prove: ask math-verify where the own reader cannot read the expected answer.

    Raises:
        TooLargeError: a value is too large to compute.
        RefusedError: math-verify was asked and could not tell.
    """
    if len(answer) > MAX_LENGTH or len(gold) > MAX_LENGTH:
        return gold.strip() == answer.strip()
    gold_text, answer_text = _cleaned_gold(gold), clean(answer)
    if gold_text == answer_text:
        return bool(gold_text)
    if _PLAIN_NUMBER.match(gold_text) and _PLAIN_NUMBER.match(answer_text):
        return Fraction(gold_text) == Fraction(answer_text)
    are_words = _WORDS_ONLY.match(gold_text) and _WORDS_ONLY.match(answer_text)
    if are_words and as_words(gold_text) == as_words(answer_text):
        return True
    if gold_text.casefold() in _VERDICTS:
        return _same_verdict(gold_text.casefold(), answer_text.casefold())
    if _states_nothing(answer_text):
        return False
    gold_time, answer_time = as_time(gold_text), as_time(answer_text)
    if gold_time is not None and answer_time is not None:
        return _same_time(gold_time, answer_time)
    gold_based, answer_based = as_based(gold_text), as_based(answer_text)
    if gold_based or answer_based:
        return _same_based(gold_based, gold_text, answer_based, answer_text)
    try:
        return _same_mathematics(gold_text, answer_text, may_prove)
    except RecursionError as error:
        raise values.TooLargeError("nested too deeply") from error


_VERDICTS = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


def _same_verdict(gold: str, answer: str) -> bool:
    """`Yes, it is even` is yes; `yes, no` is nothing."""
    first, *rest = re.split(r"[^a-z']+", answer)
    return first == gold and _VERDICTS[gold] not in rest and answer[len(first) :][:1] in ",.;:"


def _states_nothing(answer: str) -> bool:
    """Whether it denies, or goes from one value to another; `or` between values makes a list."""
    hedges = re.sub(r"\bor\b", "", answer)
    return is_negated(answer) or is_hedged(hedges) or _JUMP.search(answer) is not None


@lru_cache(maxsize=4096)
def _cleaned_gold(gold: str) -> str:
    boxed = boxes(gold)
    return clean(boxed[-1] if boxed else gold)


def _same_time(gold: tuple[int, bool], answer: tuple[int, bool]) -> bool:
    (seconds, is_known), (other, other_known) = gold, answer
    period = 86400 if is_known and other_known else 43200
    return seconds % period == other % period


def _same_based(
    gold: tuple[str, int] | None, gold_text: str, answer: tuple[str, int] | None, text: str
) -> bool:
    """The same digits in the same base. A base that the question asks for may be left out; of an
    expected answer without one only where its digits look like no decimal number.
    """
    if gold and answer:
        return gold == answer
    if gold:
        return gold[0] == text.upper().lstrip("0")
    is_decimal = not re.fullmatch(r"[01]{3,}|\d*[A-F][\dA-F]*", gold_text.upper())
    return answer is not None and not is_decimal and answer[0] == gold_text.upper().lstrip("0")


def _same_mathematics(gold: str, answer: str, may_prove: bool) -> bool:
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
    if gold_node is not None or "\\" not in gold or ("," in answer) != ("," in gold):
        return False
    needs_proof = may_prove and _needs_sympy(gold) and _needs_sympy(answer)
    return needs_proof and symbolic.proves(gold, answer)


@lru_cache(maxsize=4096)
def _read(text: str) -> Node | None:
    repeating = _REPEATING.match(text)
    if repeating:
        return _repeating_decimal(*repeating.groups())
    try:
        return parse(text)
    except UnreadableError:
        label, equals, value = text.rpartition("=")
        return _read(value.strip()) if equals and _is_label(label) else None


def _is_label(text: str) -> bool:
    """Whether a left-hand side that is no expression names what is asked for: `Area`,
    `P(A \\cap B)`.
    """
    return _LABEL.fullmatch(text) is not None and any(mark.isalpha() for mark in text)


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
    if _TRIGONOMETRY.search(text):  # \sin 30^\circ has no unit
        return text, None
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
    return any(mark in text for mark in "+-*/^=<>\\!|")


def _needs_sympy(text: str) -> bool:
    """Whether it is mathematics that the own reader could not read."""
    if _read(text) is not None:
        return True
    return "\\" in text and not any(len(word) > 3 for word in _WORD.findall(text))
