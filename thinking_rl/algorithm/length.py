"""The length reward of Kimi k1.5, over the responses to one problem."""

from __future__ import annotations

from collections.abc import Sequence


def length_rewards(lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
    """The length reward of each response of one group (Kimi k1.5 report, section 2.3.3).

    With lambda = 0.5 - (length - shortest) / (longest - shortest), a right answer earns lambda
    and a wrong one min(0, lambda); all earn 0 where every response is equally long. Lengths are
    in tokens.

    Raises:
        ValueError: the two sequences differ in length.
    """
    if len(lengths) != len(correct):
        raise ValueError(f"{len(lengths)} lengths for {len(correct)} verdicts")
    shortest, longest = min(lengths, default=0), max(lengths, default=0)
    if shortest == longest:
        return [0.0] * len(lengths)
    rewards = []
    for length, is_right in zip(lengths, correct, strict=True):
        share = 0.5 - (length - shortest) / (longest - shortest)
        rewards.append(share if is_right else min(0.0, share))
    return rewards
