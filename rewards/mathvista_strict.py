"""MathVista for training: the one number, list or option that is asked for, and nothing beside it.

`mathvista` keeps the benchmark's rules, by which the last of several numbers counts.
"""

from __future__ import annotations

import ast

from rewards.choice import choice
from rewards.math_answer import math_answer
from rewards.mathvista import asks_for_choice, kind_of
from rewards.reading.answer_text import MAX_LENGTH, as_number, clean
from rewards.reading.extraction import read_answer
from rewards.reading.units import split_unit
from thinking_rl.types import Problem, Score


def mathvista_strict(problem: Problem, response: str) -> Score:
    """1.0 if the final answer is the expected option, text, list or number, the number to the
    stated precision; else 0.0.

    Raises:
        ValueError: as `mathvista` does.
    """
    if asks_for_choice(problem):
        return choice(problem, response)
    reading = read_answer(response)
    if reading is None or reading.doubt:
        return Score(0.0, False, reading and reading.text, note=reading.doubt if reading else None)
    kind, precision = kind_of(problem)
    if kind == "list":
        right = _same_list(problem.answer, reading.text)
        return Score(float(right), right, reading.text)
    score = math_answer(Problem(problem.id, "", problem.answer), response)
    if not score.correct and kind == "float" and _rounds(problem.answer, reading.text, precision):
        return Score(1.0, True, reading.text)
    return score


def _same_list(expected: str, given: str) -> bool:
    try:
        return ast.literal_eval(clean(given[:MAX_LENGTH])) == ast.literal_eval(expected)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _rounds(expected: str, given: str, precision: int) -> bool:
    value, _ = split_unit(clean(given[:MAX_LENGTH]))
    wanted, number = as_number(clean(expected)), as_number(value)
    if wanted is None or number is None:
        return False
    return round(wanted, precision) == round(number, precision)
