"""The recipe's benchmarks, run on the engines of a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eval.ask import Asking, Model, ask, check_prompts
from eval.benchmarks.benchmark import Benchmark
from eval.benchmarks.registry import get_benchmark
from eval.measure import Measures, measure
from thinking_rl.files.run_folder import ITERATION
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.processing import KimiVLProcessor
from thinking_rl.plan.preflight import check_image_count
from thinking_rl.recipe.schema import BenchmarkRun, Recipe
from thinking_rl.report.summary import BENCHMARK
from thinking_rl.types import Problem


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark of the recipe, ready to be asked."""

    benchmark: Benchmark
    """Its rules."""
    problems: Sequence[Problem]
    """Those that the recipe wants."""
    asking: Asking
    """How they are asked."""


def load_benchmarks(
    recipe: Recipe, processor: KimiVLProcessor, images: ImageStore
) -> list[LoadedBenchmark]:
    """The problems of `data.benchmarks` and how they are asked, every prompt looked at: better now
    than after hours of training.

    Raises:
        ValueError: data cannot be used, or a prompt does not fit.
    """
    loaded = []
    model = Model(processor, images, lambda _: [], recipe.rollout.max_model_tokens)
    for one in recipe.data.benchmarks:
        benchmark, asking = get_benchmark(one.name), asking_of(recipe, one)
        problems = benchmark.load(one.path, one.split, one.limit)
        for problem in problems:
            check_image_count(problem, recipe.rollout)
        check_prompts(benchmark, problems, model, asking)
        loaded.append(LoadedBenchmark(benchmark, problems, asking))
    return loaded


def asking_of(recipe: Recipe, one: BenchmarkRun) -> Asking:
    """How the recipe asks a benchmark's problems."""
    return Asking(
        samples=one.samples,
        temperature=recipe.data.eval_temperature,
        max_response_tokens=recipe.rollout.max_response_tokens,
        seed=recipe.seed,
    )


def run_benchmarks(
    loaded: Sequence[LoadedBenchmark],
    model: Model,
    done: int,
    report: Callable[[str, dict[str, Any]], None],
) -> None:
    """Run the benchmarks after `done` RL iterations and report each as
    `benchmark/<name>@iteration_<done>`: official counts, and strict beside them."""
    for one in loaded:
        answers = ask(one.benchmark, one.problems, model, one.asking)
        result = measure(one.benchmark, one.problems, answers, one.asking)
        report(benchmark_row(one, done), _result(result, len(answers)))


def benchmark_row(one: LoadedBenchmark, done: int) -> str:
    """What the result of a benchmark after `done` RL iterations is called."""
    return f"{BENCHMARK}{one.benchmark.name}@{ITERATION}{done}"


def _result(result: Measures, responses: int) -> dict[str, Any]:
    return {
        "accuracy": result.official.mean,
        "interval_95": [result.official.low, result.official.high],
        "correct": result.official_right,
        "total": responses,
        "strict": result.strict.mean,
        "strict_right": result.strict_right,
        "not_graded": result.not_graded,
        "no_answer": result.parse_failed,
        "length": result.mean_tokens,
        "thinking_tokens": result.mean_thinking_tokens,
    }
