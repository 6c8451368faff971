"""The recipe's benchmarks, run on the engines of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.benchmarks.benchmark import Benchmark
from eval.benchmarks.registry import get_benchmark
from eval.runner import Asking, Model, ask, check_prompts, measure
from thinking_rl.model.processing import KimiVLProcessor
from thinking_rl.plan.preflight import check_image_count
from thinking_rl.recipe.schema import BenchmarkRun, Recipe
from thinking_rl.report.summary import BENCHMARK
from thinking_rl.types import Problem

if TYPE_CHECKING:
    from thinking_rl.run.session import RunContext


def load_benchmarks(
    recipe: Recipe, processor: KimiVLProcessor
) -> list[tuple[Benchmark, list[Problem], Asking]]:
    """The problems of `data.benchmarks` and how they are asked.

    Raises ValueError where data cannot be used, or a prompt does not fit: better now than after
    hours of training.
    """
    loaded = []
    model = Model(processor, lambda _: [], recipe.rollout.max_model_tokens)
    for one in recipe.data.benchmarks:
        benchmark, asking = get_benchmark(one.name), asking_of(recipe, one)
        problems = benchmark.load(one.path, one.split, one.limit)
        for problem in problems:
            check_image_count(problem, recipe.rollout)
        check_prompts(benchmark, problems, model, asking)
        loaded.append((benchmark, problems, asking))
    return loaded


def asking_of(recipe: Recipe, one: BenchmarkRun) -> Asking:
    """How the recipe asks a benchmark's problems."""
    return Asking(
        samples=one.samples,
        temperature=recipe.data.eval_temperature,
        max_tokens=recipe.rollout.max_response_tokens,
        seed=recipe.seed,
    )


def run_benchmarks(run: RunContext, done: int) -> None:
    """Run the benchmarks after `done` RL iterations and report each as
    `benchmark/<name>@iteration_<done>`: official counts, and strict beside them."""
    model = Model(run.processor, run.pool.generate, run.recipe.rollout.max_model_tokens)
    for benchmark, problems, asking in run.benchmarks:
        answers = ask(benchmark, problems, model, asking)
        result = measure(benchmark, problems, answers, asking)
        run.reporter.evaluation(
            f"{BENCHMARK}{benchmark.name}@iteration_{done}",
            result.official_right,
            len(answers),
            {
                "strict": result.strict.mean,
                "strict_right": result.strict_right,
                "not_graded": result.not_graded,
                "no_answer": result.parse_failed,
                "length": result.mean_tokens,
                "thinking_tokens": result.mean_thinking_tokens,
            },
        )
