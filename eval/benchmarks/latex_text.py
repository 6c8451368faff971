"""Small rewrites that bring LaTeX answers to one spelling before they are compared as text.

They follow the answer normalisation of the MATH data set (github.com/hendrycks/math), which
MATH-Vision took over; each benchmark composes its own order.
"""

from __future__ import annotations

import re

_PLAIN = (
    ("\n", ""),
    ("\\!", ""),
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\$", ""),
)


def plain_latex(text: str) -> str:
    """Without line breaks, sizing, degrees and dollar signs; one kind of fraction."""
    for old, new in _PLAIN:
        text = text.replace(old, new)
    return text


def without_units(text: str) -> str:
    """Up to a unit in `\\text{ `, without percent signs, decimals with a leading zero."""
    text = text.split("\\text{ ")[0].replace("\\%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    return "0" + text if text.startswith(".") else text


def braced_roots(text: str) -> str:
    """`\\sqrt3` as `\\sqrt{3}`."""
    return re.sub(r"\\sqrt(?!\\sqrt)([^{])", r"\\sqrt{\1}", text)


def braced_fractions(text: str) -> str:
    """`\\frac12` as `\\frac{1}{2}`; unchanged where one is cut short."""
    head, *rest = text.split("\\frac")
    pieces = [head]
    for part in rest:
        if part.startswith("{"):
            pieces.append(part)
        elif len(part) < 2:
            return text
        elif part[1] == "{":
            pieces.append("{" + part[0] + "}" + part[1:])
        else:
            pieces.append("{" + part[0] + "}{" + part[1] + "}" + part[2:])
    return "\\frac".join(pieces)


def slash_fraction(text: str) -> str:
    """`1/2`, two whole numbers and nothing else, as `\\frac{1}{2}`."""
    match = re.fullmatch(r"(-?\d+)/(-?\d+)", text)
    if match and all(str(int(part)) == part for part in match.groups()):
        return f"\\frac{{{match[1]}}}{{{match[2]}}}"
    return text
