"""Grading in killable processes: every answer has a clock and a memory cap of its own.

A grader that hangs, crashes or eats memory costs the one answer it was given, which then counts
as not graded, never as wrong. The process is replaced and the other answers go on.
"""

from __future__ import annotations

import collections
import math
import selectors
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewards import registry
from rewards.processes.process import GradingProcess, Job
from thinking_rl.types import Outcome, Problem, Score

LARGEST_CHUNK = 32
KEPT_FAILURES = 100
KEPT_LATENCIES = 20_000
START_TIMEOUT_S = 120.0
ASYNC_GRACE_S = 1.0
"""For an async grader to report its own timeouts before the process is killed."""
FAILURE_KINDS = ("timeout", "crash", "memory", "bad_type", "error")


@dataclass(frozen=True)
class Failure:
    """One answer that could not be graded, with what it takes to try it again."""

    grader: str
    """Name of the part of the reward."""
    kind: str
    """timeout, crash, memory, bad_type or error."""
    message: str
    """What is known of it."""
    problem: Problem
    """What was asked."""
    response: str
    """What was to be graded."""


@dataclass
class _Statistics:
    """What one grader did since the last reset."""

    count: int = 0
    """Answers."""
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    """Answers that could not be graded, by kind."""
    seconds: collections.deque[float] = field(
        default_factory=lambda: collections.deque(maxlen=KEPT_LATENCIES)
    )
    """Wall-clock time of each of the latest answers."""


@dataclass
class _Call:
    """The state of one `grade` call."""

    items: list[tuple[Problem, str]]
    """The answers: problem and response."""
    waiting: list[collections.deque[int]]
    """For each part, the answers not handed out yet."""
    alone: collections.deque[tuple[int, int]]
    """(part, answer) pairs to be graded one at a time: they shared a call that was lost."""
    results: list[dict[int, dict[str, Any]]]
    """For each part, the message of each answer."""

    @property
    def is_done(self) -> bool:
        return all(len(done) == len(self.items) for done in self.results)


