"""Weights to the engines through Ray's object store: on any machine, whatever the placement."""

from __future__ import annotations

from rollouts.pool import RolloutPool
from thinking_rl.learner.group import Learner

BUCKET_BYTES = 2**30
"""Of one block of weights; as much is held in memory beside the model."""


def send(learner: Learner, pool: RolloutPool, version: int) -> None:
    """Give every engine the learner's weights as policy `version`."""
    pool.publish(learner.weight_buckets(BUCKET_BYTES), version)
