"""Short answers in words or numbers, by the rules of the official MMMU evaluation.

A response is cut to its key parts (what follows "is", "answer", "so", ...); it is right if an
expected answer, in lower case, stands in one of them, or one of the numbers in them is the
expected number to two decimals. A boxed answer is taken alone.
"""

from __future__ import annotations

import ast
import re

from rewards.reading.extraction import after_thinking, boxes
from thinking_rl.types import Problem, Score

_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"-?\b\d{1,3}(?:,\d{3})+\b",
        r"-?\d+(?:\.\d+)?[eE][+-]?\d{1,3}",
        r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d)(?![,\d])",
    )
)
MAX_DIGITS = 300


def open_answer(problem: Problem, response: str) -> Score:
    """1.0 if the response gives the expected short answer, else 0.0.

    `problem.answer` may be a list in Python's notation: any of its members will do.
    """
    summary = after_thinking(response)
    if summary is None or not summary.strip():
        return Score(0.0, False)
    boxed = boxes(summary)
    parts = [boxed[-1].lower()] if boxed else key_parts(summary)
    given: list[str | float] = []
    for part in parts:
        for text in (part, *(number for p in _NUMBERS for number in p.findall(part))):
            given.extend(normalized(text))
    wanted = [form for answer in accepted(problem.answer) for form in normalized(answer)]
    right = any(_matches(form, wanted) for form in given)
    return Score(float(right), right, parts[-1])


def accepted(answer: str) -> list[str]:
    """The accepted answers: one, or the members of a list in Python's notation."""
    if answer.startswith("[") and answer.endswith("]"):
        try:
            members = ast.literal_eval(answer)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [answer]
        if members and all(isinstance(member, str | int | float) for member in members):
            return [str(member) for member in members]
    return [answer]


def key_parts(summary: str) -> list[str]:
    """What follows the last indicator of an answer, shortest first choice, line by line."""
    lines = summary.strip().strip(".").lower().split("\n")
    parts = []
    for number, line in enumerate(lines):
        indicators = (*_INDICATORS, "=") if number == len(lines) - 1 else _INDICATORS
        tails = [line.rpartition(mark)[2].strip() for mark in indicators if mark in line]
        shortest = min(tails, key=len, default="")
        if shortest.strip(":,.!?;'"):
            parts.append(shortest)
    return parts or [summary.strip().strip(".").lower()]


def normalized(text: str) -> list[str | float]:
    """A number rounded to two decimals; else lower case, a single character set off by a space."""
    text = text.strip()
    try:
        if len(text) <= MAX_DIGITS:
            return [round(float(text.replace(",", "")), 2)]
    except (ValueError, OverflowError):
        pass
    text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _matches(given: str | float, wanted: list[str | float]) -> bool:
    if isinstance(given, str):
        return any(isinstance(form, str) and form != "" and form in given for form in wanted)
    return given in wanted
