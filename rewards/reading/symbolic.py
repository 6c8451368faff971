"""The last resort: math-verify's LaTeX parser and sympy, for forms that the own reader lacks.

math-verify's own clock (SIGALRM) is switched off: it fails outside of the main thread, and the
grading pool has a harder one. Only its LaTeX grammar is used: its extraction of plain expressions
ends in sympy's `parse_expr`, which evaluates text as Python.
"""

from __future__ import annotations

import logging
import re

import math_verify
from math_verify.parser import LatexExtractionConfig

from rewards.reading.values import TooLargeError

MAX_LENGTH = 300
_TOO_LARGE = re.compile(
    r"\d{5,}[})]* *!|\^ *\{? *-?\d{5,}|\^ *\{[^{}^]{0,20}\^|\^ *\w\^|!!|!\)!|!\}!"
    r"|\\(?:int|sum|prod|lim)[^\\]{0,80}(?:\d{4,}|\^ *\{? *\d{3,})"
)
"""Towers of powers, large factorials, sums that are long."""
_LATEX = (LatexExtractionConfig(),)


class RefusedError(TooLargeError):
    """The expression would cost more to evaluate than a grade is worth."""


def proves(gold: str, answer: str) -> bool:
    """Whether sympy shows the two LaTeX expressions to be equal.

    Raises:
        RefusedError: one of them is nothing that math-verify should be asked.
    """
    for text in (gold, answer):
        if len(text) > MAX_LENGTH:
            return False
        if _TOO_LARGE.search(text):
            raise RefusedError(f"too large to evaluate: {text[:80]!r}")
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    first, second = (
        math_verify.parse(
            f"${text}$",
            _LATEX,
            fallback_mode="no_fallback",
            parsing_timeout=None,  # type: ignore
        )
        for text in (gold, answer)
    )
    if not first or not second:
        return False
    return math_verify.verify(first, second, timeout_seconds=None)
