"""From rewards to advantages: a group's own rewards are the baseline.

Kimi k1.5 (arXiv 2501.12599) section 2.3.2. There is no division by the standard deviation and no
value network.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from thinking_rl.types import FinishReason, Group, Outcome

BASELINES = ("mean", "log_mean_exp")


def baseline(rewards: Sequence[float], kind: str, tau: float) -> list[float]:
    """Each reward of a group, less the group's baseline.

    Args:
        kind: one of `BASELINES`: `mean_baseline` or `log_mean_exp_baseline`.
        tau: of the latter.

    Raises:
        ValueError: `rewards` is empty.
    """
    assert kind in BASELINES
    if kind == "mean":
        return mean_baseline(rewards)
    return log_mean_exp_baseline(rewards, tau)


def mean_baseline(rewards: Sequence[float]) -> list[float]:
    """r - mean(r) for each reward of a group; exactly 0.0 where all are equal.

    The mean is taken in exact arithmetic: a rounded one would leave a tiny advantage, and so a
    signal, in a group that has none.

    Raises:
        ValueError: `rewards` is empty.
    """
    mean = statistics.mean(map(float, rewards))
    return [reward - mean for reward in rewards]


def log_mean_exp_baseline(rewards: Sequence[float], tau: float) -> list[float]:
    """r - tau * log(mean(exp(r / tau))) for each reward of a group: the k samples' estimate of
    tau * log Z, whose limit for large tau is the mean; exactly 0.0 where all are equal.

    Raises:
        ValueError: `rewards` is empty.
    """
    largest = max(rewards)
    mean = statistics.mean(math.exp((reward - largest) / tau) for reward in rewards)
    log_z = largest + tau * math.log(mean)
    return [reward - log_z for reward in rewards]


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


def set_advantages(groups: Iterable[Group], kind: str = "mean", tau: float = 1.0) -> list[Group]:
    """The groups with `advantages` filled in, one for each response.

    A reward is the score's value and what was added to it (`Group.shaping`); the baseline is taken
    over the `trainable` responses alone. All others get 0.0 and have to be left out of the loss.

    Args:
        kind: of the baseline, one of `BASELINES`.
        tau: of the `log_mean_exp` baseline.

    Raises:
        ValueError: a reward is not finite.
    """
    return [_with_advantages(group, kind, tau) for group in groups]


def _with_advantages(group: Group, kind: str, tau: float) -> Group:
    advantages = [0.0] * len(group.trajectories)
    indices = trainable(group)
    if indices:
        rewards = [group.reward(i) for i in indices]
        if not all(map(math.isfinite, rewards)):
            raise ValueError(
                f"rewards of problem {group.problem.id!r} must be finite, got {rewards}; "
                "a grader that cannot tell should return a Score with an error"
            )
        for index, advantage in zip(indices, baseline(rewards, kind, tau), strict=True):
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
