"""What an iteration was like, as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.statistics import mean
from thinking_rl.algorithm.advantage import count_groups, trainable
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
    judged = list(zip(trajectories, scores, strict=True))
    by_verdict = {
        "length_right": [t.length for t, score in judged if score.correct is True],
        "length_wrong": [t.length for t, score in judged if score.correct is False],
    }
    counts = count_groups(groups)
    return {
        "reward": mean(graded),
        "accuracy": mean(verdicts),
        "length": mean(lengths),
        **{name: mean(some) for name, some in by_verdict.items() if some},
        "finished": mean([t.finish_reason is FinishReason.STOP for t in trajectories]),
        "tokens": sum(lengths),
        "not_graded": len(scores) - len(graded),
        "groups": counts.total,
        "groups_with_signal": counts.with_signal,
        "groups_all_right": counts.all_right,
        "groups_all_wrong": counts.all_wrong,
        "without_signal": 1 - counts.with_signal / counts.total if counts.total else math.nan,
        **shaping_metrics(groups),
    }


def shaping_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """`shaping/<name>`: the mean over graded responses of what was added to their rewards."""
    added = [group.shaping[i] for group in groups if group.shaping for i in trainable(group)]
    names = dict.fromkeys(name for one in added for name in one)
    return {f"shaping/{name}": mean([one[name] for one in added]) for name in names}


def batch_metrics(
    useful: Sequence[Sequence[Conversation]],
    batch: Sequence[Sequence[Conversation]],
    planned: int,
) -> dict[str, float]:
    """How many responses of an iteration were too few for another step, and how many of the steps
    that its responses would make if all were `useful` were not taken for want of them."""
    return {
        "responses_skipped": sum(map(len, useful)) - sum(map(len, batch)),
        "steps_skipped": max(0, planned - len(batch)),
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
    reference. `mismatch` is over all tokens that were compared, of learner and engine."""
    if not steps:
        return {"optimizer_steps": 0}
    totals = {name: sum(step[name] for step in steps) for name in steps[0]}
    metrics = {name: total / len(steps) for name, total in totals.items()}
    compared, mismatch = metrics.pop("compared", 0), metrics.pop("mismatch", 0)
    if compared:
        metrics["mismatch"] = mismatch / compared
    return metrics | {"kl": steps[-1]["kl"], "optimizer_steps": len(steps)}
