"""A problem as the model reads it, rendered once for engine and learner."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from rollouts.engine import Request
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.images import CutImage
from thinking_rl.model.processing import KimiVLProcessor, problem_messages
from thinking_rl.types import Problem


def request_seed(*parts: object) -> int:
    """A seed below 2^63 that depends on nothing else."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled."""

    samples: int
    """Responses to each prompt."""
    max_response_tokens: int
    """Longest response."""
    temperature: float
    """0: greedy."""
    top_p: float = 1.0
    """Share of the probability that tokens are drawn from, the likeliest first."""
    seed: int = 0
    """Of the run."""
    purpose: str = "training"
    """What the responses are for: no two purposes share their noise."""


@dataclass(frozen=True)
class Prompt:
    """A problem as the model reads it."""

    problem: Problem
    """What is asked."""
    token_ids: tuple[int, ...]
    """Each image expanded to its `<|media_pad|>` run."""
    images: tuple[CutImage, ...]
    """In the order of their placeholders; their patches are in the image store."""

    def request(self, sampling: Sampling, sample: int = 0) -> Request:
        """The engine's form of it, for response number `sample`."""
        return Request(
            prompt_ids=self.token_ids,
            image_hashes=tuple(image.hash for image in self.images),
            max_response_tokens=sampling.max_response_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=request_seed(sampling.seed, sampling.purpose, self.problem.id, sample),
        )


def render_prompt(
    processor: KimiVLProcessor, images: ImageStore, problem: Problem, instruction: str = ""
) -> Prompt:
    """Token ids of a problem's prompt; its pictures go into the store.

    Raises:
        ValueError: a picture of the problem cannot be used.
    """
    rendered = processor.render(problem_messages(problem, instruction, images.add))
    return Prompt(problem, tuple(rendered.token_ids), tuple(rendered.images))
