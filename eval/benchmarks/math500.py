"""MATH-500: competition problems in text, answers as LaTeX expressions.

Rules of github.com/hendrycks/math, `modeling/math_equivalence.py`: the last box, compared as text.
"""

from __future__ import annotations

import random

from eval.benchmarks.benchmark import Benchmark, Verdict
from eval.benchmarks.latex_text import (
    braced_fractions,
    braced_roots,
    plain_latex,
    slash_fraction,
    without_units,
)
from rewards.reading.extraction import boxes
from thinking_rl.types import Problem

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."


def prompt(problem: Problem) -> str:
    """The problem, then the request for a boxed answer; the data set itself has no wording."""
    return f"{problem.question}\n{INSTRUCTION}"


def extract(response: str, problem: Problem) -> str | None:
    """The content of the last complete box."""
    boxed = boxes(response)
    return boxed[-1] if boxed else None


def official(response: str, problem: Problem, guess: random.Random | None = None) -> Verdict:
    """Right if box and expected answer have the same spelling once normalised."""
    extracted = extract(response, problem)
    if extracted is None:
        return Verdict(False, None, parse_failed=True)
    return Verdict(normalise(extracted) == normalise(problem.answer), extracted)


def normalise(answer: str) -> str:
    """One spelling for fractions, roots, decimals and units."""
    text = without_units(plain_latex(answer))
    name, equals, value = text.partition("=")
    if equals and "=" not in value and len(name) <= 2:
        text = value
    text = braced_fractions(braced_roots(text).replace(" ", ""))
    return slash_fraction("\\frac{1}{2}" if text == "0.5" else text)


BENCHMARK = Benchmark(
    name="math500",
    hub_id="HuggingFaceH4/MATH-500",
    splits=("test",),
    format="plain",
    columns={"question": "problem", "id": "unique_id"},
    prompts={"official": prompt, "kimi": prompt},
    extract=extract,
    official=official,
    strict_grader=lambda problem: "math_answer",
)
