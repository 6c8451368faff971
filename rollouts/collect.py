"""From prompts to groups of responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rollouts.engine import Completion, Request
from rollouts.prompts import Prompt, Sampling
from thinking_rl.model.processing import KimiVLProcessor
from thinking_rl.types import FinishReason, Group, Trajectory


class Generator(Protocol):
    """Whatever answers requests: a pool of engines, or one engine."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """The answers, in the order of the requests."""
        ...


def collect(
    generator: Generator,
    processor: KimiVLProcessor,
    prompts: Sequence[Prompt],
    sampling: Sampling,
) -> list[Group]:
    """Sample every prompt; one group for each, in order."""
    samples = range(sampling.samples)
    answers = iter(
        generator.generate([prompt.request(sampling, i) for prompt in prompts for i in samples])
    )
    return [
        Group(prompt.problem, tuple(trajectory(processor, prompt, next(answers)) for _ in samples))
        for prompt in prompts
    ]


def trajectory(processor: KimiVLProcessor, prompt: Prompt, answer: Completion) -> Trajectory:
    """An answer that has ended, with its text.

    Raises:
        ValueError: it holds a media placeholder, which no engine of ours samples.
    """
    ids = answer.token_ids
    if processor.media_token_id in ids:
        raise ValueError(f"problem {prompt.problem.id}: a response holds a media placeholder token")
    stopped = answer.finish_reason is FinishReason.STOP
    text_ids = list(ids[:-1] if stopped else ids)
    return Trajectory(
        problem_id=prompt.problem.id,
        prompt_ids=prompt.token_ids,
        image_hashes=tuple(image.hash for image in prompt.images),
        segments=answer.segments,
        text=processor.tokenizer.decode(text_ids, skip_special_tokens=False),
        finish_reason=answer.finish_reason,
    )
