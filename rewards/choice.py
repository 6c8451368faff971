"""Multiple choice: does the response settle on the expected option?

The official MMMU rules guess at random where a response names no option, and take the last letter
it mentions; here nothing is guessed, and a statement ("the answer is B") goes before letters that
are only mentioned.
"""

from __future__ import annotations

from rewards.math_answer import chosen_option, option_named_by
from rewards.reading.extraction import Reading, after_thinking, last_line, read_answer
from rewards.reading.options import LETTERS, letter_of, lists_letters, named_letters
from rewards.reading.values import TooLargeError
from rewards.reading.words import is_hedged, is_negated
from thinking_rl.types import Problem, Score

LONGEST_STATED = 10
"""Words of a stated answer in which an option's text is taken for a choice."""
SHORT = 5
"""Responses of up to this many words are taken to be an answer, not reasoning."""


def choice(problem: Problem, response: str) -> Score:
    """1.0 if the response names the expected option, by its letter or its text, else 0.0.

    Raises:
        ValueError: the problem has no choices, or its answer is none of them.
    """
    expected = letter_of(problem.answer, problem.choices)
    if expected is None:
        raise ValueError(
            f"problem {problem.id!r}: the answer {problem.answer!r} is none of its "
            f"{len(problem.choices)} choices"
        )
    reading = read_answer(response)
    if reading is None:
        return Score(0.0, False, note="no answer")
    try:
        letter = chosen_letter(problem, response, reading)
    except TooLargeError as error:
        return Score(0.0, False, reading.text, note=str(error))
    right = letter == expected
    return Score(float(right), right, letter, note=reading.doubt)


def chosen_letter(problem: Problem, response: str, reading: Reading | None = None) -> str | None:
    """The option that the response settles on; None if it names none or does not settle.

    Args:
        reading: the response's, where it is known already.

    Raises:
        TooLargeError: a value in it is too large to compute.
    """
    reading = reading or read_answer(response)
    if reading is None or reading.doubt:
        return None
    choices, summary = problem.choices, after_thinking(response) or ""
    if lists_letters(summary if reading.kind == "line" else reading.text):
        return None
    if reading.kind == "line" and len(summary.split()) <= SHORT:
        named = option_named_by(summary, choices)
        if named is not None:
            return named
    named = chosen_option(reading, summary, choices)
    if named is not None or reading.kind == "box" or named_letters(reading.text, len(choices)):
        return named
    if reading.kind == "line":
        return option_quoted(last_line(summary), choices)
    is_short = len(reading.text.split()) <= LONGEST_STATED
    return option_quoted(reading.text, choices) if is_short else None


def option_quoted(text: str, choices: tuple[str, ...]) -> str | None:
    """The one option whose text stands in `text`, of several in one place the longest.

    None where several are quoted, or the text denies or doubts anything. An option that is just a
    label or a name (`A`, `$S$`) has no text to be quoted.
    """
    if is_negated(text) or is_hedged(text):
        return None
    folded = text.casefold()
    labels = LETTERS[: len(choices)]
    places = [
        (place + len(option), len(option), letter)
        for letter, option in zip(LETTERS, choices, strict=False)
        if option.strip() not in labels
        and (place := _last_place(folded, option.casefold().strip())) >= 0
    ]
    if not places:
        return None
    end, size, letter = max(places)
    apart = [place for place in places if place[0] <= end - size or place[0] > end]
    is_name = sum(map(str.isalnum, choices[LETTERS.index(letter)])) < 2
    return None if apart or is_name else letter


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
