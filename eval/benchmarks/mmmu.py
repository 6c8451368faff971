"""MMMU: college questions of 30 subjects, with up to seven images in place.

Rules of github.com/MMMU-Benchmark/MMMU, `mmmu/utils/`.
"""

from __future__ import annotations

import ast
import random
import re
from dataclasses import replace

from eval.benchmarks.benchmark import Benchmark, Verdict, lettered_choices, letters
from thinking_rl.types import Problem

SUBJECTS = (
    "Accounting",
    "Agriculture",
    "Architecture_and_Engineering",
    "Art",
    "Art_Theory",
    "Basic_Medical_Science",
    "Biology",
    "Chemistry",
    "Clinical_Medicine",
    "Computer_Science",
    "Design",
    "Diagnostics_and_Laboratory_Medicine",
    "Economics",
    "Electronics",
    "Energy_and_Power",
    "Finance",
    "Geography",
    "History",
    "Literature",
    "Manage",
    "Marketing",
    "Materials",
    "Math",
    "Mechanical_Engineering",
    "Music",
    "Pharmacy",
    "Physics",
    "Psychology",
    "Public_Health",
    "Sociology",
)
"""In the order in which the official script goes through them."""

INDICATORS = (
    "could be ",
    "so ",
    "is ",
    "thus ",
    "therefore ",
    "final ",
    "answer ",
    "result ",
)
"""Words after which the open answer is looked for."""

OPEN_INSTRUCTION = "Answer the question using a single word or phrase."
LETTER_INSTRUCTION = "Answer with the option's letter from the given choices directly."
KIMI_INSTRUCTION = (
    "Answer the preceding question. The last line of your response should follow this format: "
    "'Answer: $\\boxed{LETTER}$' (without quotes), where LETTER is one of the options. Think step "
    "by step logically, considering all relevant information before answering."
)

MAX_SEARCHED = 2_000
"""Numbers are looked for in so many last characters of a phrase: the time that the official
patterns take grows with the square of a run of digits."""

