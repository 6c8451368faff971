"""From problems to groups of responses: render each problem once, sample it k times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollouts.engine import Completion, Request
from rollouts.pool import RolloutPool
from thinking_rl.model.images import ImagePatches
from thinking_rl.model.processing import (
    KimiVLProcessor,
    check_placeholders,
    collapse_placeholders,
    problem_messages,
)
from thinking_rl.types import FinishReason, Group, Problem, Trajectory


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled."""

    samples: int
    max_tokens: int
    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """A problem as the model reads it, made once for engine and learner."""

    problem: Problem
    token_ids: tuple[int, ...]
    images: tuple[ImagePatches, ...]
    pictures: tuple
    """the same images as PIL pictures, which the engine cuts itself"""

    def request(self, sampling: Sampling, media_token_id: int) -> Request:
        """The engine's form of it."""
        return Request(
            prompt_ids=self.token_ids,
            collapsed_ids=tuple(collapse_placeholders(self.token_ids, media_token_id)),
            images=self.pictures,
            samples=sampling.samples,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )


def render_prompt(processor: KimiVLProcessor, problem: Problem, instruction: str = "") -> Prompt:
    """Token ids and patches of a problem's prompt.

    Raises:
        ValueError: a picture of the problem cannot be used.
    """
    rendered = processor.render(problem_messages(problem, instruction))
    return Prompt(
        problem, tuple(rendered.token_ids), tuple(rendered.images), tuple(rendered.pil_images)
    )


def collect(
    pool: RolloutPool, processor: KimiVLProcessor, prompts: Sequence[Prompt], sampling: Sampling
) -> list[Group]:
    """Sample every prompt; one group for each, in order."""
    media = processor.media_token_id
    for prompt in prompts:
        check_placeholders(prompt.token_ids, prompt.images, media)
    answers = pool.generate([prompt.request(sampling, media) for prompt in prompts])
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
        image_hashes=tuple(image.key for image in prompt.images),
        segments=(completion.segment,),
        text=processor.tokenizer.decode(text_ids, skip_special_tokens=False),
        finish_reason=completion.finish_reason,
    )
