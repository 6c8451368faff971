"""What every stage of a run shares: engines, graders, held-out problems, the reporter."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rewards.processes.pool import GradingPool, check_failure_share
from rollouts.collect import Prompt, Sampling, collect, render_prompt
from rollouts.engine import EngineSettings
from rollouts.pool import RolloutPool, put_buckets
from thinking_rl.cluster.devices import Cluster, cluster
from thinking_rl.cluster.placement import layout_of
from thinking_rl.data import example_stream, fixed_problems, problem_stream
from thinking_rl.learner.rank import LearnerSettings
from thinking_rl.model.processing import load_processor
from thinking_rl.model.weights import CheckpointReader
from thinking_rl.plan.preflight import check_examples, check_fit, check_problems
from thinking_rl.recipe.schema import Optimizer, Recipe
from thinking_rl.report.progress import Reporter
from thinking_rl.run.benchmarks import load_benchmarks
from thinking_rl.run.state import Saved, write_saved
from thinking_rl.types import Group, Outcome, Problem, Score

BUCKET_BYTES = 2**30


class RunContext:
    """Opened once a run; everything it started ends with it."""

    def __init__(self, recipe: Recipe, reporter: Reporter, checkpoint: str):
        """checkpoint: folder the engines start from. Data and graders are looked at first: what
        is wrong with them is said before minutes are spent on starting engines.

        Raises:
            ValueError: a problem or a grader cannot be used.
            RolloutError: an engine could not start.
        """
        self.recipe = recipe
        self.reporter = reporter
        self.processor = load_processor(checkpoint, recipe.model.image_token_limit)
        self.sampling = Sampling(
            samples=recipe.rl.samples_per_problem if recipe.rl else 1,
            max_tokens=recipe.rollout.max_response_tokens,
            temperature=recipe.rollout.temperature,
            top_p=recipe.rollout.top_p,
        )
        data = recipe.data
        if "sft" in recipe.stages and recipe.sft:
            self.examples = example_stream(recipe.sft.data, recipe.seed)
            limit = recipe.sft.max_tokens
            stored = self.examples.stored()
            too_long = check_examples(stored, self.processor, data.instruction, limit)
            if too_long:
                reporter.log(f"sft: {too_long} conversations longer than {limit} tokens, left out")
        if "rl" in recipe.stages:
            self.problems = problem_stream(data.train, recipe.seed)
            check_problems(self.problems.stored(), self.processor, data.instruction, recipe.rollout)
            self.benchmarks = load_benchmarks(recipe, self.processor)
        held_out = fixed_problems(data.eval, data.eval_problems, recipe.seed)
        self.held_out = [self.render(problem) for problem in held_out]
        self._resources = ExitStack()
        try:
            rewards = recipe.rewards
            self.grader = self._resources.enter_context(
                GradingPool(
                    [(part.grader, part.weight) for part in rewards.parts],
                    timeout_s=rewards.timeout_s,
                    memory_gib=rewards.memory_gib,
                    workers=rewards.workers,
                )
            )
            self.devices = self._resources.enter_context(cluster(layout_of(recipe)))
            reporter.log(f"starting {recipe.rollout.engines} rollout worker(s)")
            self.pool = RolloutPool(
                engine_settings(recipe, self.devices, checkpoint, self.processor),
                self.devices.engines,
                start_timeout_s=recipe.rollout.start_timeout_s,
                timeout_s=recipe.rollout.timeout_s,
            )
            self._resources.callback(self.pool.close)
        except BaseException:
            self._resources.close()
            raise

    def __enter__(self) -> RunContext:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    def folder(self, *names: str) -> str:
        """A path in the run's folder."""
        return str(Path(self.recipe.run_dir).resolve().joinpath(*names))

    def save_position(
        self, folder: str, iteration: int, sampler: dict[str, Any] | None = None
    ) -> None:
        """Complete a checkpoint's folder with what a resumed run needs beside the weights."""
        reporter = self.reporter
        position = reporter.metrics_bytes, reporter.seconds()
        write_saved(Saved(Path(folder), iteration, *position, sampler or {}))

    def render(self, problem: Problem) -> Prompt:
        """A problem's prompt; one that does not fit the engines is a ValueError."""
        prompt = render_prompt(self.processor, problem, self.recipe.data.instruction)
        check_fit(problem, len(prompt.token_ids), self.recipe.rollout)
        return prompt

    def grade(self, groups: Sequence[Group]) -> list[Group]:
        """Score every response. What could not be graded is counted, shown, and kept with its
        input in `not_graded.jsonl`.

        Raises:
            RuntimeError: too many could not be graded (`rewards.max_failure_share`).
        """
        items = [(group.problem, t.text) for group in groups for t in group.trajectories]
        self.grader.reset_statistics()
        scores = self.grader.grade(items)
        keep_not_graded(items, scores, Path(self.folder("not_graded.jsonl")))
        check_failure_share(scores, self.recipe.rewards.max_failure_share, self.grader)
        errors = [score.error for score in scores if score.outcome is Outcome.NOT_GRADED]
        if errors:
            self.reporter.log(f"{len(errors)} of {len(scores)} not graded, such as: {errors[0]}")
        remaining = iter(scores)
        return [
            replace(group, scores=tuple(next(remaining) for _ in group.trajectories))
            for group in groups
        ]

    def grader_metrics(self) -> dict[str, float]:
        """Latency and failures by grader of the last `grade`: `grader/<name>/<what>`."""
        return {
            f"grader/{name}/{what}": value
            for name, entry in self.grader.statistics().items()
            for what, value in (
                ("p50_s", entry["p50_s"]),
                ("p99_s", entry["p99_s"]),
                *entry["failures"].items(),
            )
        }

    def evaluate(self, name: str) -> None:
        """pass@1 on the held-out problems, as a mean over `data.eval_samples` responses; over
        those alone that were graded, by a grader that judges answers."""
        data = self.recipe.data
        sampling = replace(
            self.sampling, samples=data.eval_samples, temperature=data.eval_temperature
        )
        groups = self.grade(collect(self.pool, self.processor, self.held_out, sampling))
        scores = [score for group in groups for score in group.scores]
        verdicts = [score.correct for score in scores if score.correct is not None]
        graded = [score.value for score in scores if score.outcome is not Outcome.NOT_GRADED]
        lengths = [t.length for group in groups for t in group.trajectories]
        self.reporter.evaluation(
            name,
            sum(verdicts),
            len(verdicts),
            {
                "reward": mean(graded),
                "length": mean(lengths),
                "not_graded": len(scores) - len(graded),
            },
        )

    def publish_checkpoint(self, folder: str) -> None:
        """Give the engines the weights of a checkpoint folder."""
        reader = CheckpointReader(folder)
        tensors = ((name, reader.read(name)) for name in sorted(reader.names()))
        self.pool.publish(put_buckets(tensors, BUCKET_BYTES), self.pool.version + 1)

    def learner_settings(
        self, checkpoint: str, optimizer: Optimizer, tau: float
    ) -> LearnerSettings:
        """What a learner rank, in SFT or RL, has to know."""
        recipe = self.recipe
        return LearnerSettings(
            checkpoint=checkpoint,
            learning_rate=optimizer.learning_rate,
            tau=tau,
            dtype=recipe.model.dtype,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
            max_grad_norm=optimizer.max_grad_norm,
            reset_optimizer=recipe.rl.reset_optimizer if recipe.rl else True,
            freeze=tuple(recipe.model.freeze),
            activation_checkpointing=recipe.learner.activation_checkpointing,
            threads=recipe.learner.threads or self.devices.threads,
            timeout_s=recipe.learner.timeout_s,
            seed=recipe.seed,
        )


