"""A penalty for responses that say the same words over and over."""

from __future__ import annotations

from thinking_rl.types import Problem

WORDS = 8
"""Length of the runs of words that are counted."""


def repetition(problem: Problem, response: str) -> float:
    """Minus the share of 8-word runs that stood in the response before: 0.0 (none) to -1.0."""
    words = response.split()
    runs = [tuple(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1)]
    return -(1 - len(set(runs)) / len(runs)) if runs else 0.0
