"""A conversation to learn from."""

from __future__ import annotations

from dataclasses import dataclass

from thinking_rl.types import Problem


@dataclass(frozen=True)
class Example:
    """A problem with a response worth imitating (supervised fine-tuning)."""

    problem: Problem
    """What is asked."""
    response: str
    """The whole assistant turn: `◁think▷...◁/think▷`, then the final answer."""