def mean(values: Sequence[float]) -> float:
    """The mean; NaN, which reports show as unknown, where there is nothing."""
    return sum(values) / len(values) if values else math.nan


def keep_not_graded(
    items: Sequence[tuple[Problem, str]], scores: Sequence[Score], path: Path
) -> None:
    """Append each response that could not be graded to a jsonl file, with what it takes to try it
    again by `python -m rewards.grade`."""
    failed = [
        item for item in zip(items, scores, strict=True) if item[1].outcome is Outcome.NOT_GRADED
    ]
    if not failed:
        return
    with path.open("a", encoding="utf-8") as file:
        for (problem, response), score in failed:
            row = {
                "id": problem.id,
                "response": response,
                "answer": problem.answer,
                "choices": problem.choices,
                "metadata": dict(problem.metadata),
                "error": score.error,
            }
            file.write(json.dumps(row, default=repr) + "\n")


def engine_settings(recipe: Recipe, devices: Cluster, checkpoint: str, processor) -> EngineSettings:
    """The recipe's rollout section as an engine takes it."""
    ids = processor.tokenizer.special_token_ids
    rollout = recipe.rollout
    return EngineSettings(
        checkpoint=checkpoint,
        dtype=recipe.model.dtype,
        max_model_tokens=rollout.max_model_tokens,
        max_sequences=rollout.max_sequences,
        max_images=rollout.max_images,
        seed=recipe.seed,
        media_token_id=processor.media_token_id,
        stop_token_ids=(ids["<|im_end|>"], ids["[EOS]"]),
        image_token_limit=recipe.model.image_token_limit,
        tensor_parallel=rollout.tensor_parallel,
        gpu_memory_share=rollout.gpu_memory_share,
        kv_cache_gib=rollout.kv_cache_gib,
        threads=devices.threads,
        on_cpu=devices.on_cpu,
        sleeps=not devices.on_cpu and rollout.placement == "shared",
    )
