"""Problems in, whole groups out: what an iteration samples, and what it leaves for later ones."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from rollouts.buffer import Buffer, OpenGroup
from rollouts.collect import trajectory
from rollouts.engine import Completion
from rollouts.pool import RolloutPool
from rollouts.prompts import Prompt, Sampling
from rollouts.scheduler import Job
from thinking_rl.model.processing import KimiVLProcessor
from thinking_rl.types import FinishReason, Group, Problem

T = TypeVar("T")


class Source(Protocol):
    """Where problems come from."""

    def draw(self, n: int) -> list[Problem]:
        """The next n problems."""
        ...


@dataclass(frozen=True)
class Phases:
    """How an iteration's sampling is cut."""

    problems: int
    """New problems for each iteration."""
    iterations: int
    """Of the run."""
    phase_tokens: int
    """Most tokens of one response in one iteration."""
    max_age: int
    """Iterations after which a response that goes on is cut off."""
    max_model_tokens: int
    """Prompt and response together."""
    max_staleness: int = 0
    """Iterations that the engines may be ahead of the learner."""


class Stream:
    """Samples responses over iterations. `fill` and `collect` are called once for each."""

    def __init__(
        self,
        pool: RolloutPool,
        processor: KimiVLProcessor,
        render: Callable[[Problem], Prompt],
        sampling: Sampling,
        phases: Phases,
    ) -> None:
        """render: a problem's prompt, its pictures in the image store."""
        self.pool, self.processor = pool, processor
        self.sampling, self.phases = sampling, phases
        self.buffer = Buffer(render)
        self._drawn = 0  # iterations that problems were drawn for
        self._under_way: set[str] = set()  # names of requests that the pool has

    def fill(self, source: Source, iteration: int) -> None:
        """Ask for everything that may be sampled now: what was left first, then new problems, as
        far ahead as `max_staleness` allows."""
        ahead = min(iteration + self.phases.max_staleness, self.phases.iterations - 1)
        while self._drawn <= ahead:
            for problem in source.draw(self.phases.problems):
                self.buffer.add(problem, self.sampling.samples, self._drawn)
            self._drawn += 1
        jobs = [
            Job(name, group.request(sample, self.sampling, self.phases.phase_tokens), group.number)
            for group in self.buffer.groups
            for sample, name in self._open(group)
            if name not in self._under_way
        ]
        self._under_way |= {job.name for job in jobs}
        self.pool.submit(jobs)

    def collect(self, iteration: int) -> list[Group]:
        """The groups that are whole when every response of this iteration and earlier ones has
        ended or reached the phase's limit. What is not finished stays in the buffer."""
        due = {
            name: (group, sample)
            for group in self.buffer.groups
            if group.begun <= iteration
            for sample, name in self._open(group)
        }
        for job in self.pool.wait(list(due)):
            group, sample = due[job.name]
            self._take(group, sample, job.completion(), iteration)
        self._under_way -= due.keys()
        return [self._group(one) for one in self.buffer.take_whole(iteration)]

    def meanwhile(self, work: Callable[[], T]) -> T:
        """Do the learner's work. Where engines may be ahead of it they go on sampling; an engine
        that is lost stays so until the work is done."""
        if not self.phases.max_staleness:
            return work()
        bring_up, self.pool.bring_up = self.pool.bring_up, None
        try:
            with ThreadPoolExecutor(1) as thread:
                result = thread.submit(work)
                while not result.done():
                    self.pool.pump()
                return result.result()
        finally:
            self.pool.bring_up = bring_up

    @property
    def unfinished(self) -> int:
        """Responses that go on."""
        return sum(len(self._open(group)) for group in self.buffer.groups)

    def state_dict(self) -> dict[str, Any]:
        """What is not finished, and how far problems were drawn."""
        return {"drawn": self._drawn, "buffer": self.buffer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._drawn = state["drawn"]
        self.buffer.load_state_dict(state["buffer"])

    def _open(self, group: OpenGroup) -> list[tuple[int, str]]:
        """Number and request's name of a group's responses that go on."""
        return [
            (sample, group.name(sample))
            for sample, response in enumerate(group.responses)
            if response.finish_reason is FinishReason.UNFINISHED
        ]

    def _take(self, group: OpenGroup, sample: int, answer: Completion, iteration: int) -> None:
        room = self.phases.max_model_tokens - len(group.prompt.token_ids)
        limit = min(self.sampling.max_response_tokens, room)
        is_last = iteration - group.begun >= self.phases.max_age
        group.responses[sample].take(answer, limit, is_last)

    def _group(self, group: OpenGroup) -> Group:
        answers = [Completion(tuple(r.segments), r.finish_reason) for r in group.responses]
        prompt = group.prompt
        trajectories = tuple(trajectory(self.processor, prompt, one) for one in answers)
        return Group(prompt.problem, trajectories)
