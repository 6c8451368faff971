"""Tokens that an older policy sampled: which of them enter the loss, and what they refer to.

Kimi k1.5 (arXiv 2501.12599), section 2.6.2: only the current iteration's segment needs on-policy
computation; earlier segments may be left out of the loss.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from thinking_rl.types import Conversation


def set_references(one: Conversation, version: int, oldest: int) -> Conversation:
    """A sampled conversation as the iteration of policy `version` trains on it: tokens of policies
    before `oldest` leave the loss (both terms); those of other policies than `version` refer to the
    log-probs of the policy that sampled them. A recomputed reference would hide how stale they are.
    """
    mask, kept = list(one.loss_mask), []
    sampled = [place for place, is_own in enumerate(one.loss_mask) if is_own]
    for number, place in enumerate(sampled):
        mask[place] = one.policy_versions[number] >= oldest
        if mask[place]:
            kept.append(number)
    versions = tuple(one.policy_versions[number] for number in kept)
    logprobs = tuple(one.logprobs[number] for number in kept)
    return replace(
        one,
        loss_mask=tuple(mask),
        logprobs=logprobs,
        policy_versions=versions,
        references=tuple(
            math.nan if sampler == version else logprob
            for sampler, logprob in zip(versions, logprobs, strict=True)
        ),
    )


def ages(conversations: Iterable[Conversation], version: int) -> dict[int, int]:
    """Tokens in the loss by the number of policies between the one that sampled them and
    `version`."""
    return dict(Counter(version - v for one in conversations for v in one.policy_versions))
