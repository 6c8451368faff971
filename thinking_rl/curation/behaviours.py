"""The four behaviours of a long chain of thought (Kimi k1.5, section 2.2): how they are asked for,
and how they are told in a text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.reading.extraction import THINK_CLOSE, THINK_OPEN

ASKED = {
    "planning": "Begin with a plan: say which steps you will take before you take them.",
    "evaluation": "Check intermediate results as you go, for instance by working backwards or by "
    "putting them back into the question.",
    "reflection": "When something does not fit, stop, say what went wrong, and mend it.",
    "exploration": "Where there is another way to the answer, try it as well, and compare.",
}
"""Behaviour -> the sentence that asks for it."""
BEHAVIOURS = tuple(ASKED)
FRAME = (
    f"Think step by step before you answer, and write the thinking between {THINK_OPEN} and "
    f"{THINK_CLOSE}. {{asked}} After {THINK_CLOSE} give a short solution with the final answer in "
    "\\boxed{{}}."
)

_MARKS = {
    "planning": r"\b(first(?:ly)?,|(?:my|the|a) plan\b|plan:|step 1\b|to solve this|"
    r"(?:let me|let's|let us|i will|i'll|i need to|we need to) (?:start|begin|first|find|read|count"
    r"|work|break)|i (?:read|count|work|multiply|add)\b[^.]*\b(?:then|from left to right)\b)",
    "evaluation": r"\b(check(?:s|ed|ing)?\b|verif(?:y|ies|ied|ying)\b|double[- ]check|"
    r"makes? sense|is consistent|plug(?:ging)? (?:it|this|that|back)|substitut(?:e|ing) back|"
    r"backwards|back:|matches\b|as expected|the same\.)",
    "reflection": r"(\bwait\b|\bhmm+\b|\bactually,|\bmistake\b|\bi was wrong|\bthat(?:'s| is) "
    r"(?:wrong|not right|incorrect)|\bdoes(?:n't| not) (?:fit|check|match|add up|work)|\bonce more"
    r"\b|\bthey differ\b|\blook(?:ing)? (?:again|at [^.]* again)|\bre-?(?:read|think|consider|count"
    r"|check)|\? ?no\b)",
    "exploration": r"\b(alternativ(?:e|ely)|another (?:way|approach|method|idea|option)|"
    r"(?:a )?different (?:way|approach|method)|other way|what if|instead,|suppose (?:instead|that)|"
    r"(?:let me|let's|i could|we could) (?:also )?try|or else)",
}
_PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _MARKS.items()}


def instruction(attempt: int) -> str:
    """What attempt number `attempt` is asked beside the question: all four behaviours, each attempt
    beginning with the next of them."""
    turn = attempt % len(BEHAVIOURS)
    order = BEHAVIOURS[turn:] + BEHAVIOURS[:turn]
    return FRAME.format(asked=" ".join(ASKED[name] for name in order))


def thinking_of(response: str) -> str | None:
    """The text between the marks; None where thinking is not opened once and closed once, in this
    order, or where nothing stands between."""
    before, opened, rest = response.partition(THINK_OPEN)
    thinking, closed, answer = rest.partition(THINK_CLOSE)
    once = THINK_OPEN not in rest and THINK_CLOSE not in before + answer
    whole = opened and closed and once and not before.strip() and answer.strip()
    return thinking if whole and thinking.strip() else None


def behaviours(thinking: str) -> tuple[str, ...]:
    """Those whose words stand in a text. Words, not thoughts: a chain may do without saying so, and
    say so without doing."""
    return tuple(name for name, pattern in _PATTERNS.items() if pattern.search(thinking))


def shares(shown: Sequence[Sequence[str]]) -> dict[str, float]:
    """Behaviour -> share of the chains that show it; 0 of none."""
    return {
        name: sum(name in one for one in shown) / len(shown) if shown else 0.0
        for name in BEHAVIOURS
    }
