"""Looks at every stored problem before a run starts: a damaged picture or a prompt that is too long
ends a run in its first minute, not in its tenth hour."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from thinking_rl.model.processing import KimiVLProcessor, problem_messages
from thinking_rl.recipe import Rollout
from thinking_rl.types import Problem

SHOWN = 3


def check_problems(
    problems: Iterable[Problem],
    processor: KimiVLProcessor,
    instruction: str = "",
    rollout: Rollout | None = None,
) -> None:
    """Decode every picture and count every prompt's tokens, with a thread for each core.

    Args:
        rollout: what prompts must fit; None: they are not for an engine.

    Raises:
        ValueError: some cannot be used; the first are named.
    """
    look = partial(_mistake, processor=processor, instruction=instruction, rollout=rollout)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        mistakes = [mistake for mistake in threads.map(look, problems) if mistake]
    if mistakes:
        more = f"; and {len(mistakes) - SHOWN} more" if len(mistakes) > SHOWN else ""
        raise ValueError("; ".join(mistakes[:SHOWN]) + more)


def check_fit(problem: Problem, tokens: int, rollout: Rollout) -> None:
    """Raises ValueError where a prompt of so many tokens leaves no room for a response, or has
    more pictures than the engines are made for."""
    if tokens >= rollout.max_model_tokens:
        raise ValueError(
            f"problem {problem.id}: the prompt has {tokens} tokens and rollout.max_model_tokens is "
            f"{rollout.max_model_tokens}; raise it, lower model.image_token_limit, or leave the "
            "problem out"
        )
    check_image_count(problem, rollout)


def check_image_count(problem: Problem, rollout: Rollout) -> None:
    """Raises ValueError where a problem has more pictures than the engines are made for."""
    if len(problem.images) > rollout.max_images:
        raise ValueError(
            f"problem {problem.id}: {len(problem.images)} images, and rollout.max_images is "
            f"{rollout.max_images}; raise it, or leave the problem out"
        )


def _mistake(
    problem: Problem, processor: KimiVLProcessor, instruction: str, rollout: Rollout | None
) -> str | None:
    try:
        tokens = processor.count_tokens(problem_messages(problem, instruction))
        if rollout is not None:
            check_fit(problem, tokens, rollout)
    except ValueError as error:
        return str(error)
    return None
