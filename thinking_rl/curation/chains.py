"""Which of the verified chains to one problem are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thinking_rl.curation.asking import Answered
from thinking_rl.curation.behaviours import behaviours, thinking_of
from thinking_rl.curation.duplicates import jaccard, text_tokens


@dataclass(frozen=True)
class Chain:
    """A verified response."""

    response: str
    """The whole turn."""
    tokens: int
    """Sampled tokens; 0 where the teacher does not say."""
    attempt: int
    """Number of the response, from 0."""
    behaviours: tuple[str, ...]
    """Those that its thinking shows."""


def best_chains(right: Sequence[Answered], most: int, same: float) -> list[Chain]:
    """At most so many: those that show more behaviours first, then the earlier ones; without those
    whose words are as similar as `same` to a chain before. Thinking is opened and closed once."""
    chains = [
        Chain(one.response, one.tokens, one.sample, behaviours(thinking))
        for one in right
        if (thinking := thinking_of(one.response)) is not None
    ]
    chains.sort(key=lambda chain: (-len(chain.behaviours), chain.attempt))
    kept: list[Chain] = []
    for chain in chains:
        words = frozenset(text_tokens(chain.response))
        if all(jaccard(words, frozenset(text_tokens(one.response))) < same for one in kept):
            kept.append(chain)
    return kept[:most]
