"""New weights to the engines in one call, which wakes, sends and proves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import cycle, islice

from rollouts.collect import collect
from rollouts.pool import RolloutPool
from rollouts.prompts import Prompt, Sampling
from thinking_rl.learner.group import Learner
from thinking_rl.model.processing import KimiVLProcessor
from thinking_rl.publication import objects
from thinking_rl.publication.agreement import Agreement, measure, require
from thinking_rl.types import Group

LONGEST_PROOF = 64
"""Tokens of a response that engine and learner are compared on."""


@dataclass(frozen=True)
class Publisher:
    """Publishes a learner's weights, and lets no engine serve under weights that are not proved."""

    pool: RolloutPool
    """The engines."""
    processor: KimiVLProcessor
    """Turns what they sample into text."""
    prompts: Sequence[Prompt]
    """Held-out problems to prove on."""
    sampling: Sampling
    """Of training, which the proof samples like."""
    responses: int
    """Responses of a proof; each engine gives one at least."""
    dtype: str
    """`float32` or `bfloat16`: of the engines."""
    tolerance: float
    """Largest difference of log-probs, in nats (see `require`)."""
    timer: Callable[[str], AbstractContextManager[None]]
    """Measures the phases `publish` and `prove`."""
    record: Callable[[int, Sequence[Group], Agreement], object] = lambda *_: None
    """Keeps the responses of a proof, by the policy version that it proves."""

    def publish(self, learner: Learner, seed: int | None = None) -> Agreement:
        """Wake the engines, give them the learner's weights as the next policy version, and prove
        that they have them.

        Args:
            seed: of the proof's samples; None: the engines' generators go on.

        Raises:
            AgreementError: an engine and the learner differ.
        """
        version = self.pool.version + 1
        with self.timer("publish"):
            self.pool.wake("weights")
            objects.send(learner, self.pool, version)
            self.pool.wake("kv_cache")
        return self.prove(learner, f"after publication {version}", seed)

    def prove(self, learner: Learner, when: str, seed: int | None = None) -> Agreement:
        """Sample a few responses to held-out problems, at least one from every engine, and compare
        their log-probs with the learner's.

        Raises:
            AgreementError: they differ by more than `tolerance`; `when` begins the message.
        """
        with self.timer("prove"):
            count = max(min(self.responses, len(self.prompts)), len(self.pool.engines))
            pictured_first = sorted(self.prompts, key=lambda prompt: not prompt.images)
            prompts = list(islice(cycle(pictured_first), count))
            longest = min(LONGEST_PROOF, self.sampling.max_response_tokens)
            sampling = replace(self.sampling, samples=1, max_response_tokens=longest, seed=seed)
            groups = collect(self.pool, self.processor, prompts, sampling)
            agreement = measure(learner, groups)
        self.record(self.pool.version, groups, agreement)
        require(agreement, self.dtype, self.tolerance, when)
        return agreement
