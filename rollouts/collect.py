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

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """For each request the list of its completions."""
        ...


def collect(
    generator: Generator,
    processor: KimiVLProcessor,
    prompts: Sequence[Prompt],
    sampling: Sampling,
) -> list[Group]:
    """Sample every prompt; one group for each, in order."""
    answers = generator.generate([prompt.request(sampling) for prompt in prompts])
    return [
        Group(prompt.problem, tuple(_trajectory(processor, prompt, c) for c in completions))
        for prompt, completions in zip(prompts, answers, strict=True)
    ]


def _trajectory(processor: KimiVLProcessor, prompt: Prompt, completion: Completion) -> Trajectory:
    ids = completion.segment.token_ids
    if processor.media_token_id in ids:
        raise ValueError(f"problem {prompt.problem.id}: a response holds a media placeholder token")
    stopped = completion.finish_reason is FinishReason.STOP
    text_ids = list(ids[:-1] if stopped else ids)
    return Trajectory(
        problem_id=prompt.problem.id,
        prompt_ids=prompt.token_ids,
        image_hashes=tuple(image.hash for image in prompt.images),
        segments=(completion.segment,),
        text=processor.tokenizer.decode(text_ids, skip_special_tokens=False),
        finish_reason=completion.finish_reason,
    )
