"""Graded responses, made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thinking_rl.report.evaluation import held_out_result
from thinking_rl.types import FinishReason, Group, Outcome, Problem, Score, Segment, Trajectory


def response(text: str = "", length: int = 1) -> Trajectory:
    """A response of `length` tokens."""
    segment = Segment((7,) * length, (-0.5,) * length, 0)
    return Trajectory("one", (1,), (), (segment,), text, FinishReason.STOP)


def score(right: bool | None) -> Score:
    """A verdict; None: not graded."""
    if right is None:
        return Score(0.0, None, Outcome.NOT_GRADED, error="timeout")
    return Score(float(right), right, Outcome.RIGHT if right else Outcome.WRONG)


def answered(
    verdicts: Sequence[bool | None], responses: Sequence[Trajectory] | None = None
) -> Group:
    """A problem with graded responses."""
    given = tuple(responses or [response()] * len(verdicts))
    return Group(Problem("one", "?", "1"), given, tuple(score(one) for one in verdicts))


def result(right: int, total: int) -> dict[str, Any]:
    """An evaluation on `total` problems, with one response to each that is the greedy one too."""
    groups = [answered([number < right]) for number in range(total)]
    return held_out_result(groups, groups, [8], "")
