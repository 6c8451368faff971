"""What every stage of a run shares, opened once; everything it started ends with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

import ray

from rollouts.pool import RolloutPool
from rollouts.prompts import Prompt, Sampling, render_prompt
from rollouts.stream import Phases, Stream
from thinking_rl.cluster.devices import cluster
from thinking_rl.cluster.placement import placement_of
from thinking_rl.data import example_stream, fixed_problems, problem_stream
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.learner.group import Learner
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.processing import load_processor
from thinking_rl.plan.preflight import check_examples, check_fit, check_problems
from thinking_rl.publication.agreement import Agreement
from thinking_rl.publication.publish import Publisher
from thinking_rl.recipe.schema import Recipe
from thinking_rl.report.progress import Reporter
from thinking_rl.report.responses import ResponseLog
from thinking_rl.run.benchmarks import load_benchmarks
from thinking_rl.run.grading import Grader
from thinking_rl.run.settings import engine_settings, learner_settings, patience
from thinking_rl.run.state import Course, RunState
from thinking_rl.types import Group, Problem


class Session:
    """A run's data, graders, engines and learner."""

    def __init__(self, recipe: Recipe, reporter: Reporter, state: RunState, checkpoint: str):
        """Data and graders are looked at first: what is wrong with them is said before minutes are
        spent on starting engines.

        Args:
            state: what a run that goes on was left with; whoever has a state registers there.
            checkpoint: folder that the engines start from.

        Raises:
            ValueError: a problem or a grader cannot be used.
            RolloutError: an engine could not start.
        """
        self.recipe, self.reporter, self.state = recipe, reporter, state
        self.folder = RunFolder.at(recipe.run_dir)
        self.processor = load_processor(checkpoint, recipe.model.image_token_limit)
        self.images = ImageStore(
            self.processor.image_processor, recipe.data.image_store_gib, share=ray.put
        )
        self.sampling = Sampling(
            samples=recipe.rl.samples_per_problem if recipe.rl else 1,
            max_response_tokens=recipe.rollout.max_response_tokens,
            temperature=recipe.rollout.temperature,
            top_p=recipe.rollout.top_p,
            seed=recipe.seed,
        )
        self._learner: Learner | None = None
        self._load_data()
        self._resources = ExitStack()
        try:
            self._start(checkpoint)
        except BaseException:
            self._resources.close()
            raise

    def _load_data(self) -> None:
        """Every stored problem and conversation is looked at, and every held-out one rendered."""
        recipe, data = self.recipe, self.recipe.data
        if sft := recipe.active_sft:
            self.examples = example_stream(sft.data, recipe.seed)
            too_long = check_examples(
                self.examples.stored(),
                self.processor,
                self.images,
                data.instruction,
                sft.max_conversation_tokens,
            )
            if too_long:
                self.reporter.log(
                    f"sft: {too_long} conversations longer than {sft.max_conversation_tokens} "
                    "tokens, left out"
                )
        if recipe.active_rl:
            self.problems = problem_stream(data.train, recipe.seed)
            check_problems(
                self.problems.stored(),
                self.processor,
                self.images,
                data.instruction,
                recipe.rollout,
            )
            self.benchmarks = load_benchmarks(recipe, self.processor, self.images)
        held_out = fixed_problems(data.eval, data.eval_problems, recipe.seed)
        self.held_out = [self.render(problem) for problem in held_out]

    def _start(self, checkpoint: str) -> None:
        """Graders, Ray, engines; in this order, the quickest to fail first."""
        recipe, rollout = self.recipe, self.recipe.rollout
        self.grader = Grader(recipe.rewards, self.folder.not_graded, self.reporter.log)
        self._resources.callback(self.grader.close)
        self.responses = ResponseLog(self.folder, recipe.responses_gib, self.images.encoded)
        self._resources.callback(self.responses.close)
        self.state.register("responses", self.responses)
        self.devices = self._resources.enter_context(cluster(placement_of(recipe), self.folder.log))
        self.reporter.log(f"starting {rollout.engines} rollout worker(s)")
        self.pool = RolloutPool(
            engine_settings(recipe, self.devices, checkpoint, self.processor),
            self.devices.engines,
            self.images,
            patience=patience(rollout, self.devices),
            dealing=recipe.dealing,
            log=self.reporter.log,
        )
        self._resources.callback(self.pool.close)
        self.reporter.event("worker", f"{rollout.engines} rollout worker(s) started")
        self.state.register("policy", self.pool)
        self._proved = self.pool.version if self.state.position else -1  # its proof is recorded
        self.course = Course(recipe.rl.iterations if recipe.rl else 0)
        self.state.register("course", self.course)
        self._resources.callback(self.close_learner)
        self.publisher = Publisher(
            pool=self.pool,
            processor=self.processor,
            prompts=self.held_out,
            sampling=self.sampling,
            responses=rollout.agreement_responses,
            dtype=recipe.model.dtype,
            tolerance=recipe.agreement_tolerance,
            timer=self.reporter.timer,
            record=self._record_proof,
        )

    def _record_proof(self, version: int, groups: Sequence[Group], agreement: Agreement) -> None:
        if version > self._proved:
            with self.reporter.timer("record"):
                self.responses.write(
                    "proof",
                    version,
                    groups,
                    {"learner_logprobs": agreement.logprobs, "entropies": agreement.entropies},
                )
            self._proved = version

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    def render(self, problem: Problem) -> Prompt:
        """A problem's prompt.

        Raises:
            ValueError: it does not fit the engines, or a picture cannot be used.
        """
        instruction = self.recipe.data.instruction
        prompt = render_prompt(self.processor, self.images, problem, instruction)
        check_fit(problem, len(prompt.token_ids), self.recipe.rollout)
        return prompt

    def stream(self) -> Stream:
        """What RL samples."""
        rl, rollout = self.recipe.rl, self.recipe.rollout
        assert rl is not None
        phases = Phases(
            problems=rl.problems_per_iteration,
            iterations=rl.iterations,
            phase_tokens=rollout.phase_tokens or rollout.max_response_tokens,
            max_age=rollout.max_age,
            max_model_tokens=rollout.max_model_tokens,
            max_staleness=rl.max_staleness,
        )
        return Stream(self.pool, self.processor, self.render, self.sampling, phases)

    def learner(self, checkpoint: str) -> Learner:
        """The learner with the weights of a checkpoint folder: the one that is open, where it was
        opened there, else a new one in its place. It steps as RL asks.

        Raises:
            LearnerError: a rank could not start.
        """
        if self._learner and self._learner.settings.checkpoint == checkpoint:
            return self._learner
        self.close_learner()
        section = self.recipe.rl or self.recipe.sft
        assert section is not None
        with self.reporter.timer("start"):
            self._learner = Learner(
                learner_settings(self.recipe, self.devices, checkpoint, section.optimizer),
                self.devices.learners,
                self.images,
                tokens_per_microbatch=self.recipe.learner.tokens_per_microbatch,
            )
        self.reporter.event("worker", f"{self.recipe.learner.workers} learner rank(s) started")
        return self._learner

    def close_learner(self) -> None:
        """End the learner's processes, where it is open."""
        self.pool.bring_up = None
        if self._learner:
            self._learner.close()
        self._learner = None
