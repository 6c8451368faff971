"""From rewards to advantages: the mean of the group is the baseline.

Kimi k1.5 (arXiv 2501.12599) sections 2.3.2 and 2.3.3. There is no division by the standard
deviation and no value network.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from thinking_rl.algorithm.length import length_rewards
from thinking_rl.types import FinishReason, Group, Outcome


def mean_baseline(rewards: Sequence[float]) -> list[float]:
    """r - mean(r) for each reward of a group; exactly 0.0 where all are equal.

    The mean is taken in exact arithmetic: a rounded one would leave a tiny advantage, and so a
    signal, in a group that has none.

    Raises:
        ValueError: `rewards` is empty.
    """
    baseline = statistics.mean(map(float, rewards))
    return [reward - baseline for reward in rewards]


def graded(group: Group) -> list[int]:
    """Indices of the responses that are finished and were graded."""
    return [
        index
        for index, (trajectory, score) in enumerate(
            zip(group.trajectories, group.scores, strict=True)
        )
        if trajectory.finish_reason is not FinishReason.UNFINISHED
        and score.outcome is not Outcome.NOT_GRADED
    ]


def trainable(group: Group) -> list[int]:
    """Indices of the responses that enter the loss.

    The graded ones; none where fewer than two are, since one alone has nothing to be compared to.
    """
    indices = graded(group)
    return indices if len(indices) >= 2 else []


def set_advantages(groups: Iterable[Group], length_weight: float) -> list[Group]:
    """The groups with `advantages` filled in, one for each response.

    The reward is the score's value plus `length_weight` times the length reward, both taken over
    the `trainable` responses alone. All others get 0.0 and have to be left out of the loss.

    Raises:
        ValueError: a reward is not finite.
    """
    return [_with_advantages(group, length_weight) for group in groups]


def _with_advantages(group: Group, length_weight: float) -> Group:
    advantages = [0.0] * len(group.trajectories)
    indices = trainable(group)
    if indices:
        scores = [group.scores[i] for i in indices]
        lengths = [group.trajectories[i].length for i in indices]
        bonuses = length_rewards(lengths, [score.correct is True for score in scores])
        rewards = [s.value + length_weight * b for s, b in zip(scores, bonuses, strict=True)]
        if not all(map(math.isfinite, rewards)):
            raise ValueError(
                f"rewards of problem {group.problem.id!r} must be finite, got {rewards}; "
                "a grader that cannot tell should return a Score with an error"
            )
        for index, advantage in zip(indices, mean_baseline(rewards), strict=True):
            advantages[index] = advantage
    return replace(group, advantages=tuple(advantages))


@dataclass(frozen=True)
class GroupCounts:
    """How an iteration's groups came out.

    A group that is in none of the last three has both right and wrong answers, or a grader that
    does not judge answers. With a length reward, `all_right` and `all_wrong` groups can have a
    signal.
    """

    total: int
    """All groups."""
    with_signal: int
    """Some response moves the policy."""
    all_right: int
    """Every response that counts is right."""
    all_wrong: int
    """Every response that counts is wrong."""
    not_graded: int
    """Fewer than two responses could be graded."""


def count_groups(groups: Iterable[Group]) -> GroupCounts:
    """Count groups that have their advantages; only `trainable` responses are looked at."""
    groups = list(groups)
    verdicts = [[group.scores[i].correct for i in trainable(group)] for group in groups]
    return GroupCounts(
        total=len(groups),
        with_signal=sum(group.has_signal for group in groups),
        all_right=sum(bool(v) and all(right is True for right in v) for v in verdicts),
        all_wrong=sum(bool(v) and all(right is False for right in v) for v in verdicts),
        not_graded=sum(not v for v in verdicts),
    )
