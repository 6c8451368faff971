"""MATH-Vision: 3,040 competition problems with images (testmini: 304).

Rules of github.com/mathllm/MATH-V, `evaluation/`.
"""

from __future__ import annotations

import random
import re

from eval.benchmarks.benchmark import Benchmark, Verdict, lettered_choices
from eval.benchmarks.latex_number import latex_number
from eval.benchmarks.latex_text import (
    braced_fractions,
    braced_roots,
    plain_latex,
    slash_fraction,
    without_units,
)
from thinking_rl.types import Problem

ANNOUNCEMENTS = (
    "the final answer is",
    "the answer is",
    "the correct answer is",
    "the answer should be",
)
_INSTRUCTION = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a '
    'multiple choice question, only one letter is allowed in the "\\boxed{}".'
)
_LAST_BOX = re.compile(r"oxed\{(.*)\}", re.S)


def prompt(problem: Problem) -> str:
    """Choices are left out where they are just the letters, which are in the picture."""
    if "".join(problem.choices) == "ABCDE"[: len(problem.choices)]:
        return f"{_INSTRUCTION}\n{problem.question}\n"
    return f"{_INSTRUCTION}\n{problem.question}\n{lettered_choices(problem)}\n"


def extract(response: str, problem: Problem) -> str | None:
    """The answer, in lower case and with its LaTeX tidied; None if nothing is left."""
    text = _lone_letter(response.strip())
    number = text.split("is ")[-1].rstrip(".")
    if _is_float(number):
        text = number
    if "oxed{" not in text:
        text = _announced(text)
    elif text.count("oxed{") > 1:
        text = "\\boxed{" + text.split("oxed{")[-1]
    answer = _tidy(text)
    for opening, closing in ("()", "{}"):
        for letter in "abcde":
            answer = answer.replace(f"{opening}{letter}{closing}", letter)
    return answer.rstrip(".").lstrip(":").strip() or None


def official(response: str, problem: Problem, guess: random.Random | None = None) -> Verdict:
    """Right if the answer equals the expected letter or the text of the expected choice."""
    extracted = extract(response, problem)
    if extracted is None:
        return Verdict(False, None, parse_failed=True)
    return Verdict(matches(extracted, problem), extracted)


def matches(answer: str, problem: Problem) -> bool:
    """Whether an extracted answer is right."""
    expected = [problem.answer]
    if problem.choices:
        expected.append(problem.choices[ord(problem.answer) - ord("A")])
    return any(is_equal(answer, one) for one in expected)


def is_equal(answer: str, expected: str) -> bool:
    """Equal as text, as tuples, or as numbers rounded to two places. Empty equals nothing."""
    answer, expected = answer.lower(), expected.lower()
    if not answer.replace(" ", "") or not expected.replace(" ", ""):
        return False
    if answer.strip() == expected.strip():
        return True
    answer, expected = _rounded_tuple(answer), _rounded_tuple(expected)
    if answer == expected:
        return True
    values = latex_number(expected), latex_number(answer)
    return None not in values and _rounded(values[0]) == _rounded(values[1])


def _lone_letter(text: str) -> str:
    """The letter, where the response begins or ends with one in a telling way."""
    for letter in "ABCDE":
        if text.endswith((f" {letter}.", f" ({letter}).")) or text.startswith(
            (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        ):
            text = letter
    return text


def _announced(text: str) -> str:
    """What follows the announcement of the answer, to the end of its line or sentence."""
    for announcement in ANNOUNCEMENTS:
        for flag in (announcement, announcement.replace("the", "The")):
            if flag in text:
                text = text.split(flag)[-1].strip().split("\n")[0].split(". ")[0]
            else:
                text = text.strip()
    return text


def _tidy(text: str) -> str:
    """The content of the box, what follows its last equals sign, without units and spacing."""
    text = text.lower().replace("{}", "")
    boxed = _LAST_BOX.findall(text)
    answer = boxed[-1] if boxed else text
    close, opening = answer.find("}"), answer.find("{")
    if close != -1 and (opening == -1 or close < opening):
        answer = answer[:close]
    answer = answer.split("=")[-1].split("\\approx")[-1]
    for old, new in _FIRST_REPLACEMENTS:
        answer = answer.replace(old, new)
    return _standard_latex(answer)


_FIRST_REPLACEMENTS = (
    (" ", ""),
    ("\\,", ""),
    ("∞", "\\infty"),
    ("+\\infty", "\\infty"),
    ("\\\\", "\\"),
    ("\n", ""),
    ("\\text", ""),
    ("\\mbox", ""),
    ("bmatrix", "pmatrix"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("{m}^3", ""),
    ("m^3", ""),
    ("{units}", ""),
    ("units", ""),
    ("{km}", ""),
    ("km", ""),
)


def _standard_latex(text: str) -> str:
    """One spelling for fractions, roots and decimals."""
    text = without_units(plain_latex(text).replace("$", ""))
    for sign in ("=", "\\approx"):
        if text.count(sign) == 1:
            text = text.split(sign)[1]
    if "sqrt" in text:
        text = braced_fractions(braced_roots(text).replace(" ", ""))
    text = text.replace(" ", "")
    return slash_fraction("\\frac{1}{2}" if text == "0.5" else text)


def _rounded_tuple(text: str) -> str:
    """A tuple or list with each element's number rounded; unchanged if an element has none."""
    elements = text[1:-1].split(",")
    if text[0] + text[-1] not in {"()", "[]"} or len(elements) < 2:
        return text
    rounded = []
    for element in elements:
        if "infty" in element or element in {"a", "-a"}:
            rounded.append(element)
            continue
        value = latex_number(element)
        if value is None:
            return text
        rounded.append(str(_rounded(value)))
    return text[0] + ",".join(rounded) + text[-1]


def _rounded(value: int | float | None) -> int | float | None:
    return None if value is None else round(value, 2)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


BENCHMARK = Benchmark(
    name="mathvision",
    hub_id="MathLLMs/MathVision",
    splits=("test", "testmini"),
    format="mathvision",
    prompts={"official": prompt, "kimi": prompt},
    extract=extract,
    official=official,
    strict_grader=lambda problem: "math_answer",
)
