"""The recipe's benchmarks, run on the engines of a training run."""

from __future__ import annotations

from eval.registry import get_benchmark
from eval.runner import Asking, Model, ask, measure
from thinking_rl.context import RunContext
from thinking_rl.report.summary import BENCHMARK


def run_benchmarks(run: RunContext, done: int) -> None:
    """Run `data.benchmarks`, if they are due after `done` RL iterations, and report each as
    `benchmark/<name>@iteration_<done>`: official counts, and strict beside them.

    Raises ValueError where a benchmark's data cannot be used.
    """
    recipe = run.recipe
    rl, rollout = recipe.rl, recipe.rollout
    assert rl is not None
    is_due = rl.benchmarks_every and done % rl.benchmarks_every == 0
    if not (is_due or done == rl.iterations):
        return
    model = Model(run.processor, run.pool.generate, rollout.max_model_tokens)
    for one in recipe.data.benchmarks:
        benchmark = get_benchmark(one.name)
        asking = Asking(
            samples=one.samples,
            temperature=recipe.data.eval_temperature,
            max_tokens=rollout.max_response_tokens,
            seed=recipe.seed,
        )
        with run.reporter.timer("benchmarks"):
            problems = benchmark.load(one.path, one.split, one.limit)
            result = measure(benchmark, problems, ask(benchmark, problems, model, asking), asking)
        run.reporter.evaluation(
            f"{BENCHMARK}{one.name}@iteration_{done}",
            result.official_right,
            result.problems * result.samples,
            {
                "strict": result.strict.mean,
                "strict_right": result.strict_right,
                "not_graded": result.not_graded,
                "no_answer": result.parse_failed,
                "length": result.mean_tokens,
                "thinking_tokens": result.mean_thinking_tokens,
            },
        )
