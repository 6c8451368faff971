"""GSM8K: grade-school word problems in text, answers are whole numbers.

Rules of github.com/openai/grade-school-math, `dataset.py`.
"""

from __future__ import annotations

import random
import re

from eval.benchmarks.benchmark import Benchmark, Verdict
from rewards.reading.extraction import boxes
from thinking_rl.types import Problem

_MARKED = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"-?[0-9.,]*[0-9]")


def official_prompt(problem: Problem) -> str:
    """The question, and the request for the data set's own answer mark."""
    return (
        f"{problem.question}\n"
        'Think step by step, and end with a line "#### " followed by the answer as a number.'
    )


def kimi_prompt(problem: Problem) -> str:
    """The question, and the request for a boxed answer."""
    return (
        f"{problem.question}\nPlease reason step by step, and put your answer within \\boxed{{}}."
    )


def extract(response: str, problem: Problem) -> str | None:
    """The number after the first `####`, without commas.

    The official rules end there; for models that box their answer, a number alone in the last box
    counts where there is no mark.
    """
    match = _MARKED.search(response)
    if match:
        return match[1].replace(",", "")
    boxed = boxes(response)
    if boxed and _NUMBER.fullmatch(number := boxed[-1].lstrip("\\$ ")):
        return number.replace(",", "")
    return None


def official(response: str, problem: Problem, guess: random.Random | None = None) -> Verdict:
    """Right if the number is spelt like the expected one, commas aside."""
    extracted = extract(response, problem)
    if extracted is None:
        return Verdict(False, None, parse_failed=True)
    return Verdict(extracted == problem.answer, extracted)


BENCHMARK = Benchmark(
    name="gsm8k",
    hub_id="openai/gsm8k",
    splits=("test", "train"),
    format="gsm8k",
    subsets=("main",),
    prompts={"official": official_prompt, "kimi": kimi_prompt},
    extract=extract,
    official=official,
    strict_grader=lambda problem: "math_answer",
)
