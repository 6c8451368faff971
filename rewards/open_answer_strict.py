"""Short answers in words or numbers, for training: the answer as a whole, not a part of it.

`open_answer` keeps the rules of MMMU, by which any number of a list will do, and any text that
contains the expected one.
"""

from __future__ import annotations

from rewards.math_answer import math_answer
from rewards.open_answer import accepted
from rewards.reading.answer_text import as_number, clean
from rewards.reading.extraction import read_answer
from thinking_rl.types import Problem, Score


def open_answer_strict(problem: Problem, response: str) -> Score:
    """1.0 if the final answer is, by the rules of `math_answer`, one of the accepted ones, or one
    of their numbers to two decimals; else 0.0.
    """
    reading = read_answer(response)
    if reading is None or reading.doubt:
        return Score(0.0, False, reading and reading.text, note=reading.doubt if reading else None)
    score = Score(0.0, False)
    for answer in accepted(problem.answer):
        one = Problem(problem.id, "", answer)
        score = math_answer(one, response)
        if score.correct or _same_to_two_decimals(answer, reading.text):
            return Score(1.0, True, reading.text)
    return score


def _same_to_two_decimals(expected: str, given: str) -> bool:
    """24.3 stands for 24.304, not for 24.31."""
    wanted, value = as_number(clean(expected)), as_number(clean(given))
    return wanted is not None and value is not None and round(wanted, 2) == round(value, 2)
