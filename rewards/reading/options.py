"""Which option of a multiple-choice question a text names."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from rewards.reading.extraction import last_line
from rewards.reading.words import is_hedged, is_negated

LETTERS = string.ascii_uppercase
SHORT_LINE = 30
"""Words of a last line in which a capital that stands alone is taken for a choice."""

# Letters as options: (B); B alone, unless it begins a sentence ("A closer look"); ABC.
_BRACKETED = re.compile(r"\(([A-Z])\)")
_ALONE = re.compile(
    r"(?<![\w'\\^_{+*=-])([A-Z])(?![\w'^_{}+*=-])"
    r"(?! (?!(?:is|and|or|fits|works|matches|because|as|since|seems|must)\b)[a-z]{2,})"
)
_TOGETHER = re.compile(r"(?<![A-Za-z])([A-Z]{2,10})(?![A-Za-z])")
# "not A", "rather than A": an aside that settles nothing.
_ASIDE = re.compile(
    r"[,;]? *(?:\b(?:and |but )?not (?:option |choice )?\(?[A-Z]\)?(?![A-Za-z])"
    r"|\b(?:rather than|instead of|as opposed to|because|since)\b).*"
)
# "(A) and (D)", "A, b, c": a line that lists; "A." before an option; a first line of one letter.
_LIST = re.compile(
    r"\(?[A-Z]\)?(?:(?: *[,;&/|、.]| +(?:and|or)\b) *(?:(?:and|or)\b *)?\(?[A-Za-z]\b\)?)+[ .]*\Z"
)
_LABEL = re.compile(r"[\s*\-]*\(?([A-Z])[).:]")
_LEADING = re.compile(r"\A\s*\*{0,2}\(?([A-Z])(?:[).:]{1,2})?\*{0,2}[ .]*\n")
_NO = re.compile(r"[,;:]? \(?no\W*\Z", re.IGNORECASE)
_CLAUSE = re.compile(
    r"[.!?;](?:\s|$)|\n|\b(?:so|thus|hence|therefore)\b"
    r"|(?<!thing )(?<!all )(?<!any )(?<!option )\bbut\b|因此|所以|故|。",
    re.IGNORECASE,
)


def letter_of(answer: str, choices: Sequence[str]) -> str | None:
    """The option that an expected answer names: its letter, or its text."""
    if len(answer) > 1 and answer in choices:
        return LETTERS[choices.index(answer)]
    stripped = answer.strip().strip("().").upper()
    if len(stripped) == 1 and stripped in LETTERS[: len(choices)]:
        return stripped
    return next(
        (letter for letter, text in zip(LETTERS, choices, strict=False) if text == answer), None
    )


def named_letters(text: str, count: int) -> list[str]:
    """The letters, of the first `count`, that stand alone or in brackets, each once."""
    allowed = LETTERS[:count]
    found = [*_BRACKETED.findall(text), *_ALONE.findall(text)]
    for word in _TOGETHER.findall(text):  # ABC is three options, CAT is a word
        if set(word) <= set(allowed) and list(word) == sorted(set(word)):
            found += word
    return list(dict.fromkeys(letter for letter in found if letter in allowed))


def lists_letters(text: str) -> bool:
    """Whether the first or the last line is nothing but letters (`(A) and (D)`, `A, b, c`), or the
    last two lines list options.
    """
    first = text.lstrip().partition("\n")[0].strip()
    if any(_LIST.match(line) for line in (first, last_line(text))):
        return True
    labels = [_LABEL.match(line) for line in text.strip()[-400:].split("\n")[-2:]]
    return len(labels) == 2 and all(labels) and labels[0][1] != labels[1][1]  # type: ignore


def letter_stated(text: str, count: int) -> str | None:
    """The letter, of the first `count`, that the last clause naming any settles on.

    A first line of that letter alone says it; else it is looked for in the last line, where in a
    line with formulas or of more than `SHORT_LINE` words only letters in brackets count: elsewhere
    a capital is a point or a quantity. None where it names several, denies what it names, or leaves
    it open.
    """
    first = _LEADING.match(text)
    if first and first[1] in LETTERS[:count]:
        return first[1]
    line = last_line(text).replace("*", "").replace("_", " ")
    is_plain = len(line.split()) <= SHORT_LINE and "\\" not in line and "$" not in line
    for clause in reversed(_CLAUSE.split(line)):
        if not clause:
            continue
        aside = _ASIDE.search(clause)
        if aside and named_letters(clause[: aside.start()], count):
            clause = clause[: aside.start()]
        named = named_letters(clause, count) if is_plain else _bracketed(clause, count)
        if named:
            clause = _NO.sub("", clause)  # (B), no
            is_open = is_negated(clause) or is_hedged(clause)
            return named[0] if len(named) == 1 and not is_open else None
    return None


def _bracketed(text: str, count: int) -> list[str]:
    return list(dict.fromkeys(x for x in _BRACKETED.findall(text) if x in LETTERS[:count]))
