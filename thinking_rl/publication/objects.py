"""Weights to the engines through Ray's object store: on any machine, whatever the placement."""

from __future__ import annotations

from collections.abc import Sequence

from rollouts.pool import RolloutPool
from thinking_rl.learner.group import Learner

BUCKET_BYTES = 2**30
"""Of one block of weights; as much is held in memory beside the model."""


def send(
    learner: Learner, pool: RolloutPool, version: int, engines: Sequence[int] | None = None
) -> list[int]:
    """Give engines (None: all) the learner's weights as policy `version`; returns those that took
    them."""
    return pool.publish(learner.weight_buckets(BUCKET_BYTES), version, engines)
