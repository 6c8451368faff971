"""New weights to the engines in one call, which wakes, sends and proves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice

from rollouts.collect import trajectory
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

    def publish(self, learner: Learner, version: int | None = None) -> Agreement:
        """Wake the engines, give them the learner's weights, and prove that they have them.

        Args:
            version: of the policy; None: the next.

        Raises:
            AgreementError: an engine and the learner differ.
            RolloutError: no engine took the weights.
        """
        version = self.pool.version + 1 if version is None else version
        with self.timer("publish"):
            self.pool.wake("weights")
            took = objects.send(learner, self.pool, version)
            self.pool.wake("kv_cache")
        return self.prove(learner, f"after publication {version}", took)

    def prove(self, learner: Learner, when: str, engines: Sequence[int] | None = None) -> Agreement:
        """Sample a few responses to held-out problems, at least one from every engine, and compare
        their log-probs with the learner's; the engines that agree serve.

        Args:
            engines: None: all that are up, with the weights that they have.

        Raises:
            AgreementError: they differ by more than `tolerance`; `when` begins the message.
        """
        with self.timer("prove"):
            found = self._sample(self.pool.up if engines is None else engines)
            groups = [group for share in found.values() for group in share]
            agreement = measure(learner, groups)
        self.record(self.pool.version, groups, agreement)
        require(agreement, self.dtype, self.tolerance, when)
        self.pool.serve(found, self.pool.version)
        self.pool.bring_up = partial(self._bring_up, learner)
        return agreement

    def _bring_up(self, learner: Learner, engine: int) -> None:
        """Let an engine that was started again serve the current policy."""
        took = objects.send(learner, self.pool, self.pool.version, [engine])
        self.prove(learner, f"rollout worker {engine}, started again", took)

    def _sample(self, engines: Sequence[int]) -> dict[int, list[Group]]:
        """Responses of each engine that did not fail."""
        count = max(min(self.responses, len(self.prompts)), len(engines))
        pictured_first = sorted(self.prompts, key=lambda prompt: not prompt.images)
        prompts = list(islice(cycle(pictured_first), count))
        shares = {engine: prompts[i :: len(engines)] for i, engine in enumerate(engines)}
        longest = min(LONGEST_PROOF, self.sampling.max_response_tokens)
        purpose = f"proof of version {self.pool.version}"
        one = replace(self.sampling, samples=1, max_response_tokens=longest, purpose=purpose)
        questions = {
            engine: [prompt.request(one, engine) for prompt in share]
            for engine, share in shares.items()
        }
        return {
            engine: [
                Group(prompt.problem, (trajectory(self.processor, prompt, answer),))
                for prompt, answer in zip(shares[engine], answers, strict=True)
            ]
            for engine, answers in self.pool.ask(questions).items()
        }
