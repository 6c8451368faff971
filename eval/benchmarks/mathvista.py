"""MathVista: 1,000 questions (testmini) on figures, charts and tables.

Rules of github.com/lupantech/MathVista, `evaluation/`. The official extraction asks GPT-4 where its
own few rules fail; here rules take that place, so `official` is official only from the extraction
on. `judge` starts from an extraction made elsewhere.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

from eval.benchmarks.benchmark import Benchmark, Verdict, lettered_choices, letters
from rewards.reading.extraction import boxes
from thinking_rl.types import Problem

_HINTS = {
    "multi_choice": "Please answer the question and provide the correct option letter, e.g., A, B, "
    "C, D, at the end.",
    "integer": "Please answer the question requiring an integer answer and provide the final "
    "value, e.g., 1, 2, 3, at the end.",
    "float 1": "Please answer the question requiring a floating-point number with one decimal "
    "place and provide the final value, e.g., 1.2, 1.3, 1.4, at the end.",
    "float 2": "Please answer the question requiring a floating-point number with two decimal "
    "places and provide the final value, e.g., 1.23, 1.34, 1.45, at the end.",
    "list": "Please answer the question requiring a Python list as an answer and provide the final "
    "list, e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end.",
}
_LETTER = re.compile(r"\(([a-zA-Z])\)")
_LONE_LETTER = re.compile(r"\(?([A-H])\)?(?![\w'])")
_NUMBER = re.compile(r"-?(?:\d+(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))")
_STATEMENT = re.compile(
    r"\b(?:answers? (?:is|are|should be|must be|would be)|answers?\**:|answer\s*=)", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")
MAX_STATED = 500
_LIST = re.compile(r"\[[^\[\]]*\]")


def prompt(problem: Problem) -> str:
    """The data set's `query`, or the same built from its parts: hint, question, choices."""
    if query := problem.metadata.get("query"):
        return str(query)
    kind = _kind(problem)
    hint = _HINTS.get(kind) or _HINTS[f"float {_precision(problem)}"]
    unit = problem.metadata.get("unit")
    question = f"Question: {problem.question}" + (f" (Unit: {unit})" if unit else "")
    lines = [f"Hint: {hint}", question]
    if problem.choices:
        lines += ["Choices:", lettered_choices(problem)]
    return "\n".join(lines)


def extract(response: str, problem: Problem) -> str | None:
    """The answer in a response: the official quick rules, then ours; None if there is none.

    Ours look for a letter, a number or a list, as the question asks: in the last box, which is
    taken whole where it has none; else after the last "answer is"; else anywhere, the last one.
    """
    if not response.strip():
        return None
    if problem.choices and response in problem.choices:
        return response
    if not problem.choices and _as_float(response) is not None:
        return response.strip()
    if (quoted := _quoted(response)) is not None:
        return quoted
    read = _choice_in if problem.choices else _value_in
    if boxed := boxes(response)[-1:]:
        return read(boxed[0], problem) or boxed[0]
    return read(_stated(response), problem) or read(response, problem)


def normalise(extraction: str, problem: Problem) -> str | None:
    """The prediction that an extraction stands for: a choice's text, or a number as text.

    For a choice that is not named exactly, the nearest by edit distance, so there is always one.
    None where a number was asked for and there is none.
    """
    kind = _kind(problem)
    if kind == "multi_choice":
        extraction = extraction.strip()
        if letter := _LETTER.search(extraction):
            extraction = letter[1].upper()
        if extraction in letters(problem):
            return problem.choices[letters(problem).index(extraction)]
        return min(problem.choices, key=lambda choice: edit_distance(extraction, choice))
    if kind == "list":
        return extraction
    value = _as_float(extraction)
    if value is None or value - value != 0:
        return None
    return str(int(value)) if kind == "integer" else str(round(value, _precision(problem)))


def judge(extraction: str, problem: Problem) -> Verdict:
    """The official verdict on an extraction."""
    prediction = normalise(extraction, problem)
    is_empty = prediction is None or not extraction.strip()
    return Verdict(prediction == problem.answer, prediction, parse_failed=is_empty)


def official(response: str, problem: Problem, guess: random.Random | None = None) -> Verdict:
    """The official verdict on what our rules extract."""
    extraction = extract(response, problem)
    return judge(extraction, problem) if extraction else Verdict(False, None, parse_failed=True)


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance: insertions, deletions and replacements of one character."""
    row = list(range(len(second) + 1))
    for index, one in enumerate(first, start=1):
        diagonal, row[0] = row[0], index
        for column, other in enumerate(second, start=1):
            cost = min(row[column] + 1, row[column - 1] + 1, diagonal + (one != other))
            diagonal, row[column] = row[column], cost
    return row[-1]


def _stated(text: str) -> str:
    """The last answer given in words ("the answer is ..."), up to the end of its sentence."""
    ends = [match.end() for match in _STATEMENT.finditer(text)]
    if not ends:
        return ""
    tail = text[ends[-1] : ends[-1] + MAX_STATED].lstrip(" :*\n")
    end = _SENTENCE_END.search(tail)
    return tail[: end.start()] if end else tail


def _quoted(response: str) -> str | None:
    """What stands between `The answer is "` and the last `".` of the first line that has both."""
    for line in response.split("\n"):
        _, opening, rest = line.partition('The answer is "')
        answer, closing, _ = rest.rpartition('".')
        if opening and closing:
            return answer
    return None


def _kind(problem: Problem) -> str:
    """multi_choice, or the answer type of a free-form question: integer, float, list, text."""
    return "multi_choice" if problem.choices else str(problem.metadata.get("answer_type", "text"))


def _precision(problem: Problem) -> int:
    return int(problem.metadata.get("precision") or 0)


def _choice_in(text: str, problem: Problem) -> str | None:
    """The last letter in brackets, else the text of a choice named last, else a lone letter."""
    named = [letter.upper() for letter in _LETTER.findall(text)]
    named = [letter for letter in named if letter in letters(problem)]
    if named:
        return named[-1]
    places = {choice: _last_place(choice.lower(), text.lower()) for choice in problem.choices}
    lone = [match for match in _LONE_LETTER.finditer(text) if match[1] in letters(problem)]
    if max(places.values()) >= 0:
        return max(places, key=lambda choice: (places[choice], len(choice)))
    return lone[-1][1] if lone else None


def _last_place(words: str, text: str) -> int:
    """Where `words` stand last, no part of a longer word or number; -1 if nowhere."""
    found = list(re.finditer(rf"(?<![\w.]){re.escape(words)}(?!\.?\w)", text))
    return found[-1].start() if found else -1


def _value_in(text: str, problem: Problem) -> str | None:
    """The last list or number."""
    pattern = _LIST if _kind(problem) == "list" else _NUMBER
    found = [match for match in pattern.findall(text) if match]
    return found[-1].replace(",", "") if found and pattern is _NUMBER else (found or [None])[-1]


def _as_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _subject_from_task(problem: Problem) -> Problem:
    details = problem.metadata.get("metadata") or {}
    return replace(problem, subject=str(details.get("task", problem.subject)))


BENCHMARK = Benchmark(
    name="mathvista",
    hub_id="AI4Math/MathVista",
    splits=("testmini",),
    format="mathvista",
    refine=_subject_from_task,
    prompts={"official": prompt, "kimi": prompt},
    extract=extract,
    official=official,
    strict_grader=lambda problem: "mathvista_strict",
)
