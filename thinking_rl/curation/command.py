"""What both commands share: the recipe, the problems, the folder, and how a mistake is told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinking_rl.algorithm.sampler import draw_pool
from thinking_rl.curation.duplicates import Duplicate, entry_of, find_duplicates
from thinking_rl.data import fixed_problems, problem_stream
from thinking_rl.data.problems import load_problems
from thinking_rl.data.procedural import Side
from thinking_rl.plan.devices import find_gpus, resolve_dtype
from thinking_rl.recipe.load import load_recipe
from thinking_rl.recipe.schema import Recipe
from thinking_rl.types import Problem


def read_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe of the command line, its run folder being the command's.

    Raises:
        ValueError: it cannot be used.
    """
    recipe = resolve_dtype(load_recipe(options.recipe, options.overrides), find_gpus())
    return recipe.model_copy(update={"run_dir": str(options.out)})


def settings_of(recipe: Recipe, options: argparse.Namespace, names: Sequence[str]) -> dict:
    """What the answers depend on."""
    kept = recipe.model_dump(mode="json", include={"seed", "model", "rollout", "rewards"})
    data = recipe.model_dump(mode="json")["data"]
    kept["sources"] = {name: data[name] for name in ("train", "eval", "benchmarks", "instruction")}
    weights = sorted(Path(recipe.model.path).expanduser().glob("*.safetensors"))
    kept["weights"] = [[file.name, file.stat().st_mtime_ns] for file in weights]
    return {**kept, **{name: getattr(options, name) for name in names}, "data": {}}


def problems_of(recipe: Recipe, count: int | None, side: Side) -> list[Problem]:
    """`count` problems of `data.train`, or all that files and hubs hold.

    Raises:
        ValueError: a source cannot be used, or has no end and no count is given.
    """
    stream = problem_stream(recipe.data.train, recipe.seed, side)
    if count:
        return draw_pool(stream, count, "--problems")
    if any(source.format == "procedural" for source in recipe.data.train):
        raise ValueError("a procedural source of data.train has no end; give --problems N")
    return list(stream.stored())


def evaluation_problems(recipe: Recipe) -> list[Problem]:
    """All that `data.eval` and `data.benchmarks` may ask; of procedural sources those that a run
    with this recipe asks."""
    from eval.benchmarks.registry import get_benchmark

    problems: list[Problem] = []
    for source in recipe.data.eval:
        if source.format != "procedural":
            problems += load_problems(source)
    drawn = fixed_problems(recipe.data.eval, recipe.data.eval_problems, recipe.seed)
    problems += [one for one in drawn if one.source.startswith("procedural")]
    for one in recipe.data.benchmarks:
        problems += get_benchmark(one.name).load(one.path, one.split, one.limit)
    return problems


def duplicates_of(problems: Sequence[Problem], others: Sequence[Problem]) -> dict[str, Duplicate]:
    """Id -> what the problem repeats: one of the others, or an earlier one that stays."""
    found = find_duplicates([entry_of(p) for p in problems], [entry_of(p) for p in others])
    return {problems[place].id: duplicate for place, duplicate in found.items()}


def say(message: str) -> None:
    """On stderr."""
    print(message, file=sys.stderr)


def column_totals(values: Sequence[Any]) -> dict[str, int]:
    """Value -> how often it stands there, by name."""
    return {str(value): values.count(value) for value in sorted(set(values), key=str)}
