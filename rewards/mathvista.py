"""MathVista: choices, whole numbers, decimals of a stated precision, and lists.

The kind of answer stands in `problem.metadata`: `question_type` (multi_choice, free_form),
`answer_type` (text, integer, float, list), `precision` (decimals of a float) and `unit`. Answers
are normalised by the official rules (MathVista evaluation/calculate_score.py) and compared as
text, except that no option is guessed from a text that is near to it.
"""

from __future__ import annotations

import ast
import re

from rewards.choice import chosen_letter
from rewards.reading.extraction import Reading, last_line, read_answer
from rewards.reading.options import letter_of
from rewards.reading.values import TooLargeError
from rewards.reading.words import is_hedged
from thinking_rl.types import Problem, Score

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|-?\.\d+")
_LIST = re.compile(r"\[[^\[\]]*\]")
_SENTENCES = re.compile(r"[.!?] +\S")
MAX_DIGITS = 300


def mathvista(problem: Problem, response: str) -> Score:
    """1.0 if the response gives the expected answer in the problem's form, else 0.0.

    Raises:
        ValueError: the answer_type is unknown, or the answer is not among the choices.
    """
    if asks_for_choice(problem):
        expected: str | None = letter_of(problem.answer, problem.choices)
        if expected is None:
            raise ValueError(f"problem {problem.id!r}: {problem.answer!r} is none of its choices")
        try:
            given = chosen_letter(problem, response)
        except TooLargeError as error:
            return Score(0.0, False, note=str(error))
    else:
        kind, precision = kind_of(problem)
        expected = normalized(problem.answer, kind, precision)
        reading = read_answer(response)
        given = None if reading is None else _stated(reading, response, kind, precision)
    right = given is not None and given == expected
    return Score(float(right), right, given)


def asks_for_choice(problem: Problem) -> bool:
    """Whether an option is asked for."""
    kind = problem.metadata.get("question_type", "multi_choice" if problem.choices else "")
    return kind == "multi_choice"


def kind_of(problem: Problem) -> tuple[str, int]:
    """The kind of a free-form answer, and the decimals of a float.

    Raises:
        ValueError: the kind is unknown.
    """
    kind = problem.metadata.get("answer_type", "text")
    if kind not in ("text", "integer", "float", "list"):
        raise ValueError(f"problem {problem.id!r}: unknown answer_type {kind!r}")
    return kind, int(problem.metadata.get("precision") or 1)


def _stated(reading: Reading, response: str, kind: str, precision: int) -> str | None:
    """The answer in its official form. A last line that leaves its number open (`6 or more`), or
    goes on to another in further sentences, states none.
    """
    if reading.kind == "line" and kind in ("integer", "float"):
        numbers = _NUMBER.findall(reading.text)
        goes_on = numbers[:1] != numbers[-1:] and _SENTENCES.search(reading.text)
        if goes_on or is_hedged(reading.text):
            return None
    given = normalized(reading.text, kind, precision)
    return normalized(last_line(response), kind, precision) if given is None else given


def normalized(answer: str, kind: str, precision: int) -> str | None:
    """The answer in its official form; None where it has none.

    A number may stand in words and with a unit; where there are several, the last one counts.
    """
    if kind == "list":
        found = _LIST.findall(answer)
        try:
            return str(ast.literal_eval(found[-1])) if found else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if kind == "text":
        return answer.strip().strip(".$").casefold() or None
    numbers = [text for text in _NUMBER.findall(answer) if len(text) <= MAX_DIGITS]
    if not numbers:
        return None
    value = float(numbers[-1].replace(",", ""))
    return str(int(value)) if kind == "integer" else str(round(value, precision))