class GradingPool:
    """Grades responses with a weighted sum of reward functions, in `workers` processes.

    `parts` are (registry key or other spec, weight) pairs; `timeout_s` is the wall-clock limit of
    one grader on one answer, `memory_gib` what it may take beyond the loaded graders (Linux).
    Safe to use from any thread and inside Ray actors.

    Raises:
        ValueError: a grader cannot be found or loaded.
    """

    def __init__(
        self,
        parts: Sequence[tuple[str, float]],
        timeout_s: float = 5.0,
        memory_gib: float = 2.0,
        workers: int = 2,
    ) -> None:
        if not parts:
            raise ValueError("a reward needs at least one part")
        for spec, _ in parts:
            registry.check(spec)
        self.names = [spec.rpartition(":")[2] for spec, _ in parts]
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"parts of a reward need different names, got {self.names}")
        self.weights = [weight for _, weight in parts]
        self.timeout_s = timeout_s
        self.failures: collections.deque[Failure] = collections.deque(maxlen=KEPT_FAILURES)
        self._setup = {
            "sys_path": [str(Path(entry).absolute()) for entry in sys.path],
            "specs": [_absolute(spec) for spec, _ in parts],
            "memory_bytes": int(memory_gib * 2**30),
            "timeout_s": timeout_s,
        }
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._processes: list[GradingProcess] = []
        self._is_closed = False
        self.reset_statistics()
        try:
            for _ in range(workers):
                self._add_process()
            while any(process.kinds is None for process in self._processes):
                self._step(None)
        except BaseException:
            self.close()
            raise

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[Score]:
        """Score each (problem, response), in order.

        The value is the weighted sum of the parts; `correct` and `extracted` come from the first
        part that judges answers. Where a part could not be graded, neither is the response.
        """
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the grading pool is closed")
            call = _Call(
                items=list(items),
                waiting=[collections.deque(range(len(items))) for _ in self.names],
                alone=collections.deque(),
                results=[{} for _ in self.names],
            )
            try:
                while not call.is_done:
                    for process in self._processes:
                        if process.kinds is not None and process.job is None:
                            self._hand_out(process, call)
                    self._step(call)
            except BaseException:  # leave no half-done job that would answer the next call
                for process in [process for process in self._processes if process.job]:
                    self._replace(process)
                raise
            self._record(call)
            return [self._combine(call, index) for index in range(len(items))]

    def statistics(self) -> dict[str, dict[str, Any]]:
        """For each grader: count, failures by kind, p50_s and p99_s of the time per answer."""
        with self._lock:
            return {
                name: {
                    "count": entry.count,
                    "failures": {kind: entry.failures[kind] for kind in FAILURE_KINDS},
                    "p50_s": _quantile(entry.seconds, 0.50),
                    "p99_s": _quantile(entry.seconds, 0.99),
                }
                for name, entry in self._statistics.items()
            }

    def reset_statistics(self) -> None:
        """Start counting anew."""
        with self._lock:
            self._statistics = {name: _Statistics() for name in self.names}

    def close(self) -> None:
        """End every process. May be called twice."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                for process in self._processes:
                    process.end(grace_s=0.2 if process.job is None else 0.0)
                self._selector.close()

    def __enter__(self) -> GradingPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How answers travel

    def _add_process(self) -> None:
        process = GradingProcess(self._setup, START_TIMEOUT_S)
        self._processes.append(process)
        self._selector.register(process.socket, process.events, process)

    def _replace(self, process: GradingProcess) -> str:
        self._selector.unregister(process.socket)
        self._processes.remove(process)
        ending = process.end()
        self._add_process()
        return ending

    def _hand_out(self, process: GradingProcess, call: _Call) -> None:
        if call.alone:
            part, index = call.alone.popleft()
            indices = [index]
        else:
            part = next((part for part, waiting in enumerate(call.waiting) if waiting), -1)
            if part < 0:
                return
            waiting = call.waiting[part]
            share = math.ceil(len(waiting) / (2 * len(self._processes)))  # even at the end
            indices = [waiting.popleft() for _ in range(min(share, LARGEST_CHUNK))]
        assert process.kinds is not None
        limit_s = {
            "plain": self.timeout_s,
            "async": self.timeout_s + ASYNC_GRACE_S,
            "batched": self.timeout_s * len(indices),
        }[process.kinds[part]]
        answers = [(index, *call.items[index]) for index in indices]
        process.start(Job(part, indices, limit_s), answers)

    def _step(self, call: _Call | None) -> None:
        """Wait for news from any process, or for the first deadline, and act on it."""
        for process in self._processes:
            self._selector.modify(process.socket, process.events, process)
        patience = min(max(0.0, -process.overdue_s) for process in self._processes)
        self._selector.select(None if math.isinf(patience) else patience)
        for process in list(self._processes):
            messages, is_open = process.exchange()
            for message in messages:
                if process in self._processes:
                    self._take(process, message, call)
            if not is_open:
                self._lose(process, call, "crash", None)
            elif process.overdue_s >= 0:
                limit_s = process.job.limit_s if process.job else START_TIMEOUT_S
                self._lose(process, call, "timeout", f"no result within {limit_s:g} s")

    def _take(self, process: GradingProcess, message: dict[str, Any], call: _Call | None) -> None:
        if "broken" in message:
            raise ValueError(f"a grader could not be loaded: {message['broken']}")
        if "ready" in message:
            process.kinds = message["ready"]
            return
        job = process.job
        assert call is not None
        assert job is not None
        job.indices.remove(message["index"])
        call.results[job.part][message["index"]] = message
        if message["kind"] == "memory":
            self._lose(process, call, "memory", None, blame=False)  # it may be short for good
        elif not job.indices:
            process.job = None

    def _lose(
        self,
        process: GradingProcess,
        call: _Call | None,
        kind: str,
        message: str | None,
        blame: bool = True,
    ) -> None:
        """Replace a process; what it was working on is not graded, the rest goes back."""
        if process not in self._processes:
            return
        kinds, job, silent_s = process.kinds, process.job, process.silent_s
        ending = self._replace(process)
        if kinds is None:
            raise RuntimeError(f"a grading process did not start: {message or ending}")
        if job is None or not job.indices:
            return
        assert call is not None
        together = kinds[job.part] != "plain" and len(job.indices) > 1
        if together:
            call.alone.extend((job.part, index) for index in job.indices)
            return
        if blame:
            if ending.endswith("SIGALRM"):
                kind, message = "timeout", f"no result within {job.limit_s:g} s"
            index = job.indices.pop(0)
            result = {"index": index, "kind": kind, "message": message or ending}
            call.results[job.part][index] = {**result, "seconds": silent_s}
        call.waiting[job.part].extendleft(reversed(job.indices))

    # What comes of it

    def _record(self, call: _Call) -> None:
        for name, results in zip(self.names, call.results, strict=True):
            entry = self._statistics[name]
            for index, (problem, response) in enumerate(call.items):
                result = results[index]
                entry.count += 1
                entry.seconds.append(result["seconds"])
                if result["kind"] is not None:
                    entry.failures[result["kind"]] += 1
                    self.failures.append(
                        Failure(name, result["kind"], result["message"], problem, response)
                    )

    def _combine(self, call: _Call, index: int) -> Score:
        results = {name: done[index] for name, done in zip(self.names, call.results, strict=True)}
        seconds = sum(result["seconds"] for result in results.values())
        parts = {name: r["value"] for name, r in results.items() if r["kind"] is None}
        for name, result in results.items():
            if result["kind"] is not None:
                error = f"{name}: {result['kind']}: {result['message']}"
                return Score(0.0, parts=parts, error=error, seconds=seconds)
        value = sum(
            weight * part for weight, part in zip(self.weights, parts.values(), strict=True)
        )
        judging = next((r for r in results.values() if r["correct"] is not None), None)
        return Score(
            value=value,
            correct=judging["correct"] if judging else None,
            extracted=judging["extracted"] if judging else None,
            parts=parts,
            seconds=seconds,
            note=judging["note"] if judging else None,
        )


def check_failure_share(scores: Sequence[Score], limit: float, pool: GradingPool) -> None:
    """See that at most a share of `limit` of the scores is not graded.

    Raises:
        RuntimeError: more are; with three examples.
    """
    failed = [score for score in scores if score.outcome is Outcome.NOT_GRADED]
    if len(failed) <= limit * len(scores):
        return
    examples = "\n".join(_examples(pool))
    raise RuntimeError(
        f"{len(failed)} of {len(scores)} responses could not be graded, more than the share of "
        f"{limit:g} that rewards.max_failure_share allows. The latest:\n{examples}"
    )


def _examples(pool: GradingPool) -> Iterator[str]:
    for failure in list(pool.failures)[-3:]:
        yield (
            f"- {failure.grader}: {failure.kind}: {failure.message}\n"
            f"  problem {failure.problem.id!r}, answer {failure.problem.answer[:80]!r}, "
            f"response ends {failure.response[-200:]!r}"
        )


def _absolute(spec: str) -> str:
    """A file's spec by its absolute path: the process may not share the working directory."""
    place, colon, function = spec.rpartition(":")
    return f"{Path(place).absolute()}{colon}{function}" if place.endswith(".py") else spec


def _quantile(values: collections.deque[float], share: float) -> float:
    """The nearest-rank quantile; 0.0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
