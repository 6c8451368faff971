"""What a comparison of engine and learner says, and when it stops a run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from thinking_rl.publication.agreement import Agreement, AgreementError, measure, require
from thinking_rl.types import Conversation, FinishReason, Group, Problem, Segment, Trajectory

PROBLEM = Problem("p", "q", "1")


def trajectory(*logprobs: float) -> Trajectory:
    """A response of two segments."""
    ids = tuple(range(10, 10 + len(logprobs)))
    segments = (Segment(ids[:1], logprobs[:1], 0), Segment(ids[1:], logprobs[1:], 1))
    return Trajectory("p", (1, 2, 3), (), segments, "", FinishReason.STOP)


class Learner:
    """Gives the same log-probs whatever it is asked."""

    def __init__(self, *values: list[float]):
        self.values = [torch.tensor(value) for value in values]

    def scores(self, conversations: list) -> list[tuple[torch.Tensor, torch.Tensor]]:
        lengths = [sum(conversation.loss_mask) for conversation in conversations]
        assert lengths == [len(value) for value in self.values]
        return [(value, value + 3) for value in self.values]


def compare(learner: Any, *trajectories: Trajectory) -> Agreement:
    return measure(learner, [Group(PROBLEM, trajectories)])


def test_the_response_is_in_the_loss_and_the_prompt_is_not() -> None:
    pictured = replace(trajectory(-1.0, -2.0), image_hashes=("x", "y"))
    group = Group(PROBLEM, (trajectory(-3.0), pictured), advantages=(-0.5, 0.5))
    assert group.conversation(1) == Conversation(
        token_ids=(1, 2, 3, 10, 11),
        loss_mask=(False, False, False, True, True),
        image_hashes=("x", "y"),
        advantage=0.5,
        logprobs=(-1.0, -2.0),
        policy_versions=(0, 1),
        problem_id="p",
    )
    assert group.conversation(0).advantage == -0.5
    assert Group(PROBLEM, (pictured,)).conversation(0).advantage == 0.0


def test_differences_are_counted_by_token() -> None:
    learner = Learner([-1.0, -2.5], [-1.0, -1.0, -1.25])
    found = compare(learner, trajectory(-1.0, -2.0), trajectory(-1.0, -1.0, -1.0))
    assert (found.largest, found.tokens) == (0.5, 5)
    assert found.mean == pytest.approx(0.15)
    assert "token 1 of a response to problem p (0 image(s)): engine -2.0" in found.worst


@pytest.mark.parametrize("values", [[math.nan, -2.0], [-1.0, math.nan]])
def test_a_nan_is_a_disagreement(values: list[float]) -> None:
    found = compare(Learner(values), trajectory(-1.0, -2.0))
    with pytest.raises(AgreementError):
        require(found, "float32", 1e3, "now")
    with pytest.raises(AgreementError):
        require(found, "bfloat16", 1e3, "now")


@pytest.mark.parametrize(
    ("dtype", "largest", "mean", "is_fine"),
    [
        ("float32", 0.9, 0.1, True),
        ("float32", 1.1, 0.1, False),
        ("bfloat16", 9.0, 0.9, True),
        ("bfloat16", 9.0, 1.1, False),
    ],
)
def test_tolerance(dtype: str, largest: float, mean: float, is_fine: bool) -> None:
    found = Agreement(largest, mean, 5, "token 3")
    if is_fine:
        require(found, dtype, 1.0, "after publication 2")
    else:
        message = r"^after publication 2: .*1\.10?e\+00.*tolerance 1e\+00.*Largest at token 3"
        with pytest.raises(AgreementError, match=message):
            require(found, dtype, 1.0, "after publication 2")
