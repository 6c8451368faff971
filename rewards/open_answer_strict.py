"""Short answers in words or numbers, for training: the answer as a whole, not a part of it.

`open_answer` keeps the rules of MMMU, by which any number of a list will do, and any text that
contains the expected one.
"""

from __future__ import annotations

from dataclasses import replace

from rewards.math_answer import math_answer
from rewards.open_answer import accepted
from rewards.reading.answer_text import MAX_LENGTH, as_number, clean
from rewards.reading.extraction import read_answer
from thinking_rl.types import Problem, Score

CLOSE = 0.05
"""How far a number may be from the expected one, as a share of it: 0.0 does not stand for 0.004."""


def open_answer_strict(problem: Problem, response: str) -> Score:
    """1.0 if the final answer is, by the rules of `math_answer`, one of the accepted ones, or one
    of their numbers to two decimals; else 0.0.

    Several accepted answers are a list with texts in it (`['3.43', '24/7']`): `[0, 1]` is one
    interval.
    """
    reading = read_answer(response)
    if reading is None or reading.doubt:
        return Score(0.0, False, reading and reading.text, note=reading.doubt if reading else None)
    has_texts = "'" in problem.answer or '"' in problem.answer
    score = Score(0.0, False)
    for answer in accepted(problem.answer) if has_texts else [problem.answer]:
        score = math_answer(replace(problem, answer=answer), response)
        if score.correct or _same_to_two_decimals(answer, reading.text):
            return Score(1.0, True, reading.text)
    return score


def _same_to_two_decimals(expected: str, given: str) -> bool:
    """24.3 stands for 24.304, not for 24.31."""
    wanted, value = as_number(clean(expected)), as_number(clean(given[:MAX_LENGTH]))
    if wanted is None or value is None or round(wanted, 2) != round(value, 2):
        return False
    return abs(wanted - value) <= CLOSE * abs(wanted)
