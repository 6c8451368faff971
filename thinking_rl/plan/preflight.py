"""Looks at every stored problem before a run starts: a damaged picture or a prompt that is too long
ends a run in its first minute, not in its tenth hour."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from thinking_rl.data import Example
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.processing import KimiVLProcessor, conversation_messages, problem_messages
from thinking_rl.recipe.schema import Rollout
from thinking_rl.types import Problem

SHOWN = 3
"""Most mistakes that an error lists."""
T = TypeVar("T")


def check_problems(
    problems: Iterable[Problem],
    processor: KimiVLProcessor,
    images: ImageStore,
    instruction: str,
    rollout: Rollout,
) -> None:
    """Decode every picture into the store, and see that every prompt fits the engines.

    Raises:
        ValueError: some do not; the first are named.
    """

    def look(problem: Problem) -> None:
        rendered = processor.render(problem_messages(problem, instruction, images.add))
        check_fit(problem, len(rendered.token_ids), rollout)

    _for_each(look, problems)


def check_examples(
    examples: Iterable[Example],
    processor: KimiVLProcessor,
    images: ImageStore,
    instruction: str,
    max_tokens: int,
) -> int:
    """Decode every picture of the warm-up's conversations into the store; returns how many of them
    are longer than `max_tokens`, which the warm-up leaves out.

    Raises:
        ValueError: a picture cannot be used (the first are named), or all are too long.
    """

    def look(example: Example) -> int:
        messages = conversation_messages(example.problem, example.response, instruction, images.add)
        return len(processor.render(messages, add_generation_prompt=False).token_ids)

    lengths = _for_each(look, examples)
    too_long = sum(length > max_tokens for length in lengths)
    if lengths and too_long == len(lengths):
        raise ValueError(
            f"all {too_long} conversations are longer than sft.max_conversation_tokens "
            f"({max_tokens}), the shortest has {min(lengths)} tokens; raise it"
        )
    return too_long


def check_fit(problem: Problem, tokens: int, rollout: Rollout) -> None:
    """See that a problem whose prompt has so many tokens fits the engines.

    Raises:
        ValueError: the prompt leaves no room for a response, or has more pictures than the engines
            are made for.
    """
    if tokens >= rollout.max_model_tokens:
        raise ValueError(
            f"problem {problem.id}: the prompt has {tokens} tokens and rollout.max_model_tokens is "
            f"{rollout.max_model_tokens}; raise it, lower model.image_token_limit, or leave the "
            "problem out"
        )
    check_image_count(problem, rollout)


def check_image_count(problem: Problem, rollout: Rollout) -> None:
    """See that a problem's pictures are no more than the engines are made for.

    Raises:
        ValueError: they are more.
    """
    if len(problem.images) > rollout.max_images:
        raise ValueError(
            f"problem {problem.id}: {len(problem.images)} images, and rollout.max_images is "
            f"{rollout.max_images}; raise it, or leave the problem out"
        )


def _for_each(look: Callable[[T], Any], items: Iterable[T]) -> list[Any]:
    """What `look` says of each, with a thread for each core; its ValueErrors become one."""

    def guarded(item: T) -> Any:
        try:
            return look(item)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(guarded, items))
    mistakes = [str(one) for one in found if isinstance(one, ValueError)]
    if mistakes:
        more = f"; and {len(mistakes) - SHOWN} more" if len(mistakes) > SHOWN else ""
        raise ValueError("; ".join(mistakes[:SHOWN]) + more)
    return found
