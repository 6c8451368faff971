"""A problem as the model reads it, rendered once for engine and learner."""

from __future__ import annotations

from dataclasses import dataclass

from rollouts.engine import Request
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.images import CutImage
from thinking_rl.model.processing import KimiVLProcessor, problem_messages
from thinking_rl.types import Problem


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
    seed: int | None = None
    """Fixes the samples of each prompt; None: the engine's generator goes on."""


@dataclass(frozen=True)
class Prompt:
    """A problem as the model reads it."""

    problem: Problem
    """What is asked."""
    token_ids: tuple[int, ...]
    """Each image expanded to its `<|media_pad|>` run."""
    images: tuple[CutImage, ...]
    """In the order of their placeholders; their patches are in the image store."""

    def request(self, sampling: Sampling) -> Request:
        """The engine's form of it."""
        return Request(
            prompt_ids=self.token_ids,
            image_hashes=tuple(image.hash for image in self.images),
            samples=sampling.samples,
            max_response_tokens=sampling.max_response_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
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
