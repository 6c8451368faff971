"""Whether responses are drawn from the policy whose log-probs the loss uses, and how far a policy
has moved from it: measured on one response of every group, with a signal or without."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thinking_rl.algorithm.staleness import set_references
from thinking_rl.types import Conversation, Group

LARGEST_Z = 5.0
"""Beyond it the run says so: by chance once in two million times."""
WINDOW = 10
"""Iterations that are looked at together."""


class Surprise(NamedTuple):
    """How likely sampled tokens were, beside how likely they should have been."""

    total: float
    """Sum over sampled tokens of -log p less the entropy of the distribution that the token should
    come from, in nats; 0 in expectation where it does."""
    variance: float
    """Of `total`, where they do, in squared nats."""
    tokens: int
    """How many were looked at."""

    @property
    def gap(self) -> float:
        """Mean of a token, in nats."""
        return self.total / self.tokens if self.tokens else 0.0

    @property
    def z(self) -> float:
        """The gap in its standard errors; below 0: tokens are likelier than they should be."""
        return self.total / math.sqrt(self.variance) if self.variance else 0.0


def surprise(statistics: Iterable[Tensor]) -> Surprise:
    """Of responses' tokens. Given what stands before it, a token's -log p less its entropy has mean
    0 and a known variance, so that the sum over tokens is a martingale. Its standard error is that
    of the policy, not of the sample, which is too small where rare tokens happen to be missing.

    Args:
        statistics: for each response [3, tokens] log-probs, entropies, and variances of log-probs,
            in nats.
    """
    found = [torch.zeros(3, 0), *statistics]
    logprobs, entropies, variances = torch.cat(found, -1).double()
    return Surprise(-(logprobs + entropies).sum().item(), variances.sum().item(), logprobs.numel())


class SurpriseWatch:
    """Adds up the last iterations: what is little in one can be no chance in ten."""

    def __init__(self) -> None:
        self._recent: list[Surprise] = []

    def add(self, found: Surprise) -> Surprise:
        """An iteration's; returns that of the last `WINDOW` together."""
        self._recent = [*self._recent, found][-WINDOW:]
        totals, variances, tokens = zip(*self._recent, strict=True)
        return Surprise(sum(totals), sum(variances), sum(tokens))

    def state_dict(self) -> dict[str, Any]:
        """The last iterations; survives JSON."""
        return {"recent": [[*one] for one in self._recent]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._recent = [Surprise(*one) for one in state["recent"]]


def reason(found: Surprise, temperature: float) -> str | None:
    """What to say of a gap that is not chance; None: it may be."""
    if not abs(found.z) > LARGEST_Z:
        return None
    way = "likelier" if found.z < 0 else "less likely"
    return (
        f"sampled tokens are {way} than the policy says (by {abs(found.gap):.3g} nats on the mean, "
        f"z = {found.z:.1f}): they are drawn from another distribution than the one whose "
        f"log-probs the loss uses, which is the model's at temperature {temperature:g}; see "
        "whether the engines sample with another temperature, a top_p or a penalty"
    )


def kl_divergence(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Mean over tokens that `before` sampled of exp(d) - 1 - d with d the log-ratio of `after` to
    `before`: the k3 estimate of KL(before || after), in nats. NaN without tokens."""
    if not sum(map(len, before)):
        return math.nan
    deltas = torch.cat(list(after)).double() - torch.cat(list(before)).double()
    return (torch.expm1(deltas) - deltas).mean().item()


def one_of_each(groups: Sequence[Group], version: int, seed: str) -> list[Conversation]:
    """One response of every group, drawn by seed whatever it earned; of its tokens those that
    policy `version` sampled. A group without any is left out."""
    generator = random.Random(seed)
    chosen = [group.conversation(generator.randrange(len(group.trajectories))) for group in groups]
    current = [set_references(one, version, oldest=version) for one in chosen]
    return [one for one in current if any(one.loss_mask)]
