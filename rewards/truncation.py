"""What responses earn that are cut off, or that have no closed thinking part.

The settings are `rewards.truncated` and `rewards.thinking` of the recipe. An answer that is merely
passed by on the way must not pay: a policy would learn never to come to an end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from rewards.reading.extraction import THINK_CLOSE, THINK_OPEN
from thinking_rl.types import FinishReason, Score, Trajectory

Truncated = Literal["wrong", "masked", "graded"]
Thinking = Literal["required", "closed_if_opened", "ignored"]
CUT_OFF = (FinishReason.LENGTH, FinishReason.REPETITION)


def readable(text: str, thinking: Thinking) -> str:
    """The text that graders are given: where thinking is `ignored`, one that is never closed is
    read like any other text.
    """
    is_unclosed = THINK_OPEN in text and THINK_CLOSE not in text
    return text.replace(THINK_OPEN, "") if thinking == "ignored" and is_unclosed else text


def settled(
    trajectory: Trajectory, score: Score, truncated: Truncated, thinking: Thinking
) -> Score:
    """The score that a response ends up with. One that was not graded stays so.

    A wrong response earns 0.0, or the penalties that other parts of the reward gave it.
    """
    if score.error is not None:
        return score
    if trajectory.finish_reason in CUT_OFF and truncated != "graded":
        reason = f"cut off: {trajectory.finish_reason.value}"
        return _masked(score, reason) if truncated == "masked" else _wrong(score, reason)
    if THINK_CLOSE not in trajectory.text:
        if thinking == "required":
            return _wrong(score, "no closed thinking part")
        if thinking == "closed_if_opened" and THINK_OPEN in trajectory.text:
            return _wrong(score, "the thinking part is never closed")
    return score


def _wrong(score: Score, reason: str) -> Score:
    return replace(score, value=min(score.value, 0.0), correct=False, note=reason)


def _masked(score: Score, reason: str) -> Score:
    return replace(score, value=0.0, correct=None, error=reason)
