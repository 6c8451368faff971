"""Proof that engines and learner hold the same policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from thinking_rl.types import Conversation, Group


class AgreementError(RuntimeError):
    """Engine and learner give the same tokens different probabilities."""


@dataclass(frozen=True)
class Agreement:
    """Difference of log-probabilities, engine minus learner, over response tokens, in nats."""

    largest: float
    """Of the absolute differences."""
    mean: float
    """Of the absolute differences."""
    tokens: int
    """Response tokens compared."""
    worst: str
    """Where the largest difference stands."""
    logprobs: tuple[tuple[float, ...], ...] = ()
    """The learner's, of each response's tokens, in nats."""
    entropies: tuple[tuple[float, ...], ...] = ()
    """Of the learner's distributions that these tokens come from, in nats."""


class Scorer(Protocol):
    """Whatever computes log-probs of conversations: the learner, or a model in this process."""

    def scores(
        self, conversations: Sequence[Conversation]
    ) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
        """Log-probabilities of each conversation's tokens in the loss, and entropies of where they
        come from."""
        ...


def measure(learner: Scorer, groups: Sequence[Group]) -> Agreement:
    """Compare the log-probs that came with the responses with the learner's."""
    conversations = [g.conversation(i) for g in groups for i in range(len(g.trajectories))]
    largest, total, tokens, worst = 0.0, 0.0, 0, "nowhere"
    scores = learner.scores(conversations)
    learned = tuple(tuple(logprobs.tolist()) for logprobs, _ in scores)
    entropies = tuple(tuple(values.tolist()) for _, values in scores)
    for one, values in zip(conversations, learned, strict=True):
        for place, (engine, ours) in enumerate(zip(one.logprobs, values, strict=True)):
            difference = abs(engine - ours)
            if math.isnan(difference):
                difference = math.inf
            total += difference
            tokens += 1
            if difference > largest:
                largest = difference
                worst = (
                    f"token {place} of a response to problem {one.problem_id} "
                    f"({len(one.image_hashes)} image(s)): engine {engine:.5f}, learner {ours:.5f}"
                )
    return Agreement(largest, total / max(tokens, 1), tokens, worst, learned, entropies)


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
        f"{tolerance:.0e} (rollout.agreement_tolerance). Largest at {agreement.worst}. If only "
        "prompts with images differ, look at the image processor and the vision tower; if every "
        "token differs after a publication but not before, at the reloading of weights "
        "(rollouts/vllm_workarounds.py); if a few tokens differ much, at expert routing "
        "(moe_router_dtype, correction bias)."
    )
