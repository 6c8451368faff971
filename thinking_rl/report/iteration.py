"""What an iteration was like, as numbers."""

from __future__ import annotations

from collections.abc import Sequence

from eval.statistics import mean
from thinking_rl.algorithm.advantage import count_groups
from thinking_rl.algorithm.staleness import ages
from thinking_rl.types import Conversation, FinishReason, Group, Outcome


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What an iteration's responses were like. The reward is a mean over graded responses, the
    accuracy over those with a verdict; NaN where there is none."""
    scores = [score for group in groups for score in group.scores]
    graded = [score.value for score in scores if score.outcome is not Outcome.NOT_GRADED]
    verdicts = [score.correct for score in scores if score.correct is not None]
    trajectories = [t for group in groups for t in group.trajectories]
    lengths = [t.length for t in trajectories]
    counts = count_groups(groups)
    return {
        "reward": mean(graded),
        "accuracy": mean(verdicts),
        "length": mean(lengths),
        "finished": mean([t.finish_reason is FinishReason.STOP for t in trajectories]),
        "tokens": sum(lengths),
        "not_graded": len(scores) - len(graded),
        "groups": counts.total,
        "groups_with_signal": counts.with_signal,
        "groups_all_right": counts.all_right,
        "groups_all_wrong": counts.all_wrong,
    }


def age_metrics(batch: Sequence[Sequence[Conversation]], version: int) -> dict[str, float]:
    """`trained/age_<n>`: tokens in the loss that were sampled n policies before `version`."""
    found = ages((one for part in batch for one in part), version)
    return {f"trained/age_{age}": count for age, count in sorted(found.items())}


def idle_metrics(seconds: Sequence[float]) -> dict[str, float]:
    """How long each engine had nothing to do in an iteration's sampling, in seconds."""
    return {f"idle_seconds/engine {engine}": round(s, 3) for engine, s in enumerate(seconds)}


def step_metrics(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over an iteration's optimizer steps; kl is that of the last, the furthest from the
    reference."""
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    return means | {"kl": steps[-1]["kl"], "optimizer_steps": len(steps)}
