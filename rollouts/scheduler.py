"""Which engine samples what: requests and the states of engines, without any process behind them.

A request is, at every moment, waiting, dealt to one engine that serves, or ended. What an engine
reported of it stays here, so that another one can go on with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rollouts.engine import Completion, Progress, Request
from rollouts.lifecycle import EngineState, Event, after
from rollouts.prompts import request_seed
from thinking_rl.types import FinishReason, Segment

AHEAD = 1.25
"""Requests that an engine is dealt, as a multiple of what it samples at once: the next ones are at
hand when one ends."""
UNSOUND = (FinishReason.ABORT, FinishReason.ERROR)
"""Ends that are faults of an engine's: the request is dealt anew."""


@dataclass
class Job:
    """A request on its way, with what was sampled for it."""

    name: str
    """No other job has it."""
    request: Request
    """As it was asked."""
    group: Hashable = None
    """Jobs of one group are spread over engines."""
    segments: list[Segment] = field(default_factory=list)
    """Sampled so far, one for each policy."""
    finish_reason: FinishReason = FinishReason.UNFINISHED
    """Why it ended, or that it has not."""

    def take(self, progress: Progress) -> None:
        """What an engine says of it. Neighbouring segments of one policy become one."""
        new = progress.segment
        if self.segments and self.segments[-1].policy_version == new.policy_version:
            old = self.segments.pop()
            ids, logprobs = old.token_ids + new.token_ids, old.logprobs + new.logprobs
            new = Segment(ids, logprobs, old.policy_version)
        if new.token_ids:
            self.segments.append(new)
        if progress.finish_reason not in UNSOUND:
            self.finish_reason = progress.finish_reason

    def remaining(self) -> Request:
        """What is left to sample, as a request; its noise is of its own."""
        done = tuple(token for segment in self.segments for token in segment.token_ids)
        if not done:
            return self.request
        return replace(
            self.request,
            sampled_ids=self.request.sampled_ids + done,
            max_response_tokens=self.request.max_response_tokens - len(done),
            seed=request_seed(self.request.seed, len(done)),
        )

    def completion(self) -> Completion:
        """The outcome."""
        return Completion(tuple(self.segments), self.finish_reason)


class Scheduler:
    """Deals requests to engines. `fixed`: by their number, all at once, so that the same requests
    give the same responses; `free`: to whichever engine has room."""

    def __init__(self, engines: int, slots: int, dealing: Literal["fixed", "free"]) -> None:
        """slots: requests that an engine samples at once."""
        self.slots, self.dealing = slots, dealing
        self.version = 0
        """Of the policy that engines have to have."""
        self.states = [EngineState.STARTING] * engines
        """Of each engine."""
        self.dealt: list[dict[str, Job]] = [{} for _ in range(engines)]
        """What each engine has."""
        self.waiting: deque[Job] = deque()
        """What none has yet, in the order in which it is dealt."""
        self.ended: dict[str, Job] = {}
        """What has ended and was not asked for."""

    @property
    def serving(self) -> list[int]:
        """The engines that requests are dealt to."""
        return self.engines(EngineState.SERVING)

    def engines(self, *states: EngineState) -> list[int]:
        """The engines in one of some states."""
        return [i for i, state in enumerate(self.states) if state in states]

    def add(self, jobs: Sequence[Job]) -> None:
        """Requests to sample; dealt in this order."""
        self.waiting += jobs

    def happen(self, engine: int, event: Event, version: int | None = None) -> None:
        """Something happened to an engine; what it was dealt waits again if it no longer serves.

        Args:
            version: whose weights were proved.

        Raises:
            ValueError: it cannot have happened.
        """
        if event is Event.PROVED and version != self.version:
            raise ValueError(f"version {version} was proved, current is version {self.version}")
        self.states[engine] = after(self.states[engine], event)
        if self.states[engine] is not EngineState.SERVING:
            self.recall(engine)

    def go_on(self, version: int) -> None:
        """The policy has a new version: no engine serves before it was proved to have it."""
        self.version = version
        for engine in self.serving:
            self.happen(engine, Event.OUTDATED)

    def recall(self, engine: int) -> None:
        """Let others go on with what an engine was dealt, before anything else."""
        self.waiting.extendleft(reversed(self.dealt[engine].values()))
        self.dealt[engine] = {}

    def deal(self) -> dict[int, list[Job]]:
        """Deal what can be dealt now; the new jobs of each engine."""
        new: dict[int, list[Job]] = {}
        number = 0
        while self.waiting and (engine := self._next_engine(self.waiting[0], number)) is not None:
            job = self.waiting.popleft()
            self.dealt[engine][job.name] = job
            new.setdefault(engine, []).append(job)
            number += 1
        return new

    def _next_engine(self, job: Job, number: int) -> int | None:
        serving = self.serving
        if self.dealing == "fixed":
            return serving[number % len(serving)] if serving else None
        room = [i for i in serving if len(self.dealt[i]) < self.slots * AHEAD]
        return min(room, key=lambda engine: self._fullness(engine, job), default=None)

    def _fullness(self, engine: int, job: Job) -> tuple[int, int]:
        others = self.dealt[engine].values()
        of_group = 0
        if job.group is not None:
            of_group = sum(other.group == job.group for other in others)
        return (of_group, len(others))

    def report(self, engine: int, progress: Sequence[Progress]) -> None:
        """Take what an engine says of its requests."""
        for one in progress:
            job = self.dealt[engine][one.name]
            job.take(one)
            if one.finish_reason is FinishReason.UNFINISHED:
                continue
            del self.dealt[engine][one.name]
            if one.finish_reason in UNSOUND:
                self.waiting.appendleft(job)
            else:
                self.ended[one.name] = job

    def has_work(self) -> bool:
        """Whether anything waits or is being sampled."""
        return bool(self.waiting) or any(self.dealt)

    def take_ended(self, names: Sequence[str]) -> list[Job] | None:
        """Jobs by name, once all of them have ended."""
        if any(name not in self.ended for name in names):
            return None
        return [self.ended.pop(name) for name in names]
