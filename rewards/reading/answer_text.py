"""Answers as text: LaTeX and Unicode reduced to one plain spelling, units split off.

All patterns are linear: no nested repeats, and nothing here is tried on more than `MAX_LENGTH`
characters.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from rewards.reading.words import is_kept

MAX_LENGTH = 1000
"""Longer answers are compared as text only."""
MAX_DROPPED = 12
"""Words after a value that are looked through for its unit."""

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

_LATEX = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
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
    )
]  # fmt: skip
_CHINESE_KEPT = "或不非没錯错百千万亿半多和与到至对倍打除外反否假未无無吗嗎以上下余餘超内"
"""Characters after a number that change, deny or doubt it."""
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
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
    )
]  # fmt: skip
_MULTIPLIERS = {
    "dozen": "12", "hundred": "100", "thousand": "1000", "million": "1000000",
    "billion": "1000000000", "trillion": "1000000000000",
}  # fmt: skip
_WRAPPERS = (
    ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("__", "__"),
    ("`", "`"), ("*", "*"),
)  # fmt: skip
_END = re.compile(r"(?:\\[,;:! ]?|\\q?quad|\\\\|(?<!\\)[.,;]|\s|(?<=\s)~)+$")
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


# Units: canonical name -> (dimension, size in the dimension's base unit)
_UNITS: dict[str, tuple[str, Fraction]] = {}


def _define(dimension: str, size: str, names: str) -> None:
    for name in names.split(","):
        _UNITS[name] = (dimension, Fraction(size))


_define("length", "1/1000", "mm,millimeter,millimeters,millimetre,millimetres")
_define("length", "1/100", "cm,centimeter,centimeters,centimetre,centimetres")
_define("length", "1/10", "dm,decimeter,decimeters")
_define("length", "1", "m,meter,meters,metre,metres")
_define("length", "1000", "km,kilometer,kilometers,kilometre,kilometres")
_define("length", "0.0254", "in,inch,inches")
_define("length", "0.3048", "ft,foot,feet")
_define("length", "0.9144", "yd,yard,yards")
_define("length", "1609.344", "mi,mile,miles")
_define("mass", "1/1000", "mg,milligram,milligrams")
_define("mass", "1", "g,gram,grams")
_define("mass", "1000", "kg,kilogram,kilograms")
_define("mass", "453.59237", "lb,lbs,pound,pounds")
_define("time", "1", "s,sec,second,seconds")
_define("time", "60", "min,mins,minute,minutes")
_define("time", "3600", "h,hr,hrs,hour,hours")
_define("time", "86400", "day,days")
_define("time", "604800", "week,weeks")
_define("years", "1", "year,years")
_define("years", "1/12", "month,months")
_define("volume", "1/1000", "ml,mL,milliliter,milliliters")
_define("volume", "1", "l,L,liter,liters,litre,litres")
_define("angle", "1", "degree,degrees,deg")
_define("radians", "1", "rad,radian,radians")
_define("dollars", "1", "dollar,dollars,usd,USD")
_define("dollars", "1/100", "cent,cents")
_define("euros", "1", "euro,euros,eur,EUR")
_define("sterling", "1", "gbp,GBP")
_define("rupees", "1", "rupee,rupees")
_define("yuan", "1", "yuan")
_define("force", "1", "N,newton,newtons")
_define("energy", "1", "J,joule,joules")
_define("energy", "1000", "kJ")
_define("power", "1", "W,watt,watts")
_define("power", "1000", "kW")
_define("voltage", "1", "V,volt,volts")
_define("frequency", "1", "Hz,hertz")
_define("temperature", "1", "degreec,celsius")
_define("temperature F", "1", "degreef,fahrenheit")

_SYMBOLS = {"$": "dollar", "€": "euro", "£": "gbp", "₹": "rupee", "¥": "yuan"}
_UNIT_AT_END = re.compile(
    r"(?P<square>(?:square|sq\.?|cubic|cu\.?) ?)?"
    r"(?P<name>[A-Za-z]+|\\degree ?[CF]?|%|[€£₹¥$])\.?"
    r"(?: ?\^ ?\{? ?(?P<power>[23]) ?\}?)?"
    r"(?P<per> ?(?:/|per) ?(?P<below>[A-Za-z]+)(?:\^ ?\{? ?(?P<below_power>[23]) ?\}?)?)?$"
)
_JOINED = re.compile(r"^(square|cubic)([a-z]+)$")

Unit = tuple[str, Fraction]
PERCENT: Unit = ("percent", Fraction(1, 100))


def split_unit(cleaned: str) -> tuple[str, Unit | None]:
    """The value's text and its unit; None where no known unit stands there.

    A unit of one letter counts only after a space: `5m` is five times m, `5 m` is a length.
    Words that are no unit (`12 ways`) are dropped as a unit unknown, unless they change or deny
    the value.
    """
    if cleaned[:1] in _SYMBOLS:
        return cleaned[1:].strip(), _UNITS[_SYMBOLS[cleaned[0]]]
    if cleaned[:1] == "-" and cleaned[1:2] in _SYMBOLS:
        return "-" + cleaned[2:].strip(), _UNITS[_SYMBOLS[cleaned[1]]]
    text = cleaned
    for _ in range(MAX_DROPPED):  # each round takes one word off the end
        start = _last_word_start(text)
        match = _UNIT_AT_END.match(text, start) if start is not None else None
        if match is None or start is None:
            break
        unit = _unit_of(match)
        value = text[:start].rstrip()
        if not value or value[-1] == ",":
            break
        name = match["name"]
        if unit == PERCENT and text != cleaned:  # of something
            break
        if text != cleaned and _PLAIN_WORD.search(value):
            unit = None  # "12 marbles in (total)"
        if unit is not None and (len(name) > 1 or not name.isalpha() or text[start - 1] == " "):
            return value, unit
        if unit is not None or not name.isalpha() or is_kept(name):
            break
        if name == "a" and text == cleaned:  # a variable
            break
        text = value
    is_value = text != cleaned and text[-1:] in _VALUE_ENDS and _HAS_VALUE.search(text) is not None
    return (text, None) if is_value else (cleaned, None)


_PLAIN_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}$")
_HAS_VALUE = re.compile(r"\d|\\[A-Za-z]")
_VALUE_ENDS = tuple("0123456789)}!")
_WORD_STARTS = re.compile(
    r"(?:(?:square|sq\.?|cubic|cu\.?) ?)?(?:(?<![A-Za-z\\])[A-Za-z]+|\\degree ?[CF]?|%|[€£₹¥$])\.?"
    r"(?: ?\^ ?\{? ?[23] ?\}?)?(?: ?(?:/|per) ?[A-Za-z]+(?:\^ ?\{? ?[23] ?\}?)?)?$"
)


def _last_word_start(text: str) -> int | None:
    match = _WORD_STARTS.search(text, max(0, len(text) - 60))
    return match.start() if match else None


def _unit_of(match: re.Match[str]) -> Unit | None:
    name, power = match["name"].replace(" ", "").lstrip("\\"), int(match["power"] or 1)
    if name == "%" or name in ("percent", "percents"):
        return PERCENT
    joined = _JOINED.match(name)
    shape = (match["square"] or "").strip(" .") or (joined[1] if joined else "")
    if joined:
        name = joined[2]
    if shape:
        power = 2 if shape in ("square", "sq") else 3
    found = _unit_named(_SYMBOLS.get(name, name))
    if found is None:
        return None
    dimension, size = found
    if power > 1:
        dimension, size = f"{dimension}^{power}", size**power
    if match["per"]:
        below = _unit_named(match["below"])
        if below is None:
            return None
        below_power = int(match["below_power"] or 1)
        dimension, size = f"{dimension}/{below[0]}^{below_power}", size / below[1] ** below_power
    return dimension, size


def _unit_named(name: str) -> tuple[str, Fraction] | None:
    """In capitals too, but for a single letter: `G` is no gram."""
    return _UNITS.get(name) or (_UNITS.get(name.lower()) if len(name) > 1 else None)


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