_STRIPPED = (",", ".", "!", "?", ";", ":", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
"""With thousands separators, scientific, plain."""


def official_prompt(problem: Problem) -> str:
    """The question, the options one a line, and the request for a short answer."""
    if not problem.choices:
        return f"{problem.question}\n\n{OPEN_INSTRUCTION}"
    return f"{problem.question}\n\n{lettered_choices(problem)}\n\n{LETTER_INSTRUCTION}"


def kimi_prompt(problem: Problem) -> str:
    """What Kimi-VL is asked by VLMEvalKit: options, and reasoning that ends in a boxed letter.

    There an open question has its answer as option A; here it stays open, its answer boxed.
    """
    if not problem.choices:
        instruction = KIMI_INSTRUCTION.replace("LETTER}", "ANSWER}").replace(
            "LETTER is one of the options", "ANSWER is a single word, phrase or number"
        )
        return f"{problem.question}\n{instruction}"
    options = lettered_choices(problem, "{}. {}")
    return f"Question: {problem.question}\nOptions:\n{options}\n{KIMI_INSTRUCTION}"


def parse_choice(response: str, problem: Problem) -> str | None:
    """The letter of the last option named: `(A)`, else ` A `, else the option's text; or None."""
    for character in _STRIPPED:
        response = response.strip(character)
    response = f" {response} "
    for form in ("({})", " {} "):
        names = {letter: form.format(letter) for letter in letters(problem)}
        if (found := last_named(response, names)) is not None:
            return found
    if len(response.split()) > 5:
        texts = zip(letters(problem), problem.choices, strict=True)
        return last_named(response.lower(), {letter: text.lower() for letter, text in texts})
    return None


def last_named(response: str, names: dict[str, str]) -> str | None:
    """The key whose name stands last in the response; the first key of several at one place."""
    places = {key: response.rfind(name) for key, name in names.items()}
    last = max(places, key=lambda key: places[key], default=None)
    return last if last is not None and places[last] >= 0 else None


def parse_open(response: str) -> list[str | float]:
    """Candidate answers: the key phrases of the response and all numbers in them, each once.

    Numbers are rounded to two places; single characters stand with a space before and after, so
    that they match at the edge of a word only.
    """
    phrases = _key_phrases(response)
    numbers = [
        number
        for phrase in phrases
        for pattern in _NUMBERS
        for number in pattern.findall(phrase[-MAX_SEARCHED:])
    ]
    candidates = [normal for text in phrases + numbers for normal in _normalised(text)]
    return list(dict.fromkeys(candidates))


def is_open_match(candidates: list[str | float], problem: Problem) -> bool:
    """Whether an expected text is part of a candidate, or a number equals one."""
    expected = [normal for text in _expected(problem.answer) for normal in _normalised(text)]
    for candidate in candidates:
        for one in expected:
            if isinstance(one, str) and isinstance(candidate, str):
                if one in candidate:
                    return True
            elif one == candidate:
                return True
    return False


def extract(response: str, problem: Problem) -> str | None:
    """The letter, or the candidates of an open answer as the text of a list."""
    if problem.choices:
        return parse_choice(response, problem)
    return str(parse_open(response)) if response.strip() else None


def official(response: str, problem: Problem, guess: random.Random | None = None) -> Verdict:
    """By letter, or by candidates for open questions. `guess` draws a letter where none is found.

    The official script draws from `random.Random(42)` over all questions in order of `SUBJECTS`.
    """
    if problem.choices:
        return judge_letter(parse_choice(response, problem), problem, guess)
    extracted = extract(response, problem)
    if extracted is None:
        return Verdict(False, None, parse_failed=True)
    return Verdict(is_open_match(parse_open(response), problem), extracted)


def judge_letter(letter: str | None, problem: Problem, guess: random.Random | None) -> Verdict:
    """The verdict on a letter; without one a parse failure, guessed at if asked for."""
    if letter is not None:
        return Verdict(letter == problem.answer, letter)
    if guess is None:
        return Verdict(False, None, parse_failed=True)
    letter = guess.choice(letters(problem))
    return Verdict(letter == problem.answer, letter, parse_failed=True)


def subject_from_id(problem: Problem) -> Problem:
    """Report by the 30 subjects, which only the id tells, rather than by subfield."""
    match = re.fullmatch(r"[a-z]+_(.+)_\d+", problem.id)
    return replace(problem, subject=match[1]) if match else problem


def _key_phrases(response: str) -> list[str]:
    """For each line the shortest tail after an indicator; the whole response if there is none."""
    response = response.strip().strip(".").lower()
    # The official code also splits at ". " before a capital, but lowercases first.
    lines = response.split("\n")
    phrases = []
    for number, line in enumerate(lines, start=1):
        indicators = (*INDICATORS, "=") if number == len(lines) else INDICATORS
        phrase = ""
        for word in indicators:
            tail = line.split(word)[-1].strip()
            if word in line and (not phrase or len(tail) < len(phrase)):
                phrase = tail
        if phrase and phrase not in _STRIPPED:
            phrases.append(phrase)
    return phrases or [response]


def _normalised(text: str) -> list[str | float]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _expected(answer: str) -> list[str]:
    """Some open questions have several right answers, as the text of a Python list."""
    if answer.startswith("["):
        try:
            answers = ast.literal_eval(answer)
        except (ValueError, SyntaxError):
            return [answer]
        return [str(one) for one in answers]
    return [answer]


BENCHMARK = Benchmark(
    name="mmmu",
    hub_id="MMMU/MMMU",
    splits=("validation", "dev"),
    format="mmmu",
    subsets=SUBJECTS,
    refine=subject_from_id,
    prompts={"official": official_prompt, "kimi": kimi_prompt},
    extract=extract,
    official=official,
    strict_grader=lambda problem: "choice" if problem.choices else "open_answer_strict",
    unbox=True,
)
