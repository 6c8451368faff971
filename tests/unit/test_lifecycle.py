"""States of an engine, and how requests are dealt by them."""

from __future__ import annotations

import itertools
import random
from typing import Literal

import pytest

from rollouts.engine import Progress, Request
from rollouts.lifecycle import TRANSITIONS, EngineState, Event, after
from rollouts.scheduler import Job, Scheduler
from thinking_rl.types import FinishReason, Segment

S, E = EngineState, Event
CAN_HAPPEN = {
    S.STARTING: {E.STARTED: S.STALE, E.FELL_SILENT: S.SILENT, E.DIED: S.DEAD},
    S.STALE: {
        E.PROVED: S.SERVING,
        E.OUTDATED: S.STALE,
        E.FELL_SILENT: S.SILENT,
        E.DIED: S.DEAD,
    },
    S.SERVING: {
        E.PROVED: S.SERVING,
        E.OUTDATED: S.STALE,
        E.FELL_SILENT: S.SILENT,
        E.DIED: S.DEAD,
    },
    S.SILENT: {E.DIED: S.DEAD},
    S.DEAD: {E.RESTARTED: S.RESTARTING},
    S.RESTARTING: {E.STARTED: S.STALE, E.FELL_SILENT: S.SILENT, E.DIED: S.DEAD},
}


@pytest.mark.parametrize(("state", "event"), itertools.product(S, E))
def test_every_transition(state: EngineState, event: Event) -> None:
    if event in CAN_HAPPEN[state]:
        assert after(state, event) is CAN_HAPPEN[state][event]
    else:
        with pytest.raises(ValueError, match=f"{state} cannot have {event}"):
            after(state, event)


def job(name: str, group: object = 0) -> Job:
    return Job(name, Request((1, 2), (), 8, temperature=1.0, seed=5), group)


def progress(name: str, tokens: int, version: int, reason: FinishReason) -> Progress:
    return Progress(name, Segment((7,) * tokens, (-1.0,) * tokens, version), reason)


def serving(engines: int, slots: int = 4, dealing: Literal["fixed", "free"] = "free") -> Scheduler:
    scheduler = Scheduler(engines, slots, dealing)
    for engine in range(engines):
        scheduler.happen(engine, E.STARTED)
        scheduler.happen(engine, E.PROVED, 0)
    return scheduler


def names(dealt: dict[int, list[Job]]) -> dict[int, list[str]]:
    return {engine: [one.name for one in jobs] for engine, jobs in dealt.items()}


class Fleet:
    """Random events on a scheduler, with a record of its own of what must hold."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        engines = self.draw.randint(1, 4)
        dealing: Literal["fixed", "free"] = "free" if self.draw.random() < 0.5 else "fixed"
        self.scheduler = Scheduler(engines, 2, dealing)
        self.has = [0] * engines  # version of the weights
        self.proved = [False] * engines
        self.asked: set[str] = set()

    def step(self) -> None:
        choices = (self.add, self.deal, self.report, self.engine_event, self.publish)
        self.draw.choice(choices)()

    def add(self) -> None:
        new = [f"{len(self.asked) + i}" for i in range(self.draw.randint(1, 3))]
        self.asked |= set(new)
        self.scheduler.add([job(name, group=len(self.asked)) for name in new])

    def deal(self) -> None:
        for engine in self.scheduler.deal():
            assert self.proved[engine]
            assert self.has[engine] == self.scheduler.version

    def report(self) -> None:
        for engine, dealt in enumerate(self.scheduler.dealt):
            if dealt and self.draw.random() < 0.5:
                name = self.draw.choice(list(dealt))
                reason = self.draw.choice(list(FinishReason))
                self.scheduler.report(engine, [progress(name, 1, self.has[engine], reason)])

    def engine_event(self) -> None:
        engine = self.draw.randrange(len(self.has))
        possible = [event for state, event in TRANSITIONS if state is self.scheduler.states[engine]]
        event = self.draw.choice(possible)
        if event is E.PROVED:
            self.has[engine] = self.scheduler.version  # it was given the weights first
        self.proved[engine] = event is E.PROVED
        self.scheduler.happen(engine, event, self.has[engine] if event is E.PROVED else None)

    def publish(self) -> None:
        self.scheduler.go_on(self.scheduler.version + 1)
        self.proved = [False] * len(self.proved)

    def check(self) -> None:
        scheduler = self.scheduler
        for engine in scheduler.serving:
            assert self.proved[engine]
            assert self.has[engine] == scheduler.version
        for engine, dealt in enumerate(scheduler.dealt):
            assert not dealt or engine in scheduler.serving
        found = [one.name for one in scheduler.waiting]
        found += [name for dealt in scheduler.dealt for name in dealt] + list(scheduler.ended)
        assert sorted(found) == sorted(self.asked)  # none is lost, none is there twice


def test_random_events_lose_no_request_and_no_engine_serves_unproved() -> None:
    for seed in range(10_000):
        fleet = Fleet(seed)
        for _ in range(30):
            fleet.step()
            fleet.check()


def test_a_proof_of_an_old_version_is_refused() -> None:
    scheduler = serving(1)
    scheduler.go_on(1)
    with pytest.raises(ValueError, match="version 0 was proved, current is version 1"):
        scheduler.happen(0, E.PROVED, 0)
    assert scheduler.serving == []


def test_a_lost_engine_s_requests_go_on_elsewhere_first() -> None:
    scheduler = serving(2, slots=2, dealing="fixed")
    scheduler.add([job("a"), job("b"), job("c")])
    assert names(scheduler.deal()) == {0: ["a", "c"], 1: ["b"]}
    scheduler.report(0, [progress("c", 3, 0, FinishReason.UNFINISHED)])
    scheduler.add([job("d")])
    scheduler.happen(0, E.FELL_SILENT)
    assert names(scheduler.deal()) == {1: ["a", "c", "d"]}
    left = scheduler.dealt[1]["c"].remaining()
    assert (left.sampled_ids, left.max_response_tokens) == ((7, 7, 7), 5)
    assert left.seed != scheduler.dealt[1]["c"].request.seed
    scheduler.report(1, [progress("c", 2, 0, FinishReason.STOP)])
    (ended,) = scheduler.take_ended(["c"]) or []
    assert ended.completion().token_ids == (7,) * 5
    assert len(ended.segments) == 1  # of one policy
    assert scheduler.take_ended(["a"]) is None


def test_free_dealing_spreads_groups_and_fills_what_is_free() -> None:
    scheduler = serving(2, slots=4)
    scheduler.add([job(f"{group}{i}", group) for group in "ab" for i in range(4)])
    dealt = names(scheduler.deal())
    for engine in (0, 1):
        assert sorted(name[0] for name in dealt[engine]) == ["a", "a", "b", "b"]
    scheduler.add([job(f"c{i}", "c") for i in range(9)])
    assert sum(map(len, scheduler.deal().values())) == 2  # 5 an engine: 4 at once, one at hand
    done = [progress(name, 1, 0, FinishReason.STOP) for name in list(scheduler.dealt[1])[:3]]
    scheduler.report(1, done)
    assert set(scheduler.deal()) == {1}


def test_a_fault_of_the_engine_s_is_no_end() -> None:
    scheduler = serving(1)
    scheduler.add([job("a")])
    scheduler.deal()
    scheduler.report(0, [progress("a", 2, 0, FinishReason.ABORT)])
    assert scheduler.ended == {}
    assert names(scheduler.deal()) == {0: ["a"]}
