"""Responses over several iterations: none is dropped, and what is left survives a checkpoint."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from rollouts import stream as stream_module
from rollouts.buffer import Buffer
from rollouts.engine import Completion
from rollouts.prompts import Prompt, Sampling
from rollouts.scheduler import Job
from rollouts.stream import Phases, Stream
from thinking_rl.algorithm.staleness import ages, set_references
from thinking_rl.types import FinishReason, Group, Problem, Segment, Trajectory

LONGEST = 200


def render(problem: Problem) -> Prompt:
    return Prompt(problem, (1, 2, 3), ())


class Problems:
    """An endless source."""

    def __init__(self) -> None:
        self.count = 0

    def draw(self, n: int) -> list[Problem]:
        self.count += n
        images = (b"\x89PNG", Path("/a/b.png"))
        return [Problem(f"p{self.count - i}", "?", "!", images) for i in range(n)]


class Answering:
    """In place of a pool: every response has a length of its own, sampled phase by phase."""

    def __init__(self, at_once: bool = False) -> None:
        """at_once: sample when asked, with the oldest policy that can be; else when waited for."""
        self.at_once = at_once
        self.version, self.jobs, self.lengths = 0, dict[str, Job](), dict[str, int]()
        self.versions, self.bring_up = dict[str, int](), None

    def submit(self, jobs: list[Job]) -> None:
        for job in jobs:
            assert job.name not in self.jobs
            self.jobs[job.name] = job
            self.versions[job.name] = self.version
            drawn = random.Random(f"length {job.name}").lognormvariate(math.log(40), 1.2)
            self.lengths.setdefault(job.name, min(LONGEST, max(1, round(drawn))))

    def wait(self, names: list[str]) -> list[Job]:
        return [self.answer(self.jobs.pop(name)) for name in names]

    def answer(self, job: Job) -> Job:
        left = self.lengths[job.name] - len(job.request.sampled_ids)
        now = min(left, job.request.max_response_tokens)
        reached = now == left and self.lengths[job.name] < LONGEST
        version = self.versions[job.name] if self.at_once else self.version
        job.segments.append(Segment((7,) * now, (-0.1,) * now, version))
        job.finish_reason = FinishReason.STOP if reached else FinishReason.LENGTH
        return job


@pytest.fixture(autouse=True)
def no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def trajectory(_: Any, prompt: Prompt, answer: Completion) -> Trajectory:
        ids, reason = prompt.token_ids, answer.finish_reason
        return Trajectory(prompt.problem.id, ids, (), answer.segments, "", reason)

    monkeypatch.setattr(stream_module, "trajectory", trajectory)


def make(pool: Answering, iterations: int, max_age: int = 9, staleness: int = 0) -> Stream:
    phases = Phases(4, iterations, 50, max_age, max_model_tokens=1000, max_staleness=staleness)
    sampling = Sampling(samples=4, max_response_tokens=LONGEST, temperature=1.0)
    return Stream(pool, None, render, sampling, phases)  # pyright: ignore[reportArgumentType]


def collect(stream: Stream, problems: Problems, iterations: range) -> list[Group]:
    groups = []
    for iteration in iterations:
        stream.fill(problems, iteration)
        groups += stream.collect(iteration)
        stream.pool.version += 1  # pyright: ignore[reportAttributeAccessIssue]
    return groups


@pytest.mark.parametrize("max_age", [9, 2])
def test_what_is_trained_is_as_long_as_what_is_sampled(max_age: int) -> None:
    """10,000 responses: none is dropped, and only the oldest are cut off."""
    pool, iterations = Answering(), 625
    stream = make(pool, iterations, max_age)
    groups = collect(stream, Problems(), range(iterations))
    left = stream.buffer.groups
    assert len(groups) + len(left) == 4 * iterations
    oldest = min([group.begun for group in left], default=iterations)
    cut = 50 * (max_age + 1)
    sampled = [
        min(length, cut)
        for name, length in pool.lengths.items()
        if int(name.split()[1].rstrip(",")) < 4 * oldest
    ]
    whole = [group for group in groups if int(group.problem.id[1:]) <= 4 * oldest]
    trained = [one.length for group in whole for one in group.trajectories]
    assert len(trained) == len(sampled) > 9_900
    assert sum(trained) == sum(sampled)
    phases = [len(one.segments) for group in groups for one in group.trajectories]
    assert max(phases) == min(4, max_age + 1)


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_no_token_in_the_loss_is_older_than_the_bound(staleness: int) -> None:
    pool, problems = Answering(at_once=True), Problems()
    stream, found = make(pool, 40, staleness=staleness), dict[int, int]()
    for iteration in range(40):
        stream.fill(problems, iteration)
        assert stream.buffer.groups[-1].begun == min(iteration + staleness, 39)
        for group in stream.collect(iteration):
            conversations = [group.conversation(i) for i in range(4)]
            oldest = pool.version - staleness
            trained = [set_references(one, pool.version, oldest) for one in conversations]
            for age, tokens in ages(trained, pool.version).items():
                found[age] = found.get(age, 0) + tokens
        pool.version += 1
    assert set(found) <= set(range(staleness + 1))
    assert max(found) == staleness
    assert problems.count == 4 * 40


def test_a_group_comes_once_and_whole() -> None:
    groups = collect(make(Answering(), 30), Problems(), range(30))
    ids = [group.problem.id for group in groups]
    assert len(set(ids)) == len(ids)
    for group in groups:
        assert len(group.trajectories) == 4
        for one in group.trajectories:
            assert one.finish_reason is not FinishReason.UNFINISHED
            versions = [segment.policy_version for segment in one.segments]
            assert versions == sorted(set(versions))
            if one.finish_reason is FinishReason.LENGTH:
                assert one.length == LONGEST


def test_a_buffer_goes_on_from_its_state() -> None:
    pool, problems = Answering(), Problems()
    stream = make(pool, 20)
    collect(stream, problems, range(6))
    state = json.loads(json.dumps(stream.state_dict()))
    other_pool = Answering()
    other_pool.version = pool.version
    again = make(other_pool, 20)
    again.load_state_dict(state)
    assert again.buffer.groups == stream.buffer.groups != []
    other = Problems()
    other.count = problems.count
    assert collect(again, other, range(6, 10)) == collect(stream, problems, range(6, 10))


def test_seeds_differ_by_response_and_segment() -> None:
    buffer, sampling = Buffer(render), Sampling(8, LONGEST, 1.0)
    for problem in Problems().draw(64):
        buffer.add(problem, 8, 0)
    seeds = {group.request(i, sampling, 50).seed for group in buffer.groups for i in range(8)}
    assert len(seeds) == 512
    first = buffer.groups[0]
    before = first.request(0, sampling, 50)
    first.responses[0].segments.append(Segment((5,) * 50, (-1.0,) * 50, 0))
    after = first.request(0, sampling, 50)
    assert after.seed not in seeds
    assert (before.sampled_ids, after.sampled_ids) == ((), (5,) * 50)
    evaluation = Sampling(8, LONGEST, 1.0, purpose="evaluation")
    assert first.prompt.request(evaluation).seed not in seeds
