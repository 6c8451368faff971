"""A run whose last engine is given weights of which one tensor is not the learner's, for
test_run.py: `python altered_publication.py RECIPE [key=value ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import ray

from rollouts.pool import RolloutPool
from thinking_rl import train
from thinking_rl.learner.group import Learner
from thinking_rl.model.buckets import make_bucket
from thinking_rl.publication import objects

ALTERED = "language_model.lm_head.weight"


def send(
    learner: Learner, pool: RolloutPool, version: int, engines: Sequence[int] | None = None
) -> list[int]:
    """In place of `objects.send`."""
    right = learner.weight_buckets(objects.BUCKET_BYTES)
    tensors = [pair for bucket in right for pair in ray.get(bucket).tensors()]
    assert ALTERED in dict(tensors)
    changed = [(name, tensor * (1.5 if name == ALTERED else 1)) for name, tensor in tensors]
    wrong = [ray.put(make_bucket(changed))]
    took = pool.publish(right, version, engines)
    pool.publish(wrong, version, took[-1:])
    return took


if __name__ == "__main__":
    objects.send = send
    sys.exit(train.main(sys.argv[1:]))
