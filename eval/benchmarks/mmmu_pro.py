"""MMMU-Pro: MMMU with ten options (standard), and with the whole question as a picture (vision).

The reported score is the mean of the two. Rules of github.com/MMMU-Benchmark/MMMU, `mmmu-pro/`.
"""

from __future__ import annotations

import random
from dataclasses import replace

from eval.benchmarks.benchmark import Benchmark, Verdict, lettered_choices, letters
from eval.benchmarks.mmmu import KIMI_INSTRUCTION, judge_letter, last_named, subject_from_id
from thinking_rl.types import Problem

_ANSWER_FORMAT = (
    "The last line of your response should be of the following format: 'Answer: $LETTER' (without "
    "quotes) where LETTER is one of options. Think step by step before answering."
)
STANDARD_INSTRUCTION = f"Answer the preceding multiple choice question. {_ANSWER_FORMAT}"
VISION_INSTRUCTION = (
    f"Write out the multiple-choice question in the image and then solve it. {_ANSWER_FORMAT}"
)


def standard_prompt(problem: Problem) -> str:
    """The question, the options one a line, and the official step-by-step request."""
    return f"{problem.question}\n{lettered_choices(problem, '{}. {}')}\n{STANDARD_INSTRUCTION}"


def standard_kimi_prompt(problem: Problem) -> str:
    """As MMMU is asked of Kimi-VL, with a boxed letter."""
    options = lettered_choices(problem, "{}. {}")
    return f"Question: {problem.question}\nOptions:\n{options}\n{KIMI_INSTRUCTION}"


def vision_prompt(problem: Problem) -> str:
    """The request alone: question and options are in the picture."""
    return VISION_INSTRUCTION


def vision_kimi_prompt(problem: Problem) -> str:
    """The request alone, with a boxed letter."""
    return f"Write out the multiple-choice question in the image and solve it. {KIMI_INSTRUCTION}"


def extract(response: str, problem: Problem) -> str | None:
    """The only letter after the last `Answer:`, else much as in MMMU; or None.

    Two quirks are official: after `Answer:` any capital in a word counts as a letter, and of
    several letters named without brackets the one that stands last between spaces wins.
    """
    _, mark, tail = response.rpartition("Answer:")
    if mark:
        named = [letter for letter in letters(problem) if letter in tail]
        if len(named) == 1:
            return named[0]
    for character in (",", ".", "!", "?", ";", ":", "'"):
        response = response.strip(character)
    response = f" {response} "
    bracketed = {letter: f"({letter})" for letter in letters(problem)}
    if (found := last_named(response, bracketed)) is not None:
        return found
    for form in ("{} ", "{}."):
        named = [letter for letter in letters(problem) if form.format(letter) in response]
        if named:
            return max(named, key=lambda letter: response.rfind(f" {letter} "))
    if len(response.split()) > 5:
        texts = zip(letters(problem), problem.choices, strict=True)
        return last_named(response.lower(), {letter: text.lower() for letter, text in texts})
    return None


def official(response: str, problem: Problem, guess: random.Random | None = None) -> Verdict:
    """By letter; `guess` draws one where none is found."""
    return judge_letter(extract(response, problem), problem, guess)


def _without_question(problem: Problem) -> Problem:
    return replace(problem, question="")


STANDARD = Benchmark(
    name="mmmu_pro",
    hub_id="MMMU/MMMU_Pro",
    splits=("test",),
    format="mmmu",
    subsets=("standard (10 options)",),
    columns={"subject": "subject"},
    refine=subject_from_id,
    prompts={"official": standard_prompt, "kimi": standard_kimi_prompt},
    extract=extract,
    official=official,
    strict_grader=lambda problem: "choice",
    unbox=True,
)
VISION = replace(
    STANDARD,
    name="mmmu_pro_vision",
    subsets=("vision",),
    # A row has no question: the id stands in for it until the problem is refined.
    columns={"question": "id", "images": "image", "subject": "subject"},
    refine=_without_question,
    prompts={"official": vision_prompt, "kimi": vision_kimi_prompt},
)
