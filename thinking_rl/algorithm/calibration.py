"""Whether responses are drawn from the policy whose log-probs the loss uses, and how far a policy
has moved from it: measured on one response of every group, with a signal or without."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thinking_rl.algorithm.staleness import set_references
from thinking_rl.types import Conversation, Group

LARGEST_Z = 5.0
"""Beyond it the run says so: by chance once in two million times."""


class Surprise(NamedTuple):
    """How likely sampled tokens were, beside how likely they should have been."""

    gap: float
    """Mean of -log p over sampled tokens, less the mean entropy of the distributions that they
    should come from, in nats; 0 in expectation where they do."""
    z: float
    """The gap in its standard errors; below 0: tokens are likelier than they should be."""
    tokens: int
    """How many were looked at."""


def surprise(scores: Iterable[tuple[Tensor, Tensor]]) -> Surprise:
    """Of responses' tokens, each with log-prob and entropy under the policy, in nats.

    Given what stands before it, a token's -log p less its entropy has mean 0, so that the sum over
    tokens is a martingale, whose variance the sum of squares estimates.
    """
    gaps = [-(logprobs.double() + entropies.double()) for logprobs, entropies in scores]
    flat = torch.cat(gaps) if gaps else torch.zeros(0, dtype=torch.float64)
    total, squares = flat.sum().item(), flat.square().sum().item()
    if not squares:
        return Surprise(0.0, 0.0, len(flat))
    return Surprise(total / len(flat), total / math.sqrt(squares), len(flat))


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
