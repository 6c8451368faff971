"""Proof that engines and learner hold the same policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollouts.collect import Prompt
from thinking_rl.learner.group import LearnerGroup
from thinking_rl.learner.packing import Conversation
from thinking_rl.types import Group, Trajectory


class AgreementError(RuntimeError):
    """Engine and learner give the same tokens different probabilities."""


@dataclass(frozen=True)
class Agreement:
    """Difference of log-probabilities, engine minus learner, over response tokens, in nats."""

    largest: float
    mean: float
    tokens: int
    worst: str
    """where the largest difference stands"""


def conversation_of(prompt: Prompt, trajectory: Trajectory, advantage: float = 0.0) -> Conversation:
    """A prompt and a response to it, with the response in the loss."""
    before, after = len(prompt.token_ids), trajectory.length
    return Conversation(
        token_ids=prompt.token_ids + trajectory.response_ids,
        loss_mask=(False,) * before + (True,) * after,
        pictures=prompt.images,
        advantage=advantage,
    )


def measure(learner: LearnerGroup, prompts: Sequence[Prompt], groups: Sequence[Group]) -> Agreement:
    """Compare the log-probs that came with the responses with the learner's."""
    pairs = [
        (prompt, trajectory)
        for prompt, group in zip(prompts, groups, strict=True)
        for trajectory in group.trajectories
    ]
    theirs = learner.logprobs([conversation_of(prompt, t) for prompt, t in pairs])
    largest, total, tokens, worst = 0.0, 0.0, 0, "nowhere"
    for (prompt, trajectory), values in zip(pairs, theirs, strict=True):
        for place, (engine, ours) in enumerate(
            zip(trajectory.logprobs, values.tolist(), strict=True)
        ):
            difference = abs(engine - ours)
            if math.isnan(difference):
                difference = math.inf
            total += difference
            tokens += 1
            if difference > largest:
                largest = difference
                worst = (
                    f"token {place} of a response to problem {prompt.problem.id} "
                    f"({len(prompt.images)} image(s)): engine {engine:.5f}, learner {ours:.5f}"
                )
    return Agreement(largest, total / max(tokens, 1), tokens, worst)


def require(agreement: Agreement, dtype: str, tolerance: float, when: str) -> None:
    """Stop the run where engine and learner differ: in float32 by the largest difference, in
    bfloat16, where single tokens differ by rounding, by the mean.

    Raises:
        AgreementError: beyond the tolerance, with what differs and what to look at.
    """
    value = agreement.largest if dtype == "float32" else agreement.mean
    if value <= tolerance:
        return
    raise AgreementError(
        f"{when}: engine and learner disagree: log-probs differ by at most {agreement.largest:.2e} "
        f"and on average {agreement.mean:.2e} nats over {agreement.tokens} tokens; tolerance "
        f"{tolerance:.0e} (rl.agreement_tolerance). Largest at {agreement.worst}. If only prompts "
        "with images differ, look at the image processor and the vision tower; if every token "
        "differs after a publication but not before, at the reloading of weights "
        "(rollouts/vllm_workarounds.py); if a few tokens differ much, at expert routing "
        "(moe_router_dtype, correction bias)."
    )
