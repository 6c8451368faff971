"""Which option of a multiple-choice question a response names."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from rewards.reading.extraction import last_line

LETTERS = string.ascii_uppercase
SHORT_LINE = 20
"""Words of a last line in which a capital that stands alone is taken for a choice."""

_STATEMENT = re.compile(
    r"\b(?:answers?|(?:correct|right|best) (?:choice|option))\b"
    r"(?:[ \t]+(?:is|would be|should be|must be))?[ \t]*:?"
    r"[ \t]*(?:(?:option|choice|letter)[ \t]+)?[*$\\({\[ ]{0,8}(?:text(?:bf)?\{)?[({\[]{0,2}"
    r"(?P<letter>[A-Z])(?![A-Za-z'])",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"\(([A-Z])\)")
_ALONE = re.compile(r"(?<![\w'\\^_{+*/=-])([A-Z])(?![\w'^_{}+*/=-])(?! [a-z]{2,} )")
_LEADING = re.compile(r"\A\s*([A-Z])(?:[).:]|\s*\Z)")
_SEVERAL = re.compile(
    r"\(?[A-Z]\)?"
    r"(?:(?: *[,&/]| +(?:and|or)\b) *(?:(?:and|or)\b *)?\(?[A-Za-z]\b\)?)+[ .]*\Z"
)
_LIST = re.compile(r"[)\s]*(?:,|and|or|&|/)[\s(]*(?:and |or )?\(?([A-Za-z])\b(?!['\w])")


def letter_of(answer: str, choices: Sequence[str]) -> str | None:
    """The option that an expected answer names: its letter, or its text."""
    stripped = answer.strip().strip("().").upper()
    if len(stripped) == 1 and stripped in LETTERS[: len(choices)]:
        return stripped
    return next(
        (letter for letter, text in zip(LETTERS, choices, strict=False) if text == answer), None
    )


def find_letter(text: str, count: int) -> str | None:
    """The letter, of the first `count`, that a text settles on; None where it names none.

    First the last statement ("the answer is (B)"), then the last letter in brackets, then a letter
    at the very start, then the last capital that stands alone in a short last line without
    formulas (elsewhere it names a point or a quantity). Letters stated together (`A and C`) are no
    choice, and where a text names several (`names_several`) only a statement is.
    """
    allowed = LETTERS[:count]
    line = last_line(text)
    is_short = len(line.split()) <= SHORT_LINE and "\\" not in line and "$" not in line
    places = [(_STATEMENT, text)]
    if not names_several(text):
        places += [(_BRACKETED, text), (_LEADING, text)] + [(_ALONE, line)] * is_short
    for pattern, place in places:
        matches = [match for match in pattern.finditer(place) if match[1] in allowed]
        if matches and not _is_listed(place, matches):
            return matches[-1][1]
    return None


def names_several(text: str) -> bool:
    """Whether the first or the last line is nothing but letters: `(A) and (D)`, `A, b, c`."""
    first = text.lstrip().partition("\n")[0].strip()
    return any(_SEVERAL.match(line) for line in (first, last_line(text)))


def _is_listed(text: str, matches: list[re.Match[str]]) -> bool:
    """Whether the last letter stands beside another one: `A and C`."""
    last = matches[-1]
    if _LIST.match(text, last.end()):
        return True
    before = matches[-2] if len(matches) > 1 else None
    link = _LIST.match(text, before.end()) if before else None
    return link is not None and link.start(1) == last.start(1) and link[1] != before[1]  # type: ignore
