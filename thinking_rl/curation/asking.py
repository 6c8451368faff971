"""Asking for responses in chunks that are kept as they come, on engines or elsewhere, and grading
them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ray

from eval.ask import Model, when_first_asked
from rollouts.collect import trajectory
from rollouts.pool import RolloutPool
from rollouts.prompts import Sampling, render_prompt
from thinking_rl.cluster.devices import cluster
from thinking_rl.cluster.placement import Placement
from thinking_rl.files.jsonl import whole_lines
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.processing import load_processor
from thinking_rl.recipe.schema import Recipe
from thinking_rl.run.grading import Grader
from thinking_rl.run.settings import engine_settings, patience
from thinking_rl.types import FinishReason, Group, Outcome, Problem, Trajectory


@dataclass(frozen=True)
class Item:
    """One response that is asked for."""

    problem: Problem
    """What is asked."""
    sample: int
    """Number of the response, from 0."""
    instruction: str = ""
    """Follows the question; empty: nothing does."""


@dataclass(frozen=True)
class Response:
    """What was answered."""

    text: str
    """The whole response."""
    tokens: int
    """Sampled tokens; 0 where the teacher does not say."""
    finish: FinishReason
    """Why it ended."""


Answer = Callable[[Sequence[Item]], list[Response]]
"""Whatever answers: in the order of the items."""


@dataclass(frozen=True)
class Answered:
    """A response with its verdict, as it is kept."""

    id: str
    """Of the problem."""
    sample: int
    """Number of the response, from 0."""
    response: str
    """Its text."""
    tokens: int
    """Sampled tokens."""
    finish: str
    """Why it ended."""
    right: bool | None
    """The verdict; None where it could not be graded."""


def ask(
    items: Sequence[Item],
    answer: Answer,
    grader: Grader,
    file: Path,
    chunk: int,
    progress: Callable[[int, int], None],
) -> list[Answered]:
    """Every item answered and graded, in order. A line of `file` is a chunk, whole or not at all:
    what is there is not asked again, and a chunk never depends on where an earlier run stopped.

    Raises:
        ValueError: the file holds answers to other items.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lines, answered = whole_lines(file), list[Answered]()
    for number, start in enumerate(range(0, len(items), chunk)):
        part = items[start : start + chunk]
        if number < len(lines):
            answered += _kept(lines[number], part, f"{file}, row {number + 1}")
            continue
        rows = _graded(part, answer(part), grader)
        with file.open("a", encoding="utf-8") as lines_of_file:
            lines_of_file.write(json.dumps([asdict(row) for row in rows], ensure_ascii=False))
            lines_of_file.write("\n")
        answered += rows
        progress(len(answered), len(items))
    return answered


def _kept(line: bytes, items: Sequence[Item], where: str) -> list[Answered]:
    try:
        rows = [Answered(**row) for row in json.loads(line)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: no chunk of answers ({error}); give another --out") from error
    if [(row.id, row.sample) for row in rows] != [(one.problem.id, one.sample) for one in items]:
        raise ValueError(f"{where}: answers to other problems; give another --out")
    return rows


def _graded(items: Sequence[Item], responses: Sequence[Response], grader: Grader) -> list[Answered]:
    groups = [
        Group(item.problem, (Trajectory(item.problem.id, (), (), (), one.text, one.finish),))
        for item, one in zip(items, responses, strict=True)
    ]
    verdicts = {Outcome.RIGHT: True, Outcome.WRONG: False, Outcome.NOT_GRADED: None}
    graded = grader.grade(groups, may_mask=False)
    return [
        Answered(
            item.problem.id,
            item.sample,
            one.text,
            one.tokens,
            one.finish.value,
            verdicts[group.scores[0].outcome],
        )
        for item, one, group in zip(items, responses, graded, strict=True)
    ]


def engine_model(recipe: Recipe, checkpoint: str, resources: ExitStack) -> Model:
    """The recipe's model; its engines start with the first request, so that a finished set is
    written again without them. `resources` ends them."""
    processor = load_processor(checkpoint, recipe.model.image_token_limit)
    images = ImageStore(processor.image_processor, recipe.data.image_store_gib, share=ray.put)

    def start() -> RolloutPool:
        rollout = recipe.rollout
        placement = Placement(
            engines=rollout.engines,
            tensor_parallel=rollout.tensor_parallel,
            ray_address=recipe.ray_address,
        )
        devices = resources.enter_context(cluster(placement))
        settings = replace(engine_settings(recipe, devices, checkpoint, processor), sleeps=False)
        pool = RolloutPool(
            settings,
            devices.engines,
            images,
            patience=patience(rollout, devices),
            dealing="fixed",  # a chunk's responses are the same whenever it is asked
        )
        resources.callback(pool.close)
        return pool

    return Model(processor, images, when_first_asked(start), recipe.rollout.max_model_tokens)


def on_engines(model: Model, sampling: Sampling, opening: tuple[str, ...] = ()) -> Answer:
    """Answers by the engines; each has a seed of its own, from the seed, the purpose, the problem
    and the sample.

    Args:
        opening: texts that every response begins with, put there for the model, one after the
            other; special tokens in them are plain text.
    """
    ids = tuple(token for text in opening for token in model.processor.tokenizer.text_ids(text))

    def answer(items: Sequence[Item]) -> list[Response]:
        prompts = [
            render_prompt(model.processor, model.images, one.problem, one.instruction)
            for one in items
        ]
        pairs = zip(prompts, items, strict=True)
        asked = [prompt.request(sampling, one.sample) for prompt, one in pairs]
        requests = [replace(one, prompt_ids=one.prompt_ids + ids) for one in asked]
        responses = []
        for prompt, one in zip(prompts, model.generate(requests), strict=True):
            text = "".join(opening) + trajectory(model.processor, prompt, one).text
            responses.append(Response(text, len(one.token_ids), one.finish_reason))
        return responses

    return answer
