"""Multiple choice: does the response settle on the expected option?

The official MMMU rules guess at random where a response names no option, and take the last letter
it mentions; here nothing is guessed, and a statement ("the answer is B") goes before letters that
are only mentioned.
"""

from __future__ import annotations

from rewards.math_answer import option_named_by
from rewards.reading.extraction import after_thinking, boxes
from rewards.reading.options import LETTERS, find_letter, letter_of
from thinking_rl.types import Outcome, Problem, Score

SHORT = 5
"""Responses of up to this many words are taken to be an answer, not reasoning."""


def choice(problem: Problem, response: str) -> Score:
    """1.0 if the response names the expected option, by its letter or its text, else 0.0.

    Raises ValueError if the problem has no choices, or its answer is none of them.
    """
    expected = letter_of(problem.answer, problem.choices)
    if expected is None:
        raise ValueError(
            f"problem {problem.id!r}: the answer {problem.answer!r} is none of its "
            f"{len(problem.choices)} choices"
        )
    letter = chosen_letter(problem, response)
    right = letter == expected
    return Score(float(right), right, Outcome.RIGHT if right else Outcome.WRONG, extracted=letter)


def chosen_letter(problem: Problem, response: str) -> str | None:
    """The option that the response settles on; None if it names none or does not settle."""
    summary = after_thinking(response)
    if summary is None or not summary.strip():
        return None
    boxed = boxes(summary)
    if boxed:
        named = option_named_by(boxed[-1], problem.choices)
        return named or option_quoted(boxed[-1], problem.choices)
    if len(summary.split()) <= SHORT:
        named = option_named_by(summary, problem.choices)
        if named is not None:
            return named
    return find_letter(summary, len(problem.choices)) or option_quoted(summary, problem.choices)


def option_quoted(text: str, choices: tuple[str, ...]) -> str | None:
    """The option whose text stands last in `text`; of several that end there, the longest.

    An option that is just a label (`A`) has no text to be quoted.
    """
    folded = text.casefold()
    labels = LETTERS[: len(choices)]
    places = [
        (place + len(option), len(option), letter)
        for letter, option in zip(LETTERS, choices, strict=False)
        if option.strip() not in labels
        and (place := _last_place(folded, option.casefold().strip())) >= 0
    ]
    return max(places)[2] if places else None


def _last_place(text: str, words: str) -> int:
    """Where `words` stand last in `text` with no letter or digit next to them; -1 if nowhere."""
    end = len(text)
    while words and (place := text.rfind(words, 0, end)) >= 0:
        before, after = text[place - 1 : place], text[place + len(words) :][:1]
        if not (before.isalnum() and words[0].isalnum()) and not (
            after.isalnum() and words[-1].isalnum()
        ):
            return place
        end = place + len(words) - 1
    return -1
