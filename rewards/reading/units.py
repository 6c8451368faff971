"""Units behind a value, and words there that are no unit and may be dropped."""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.reading.words import is_kept

MAX_DROPPED = 12
"""Words after a value that are looked through for its unit."""

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
