"""Answers as text: LaTeX and Unicode reduced to one plain spelling; numbers, times and bases.

All patterns are linear: no nested repeats, and nothing here is tried on more than `MAX_LENGTH`
characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from rewards.reading.words import is_kept

MAX_LENGTH = 1000
"""Longer answers are compared as text only."""

_CHARACTERS = str.maketrans(
    {
        **{0xFF01 + offset: 0x21 + offset for offset in range(94)},  # full-width forms
        **dict.fromkeys("−–—‐‑﹣－", "-"),
        **dict.fromkeys("×∗⋅·•", "*"),
        **dict.fromkeys("\u00a0\u2009\u202f\u3000", " "),
        "÷": "/",
        "⁄": "/",
        "√": "\\sqrt ",
        "∛": "\\sqrt[3] ",
        "π": "\\pi ",
        "∞": "\\infty ",
        "≤": "\\le ",
        "≥": "\\ge ",
        "⩽": "\\le ",
        "⩾": "\\ge ",
        "≠": "\\ne ",
        "≈": "\\approx ",
        "±": "\\pm ",
        "∪": "\\cup ",
        "∩": "\\cap ",
        "∈": "\\in ",
        "∅": "\\emptyset ",
        "∠": "\\angle ",
        "θ": "\\theta ",
        "α": "\\alpha ",
        "β": "\\beta ",
        "°": "\\degree ",
        "º": "\\degree ",
        "∘": "\\degree ",
        "、": ",",
        "。": ".",
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "\u200b": "",
        "\ufeff": "",
    }
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5",
    "⅗": "3/5", "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_FONTS = (
    r"\\(?:textnormal|textbf|textit|textrm|textsf|texttt|textup|textsc|text|mathrm|mathbf|mathit"
    r"|mathsf|mathtt|mathnormal|mbox|fbox|hbox|operatorname|boldsymbol|bm|emph|underline|ensuremath"
    r"|uline|boxed|rm|bf|textcolor ?\{[^{}]*\}|color ?\{[^{}]*\} ?(?=\{))\*? ?\{([^{}]*)\}"
)

Replacement = str | Callable[[re.Match[str]], str]


def _rules(pairs: Iterable[tuple[str, Replacement]]) -> list[tuple[re.Pattern[str], Replacement]]:
    return [(re.compile(pattern), replacement) for pattern, replacement in pairs]


# LaTeX commands to their plain spelling: spaces, fonts, relations, brackets.
_LATEX = _rules((
    (r"\\[({]?displaystyle|\\limits|\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?", " "),
    (r"\\(?:[dtc]|nice|s)frac(?![A-Za-z])", r"\\frac"),
    (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
    (r"(?<=\d)(?:\\[,!; ]|\{,\}|\{\\,\}|,\\!)(?=\d{3}(?!\d))", ""),  # thousands
    (r"\\[hv](?:space|skip)\*? ?(?:\{[^{}]*\})?|\\(?:strut|null|relax)(?![A-Za-z])", " "),
    (r"(?<!\\)\\[,;:! >]|\\q?quad(?![A-Za-z])|\\(?:thin|med|thick)space(?![A-Za-z])", " "),
    (_FONTS, r" \1 "),
    (_FONTS, r" \1 "),  # one in the other
    (r"\\(?:rm|bf|it|sf|tt|em|[Ll]arge|LARGE|[Hh]uge|normalsize|small|color ?\{[^{}]*\})"
     r"(?![A-Za-z])", " "),
    (r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))", r"\\degree "),
    (r"\\(?:leq|leqslant)(?![A-Za-z])", r"\\le "),
    (r"\\(?:geq|geqslant)(?![A-Za-z])", r"\\ge "),
    (r"\\neq(?![A-Za-z])", r"\\ne "),
    (r"\\(?:simeq|thickapprox|doteq)(?![A-Za-z])", r"\\approx "),
    (r"\\(?:times|cdot|ast)(?![A-Za-z])", "*"),
    (r"\\div(?![A-Za-z])", "/"),
    (r"\\Pr(?![A-Za-z])", "P"),
    (r"\\colon(?![A-Za-z])", ":"),
    (r"\\%", "%"),
    (r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
    (r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
    (r"\\(?:lbrack)(?![A-Za-z])", "["),
    (r"\\(?:rbrack)(?![A-Za-z])", "]"),
    (r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
))  # fmt: skip
_CHINESE_KEPT = "或不非没錯错百千万亿半多和与到至对倍打除外反否假未无無吗嗎以上下余餘超内"
"""Characters after a number that change, deny or doubt it."""
# The rest, in any text: characters, groups of digits, words for powers of ten.
_REWRITES = _rules((
    (r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}"),
    (r"[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]", lambda match: " " + _VULGAR[match[0]]),
    (r"(?<=\d)\{,\}(?=\d{3}(?!\d))", ""),
    (r"~", " "),
    (r"(?<=[\d})]) *[^\x00-\u2e7f" + _CHINESE_KEPT + r"]{1,8} *$", ""),  # 72平方厘米
    (r"(?<![\d.,/^_])(?<!\d )\d{1,3}(?: \d{3})+(?![\d/]| \d)",
     lambda match: match[0].replace(" ", "")),
    (r"\bdegrees? (?=[cC]elsius|[fF]ahrenheit)", ""),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"!=", r"\\ne "),
    (r"\+/-|\+-", r"\\pm "),
    (r"\*\*(?=$)", ""),
    (r"\*\*", "^"),
    (r"(?<=[\d}) ])(hundred|thousand|million|billion|trillion|dozen)s?(?![A-Za-z])",
     lambda match: "*" + _MULTIPLIERS[match[1]] + " "),
    (r"(?<![\\^_])(?<!begin)(?<!end)\{([A-Za-z]{4,})\}", r" \1 "),  # 8\sqrt{3}{inches}
    (r"\s+", " "),
))  # fmt: skip
_MULTIPLIERS = {
    "dozen": "12", "hundred": "100", "thousand": "1000", "million": "1000000",
    "billion": "1000000000", "trillion": "1000000000000",
}  # fmt: skip
_WRAPPERS = (
    ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("__", "__"),
    ("`", "`"), ("*", "*"),
)  # fmt: skip
# Punctuation and spaces after the value.
_END = re.compile(r"(?:\\[,;:! ]?|\\q?quad|\\\\|(?<!\\)[.,;]|\s|(?<=\s)~)+$")
# `=`, `approximately`, `the answer is`, or a label of some words: `Area of the square:`.
_LEADING = re.compile(
    r"(?i)^(?:=|\\approx|(?:exactly|approximately|approx\.?|about|roughly|around|just|only|simply)"
    r"(?![A-Za-z])|(?:the |final )*answer is(?![A-Za-z])|[A-Za-z]{2,}(?: [A-Za-z]+){0,4}:(?!\d))\s*"
)
_LEADING_WORD = re.compile(r"[A-Za-z]{3,}")

_SIMPLE = re.compile(r"-?[A-Za-z0-9]{1,40}(?:\.[0-9]{1,40})?\Z")


@lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """One spelling for the many ways to write the same answer."""
    if _SIMPLE.match(text) and text.isascii():
        return text
    text = _unwrap(text.translate(_CHARACTERS))
    if text.startswith("\\boxed{") and text.endswith("}") and text.count("\\boxed") == 1:
        text = _unwrap(text[len("\\boxed{") : -1])
    if "$" in text and (text.count("$") - text.count("\\$")) % 2 == 0:
        text = re.sub(r"(?<!\\)\$", " ", text)
    if "\\" in text:
        text = text.replace("\\(", " ").replace("\\)", " ").replace("\\$", "$")
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _without_leading(text.strip(" ").rstrip(".,;: ")).strip()


def _without_leading(text: str) -> str:
    """Without `approximately`, `Area:` and the like before a value; `anything but:` stays."""
    leading = _LEADING.match(text)
    if leading is None or any(map(is_kept, _LEADING_WORD.findall(leading[0]))):
        return text
    return text[leading.end() :]


def _unwrap(text: str) -> str:
    """Without math delimiters, emphasis and end punctuation around the whole."""
    while True:
        text = _END.sub("", text.strip())
        for start, end in _WRAPPERS:
            inside = text[len(start) : len(text) - len(end)]
            if (
                len(text) > len(start) + len(end)
                and text.startswith(start)
                and text.endswith(end)
                and not inside.endswith("\\")
                and start not in inside
            ):
                text = inside
                break
        else:
            return text


_NOT_WORDS = re.compile(r"[^\w.%]+")
_ARTICLES = re.compile(r"^\W*(?:the|a|an) +(?=[^\W\d]{2})")


def as_words(cleaned: str) -> str:
    """A text answer as lower-case words, without punctuation and a leading article."""
    folded = _ARTICLES.sub("", cleaned.casefold().replace("_", " "))
    return _NOT_WORDS.sub(" ", folded).strip(" .")


_NUMBER = re.compile(
    r"-?(?:\d{1,3}(?:,\d{3})+|\d{1,300})?(?:\.\d{1,300})?(?:e[+-]?\d{1,3})?\Z",
    re.IGNORECASE | re.ASCII,
)


def as_number(cleaned: str) -> float | None:
    """A plain number, perhaps with its thousands set apart; None of anything else."""
    if not _NUMBER.match(cleaned) or not any(mark.isdigit() for mark in cleaned):
        return None
    try:
        return float(cleaned.replace(",", ""))
    except (ValueError, OverflowError):
        return None


_TIME = re.compile(
    r"^(\d{1,2}):([0-5]\d)(?::([0-5]\d))?(?: ?(am|pm|a\.m|p\.m)\.?)?(?: o'?clock)?$", re.IGNORECASE
)


def as_time(cleaned: str) -> tuple[int, bool] | None:
    """Seconds since midnight, and whether the half of the day is known; None if it is no time."""
    match = _TIME.match(cleaned)
    if match is None or int(match[1]) > 24:
        return None
    hour, half = int(match[1]), (match[4] or "").lower().replace(".", "")
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    return hour * 3600 + int(match[2]) * 60 + int(match[3] or 0), bool(half) or hour > 12


_BASED = re.compile(
    r"^\(?([0-9][0-9A-Za-z.]*)\)?(?: ?_ ?\{? ?\(?(?P<low>\d{1,2}|[a-z]+)\)? ?\}?"
    r"| ?\(?(?:in )?base[- ](?P<word>\d{1,2}|[a-z]+)\)?)$"
)
_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "twelve": 12, "sixteen": 16,
}  # fmt: skip


def as_based(cleaned: str) -> tuple[str, int] | None:
    """Digits and base of a number like `1011_2` or `2A base 16`; None of anything else."""
    match = _BASED.match(cleaned)
    if match is None:
        return None
    name = match["low"] or match["word"]
    base = int(name) if name.isdigit() else _BASES.get(name, 0)
    digits = match[1].upper()
    is_valid = 2 <= base <= 36 and all(mark == "." or int(mark, 36) < base for mark in digits)
    return (digits.lstrip("0") or "0", base) if is_valid else None
