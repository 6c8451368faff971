"""Verified chains from a teacher, step by step: what `thinking_rl.data.warmup` does."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from eval.answers import keep_settings
from eval.command import progress
from rollouts.prompts import Sampling
from thinking_rl.curation import behaviours, command
from thinking_rl.curation.asking import Answer, Answered, Item, ask, engine_model, on_engines
from thinking_rl.curation.chains import Chain, best_chains
from thinking_rl.curation.endpoint import Endpoint
from thinking_rl.curation.written import problem_row, write_parquet
from thinking_rl.files.json_files import write_json
from thinking_rl.files.lock import sole_writer
from thinking_rl.plan.preflight import check_problems
from thinking_rl.recipe.schema import Recipe
from thinking_rl.run.export import starting_checkpoint
from thinking_rl.run.grading import Grader
from thinking_rl.types import Problem

SAME_CHAIN = 0.8
"""Jaccard similarity of their words from which on two chains to one problem are one."""
SETTINGS = ("problems", "attempts", "temperature", "endpoint", "teacher", "prompts", "chunk")
"""Options that the responses depend on."""


def warm_up_set(options: argparse.Namespace) -> None:
    """Ask, verify, deduplicate, write.

    Raises:
        ValueError: an option or the recipe cannot be used.
    """
    if bool(options.endpoint) != bool(options.teacher):
        raise ValueError("--endpoint and --teacher go together: where to ask, and whom")
    recipe = command.read_recipe(options)
    with ExitStack() as resources:
        resources.enter_context(sole_writer(options.out))
        keep_settings(options.out, command.settings_of(recipe, options, SETTINGS))
        # Pictures of the warm-up's side: RL asks nothing that it showed.
        problems = command.problems_of(recipe, options.problems, "warm-up")
        repeated = command.duplicates_of(problems, command.evaluation_problems(recipe))
        left = [one for one in problems if one.id not in repeated]
        rows = responses(recipe, options, left, resources)
        counts = {"problems": len(problems), "repeated": len(repeated)}
        print(json.dumps(write(recipe, options, left, rows, counts), indent=2))


def responses(
    recipe: Recipe, options: argparse.Namespace, problems: Sequence[Problem], resources: ExitStack
) -> list[Answered]:
    """Every attempt at every problem, graded: thinking is required, and an end."""
    if options.endpoint:
        answer: Answer = endpoint(recipe, options)
    else:
        answer = teacher_on_engines(recipe, options, problems, resources)
    required = recipe.rewards.model_copy(update={"thinking": "required", "truncated": "wrong"})
    grader = Grader(required, options.out / "not_graded.jsonl", command.say)
    resources.callback(grader.close)
    items = [
        Item(one, attempt, "\n".join(filter(None, (recipe.data.instruction, wanted))))
        for one in problems
        for attempt in range(options.attempts)
        for wanted in [behaviours.instruction(attempt) if options.prompts == "behaviours" else ""]
    ]
    file = options.out / "responses" / "chains.jsonl"
    return ask(items, answer, grader, file, options.chunk, progress("chains"))


def endpoint(recipe: Recipe, options: argparse.Namespace) -> Endpoint:
    """The server that the options name."""
    return Endpoint(
        url=options.endpoint,
        model=options.teacher,
        temperature=options.temperature,
        top_p=recipe.rollout.top_p,
        max_tokens=recipe.rollout.max_response_tokens,
        seed=recipe.seed,
        parallel=options.parallel,
        timeout_s=recipe.rollout.timeout_s,
        key=os.environ.get(options.key_variable, "") if options.key_variable else "",
    )


def teacher_on_engines(
    recipe: Recipe, options: argparse.Namespace, problems: Sequence[Problem], resources: ExitStack
) -> Answer:
    """The recipe's model.

    Raises:
        ValueError: a problem does not fit the engines.
    """
    model, rollout = engine_model(recipe, starting_checkpoint(recipe), resources), recipe.rollout
    longest = behaviours.instruction(0) if options.prompts == "behaviours" else ""
    check_problems(problems, model.processor, model.images, longest, rollout)
    tokens, top_p = rollout.max_response_tokens, rollout.top_p
    sampling = Sampling(1, tokens, options.temperature, top_p, recipe.seed, "warm-up")
    return on_engines(model, sampling)


def write(
    recipe: Recipe,
    options: argparse.Namespace,
    problems: Sequence[Problem],
    rows: Sequence[Answered],
    counts: dict[str, Any],
) -> dict[str, Any]:
    """Write the chains that are kept, and the counts, which are returned."""
    written, shown, verified, attempts = [], [], 0, options.attempts
    for place, one in enumerate(problems):
        right = [row for row in rows[place * attempts : (place + 1) * attempts] if row.right]
        verified += len(right)
        for number, chain in enumerate(best_chains(right, options.per_problem, SAME_CHAIN)):
            shown.append(chain.behaviours)
            written.append(chain_row(one, number, chain))
    kinds = {"response": "string", "tokens": "int64", "attempt": "int64"}
    kinds |= dict.fromkeys(behaviours.BEHAVIOURS, "bool")
    write_parquet(written, kinds, options.out / "warmup.parquet")
    summary = counts | {
        "responses": len(rows),
        "verified": verified,
        "kept": len(written),
        "shares": behaviours.shares(shown),
        "teacher": options.teacher or recipe.model.path,
        "seed": recipe.seed,
    }
    write_json(options.out / "summary.json", summary, indent=2)
    return summary


def chain_row(problem: Problem, number: int, chain: Chain) -> dict[str, Any]:
    """A problem's columns with those of its chain; further chains have ids of their own."""
    suffix = f"#{number + 1}" if number else ""
    columns = {name: name in chain.behaviours for name in behaviours.BEHAVIOURS}
    of_chain = {"response": chain.response, "tokens": chain.tokens, "attempt": chain.attempt}
    return problem_row(problem) | of_chain | columns | {"id": f"{problem.id}{suffix}"}
