"""All engines of a run as Ray actors: requests to them, weights and memory; lost ones come back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rollouts.engine import Completion, EngineSettings, Request
from rollouts.lifecycle import UP, EngineState, Event
from rollouts.scheduler import Job, Scheduler
from rollouts.worker import EngineActor
from thinking_rl.cluster.stopping import check_stop
from thinking_rl.cluster.waiting import Waiter
from thinking_rl.model.buckets import Bucket
from thinking_rl.model.image_store import ImageStore

SLICE_S = 0.5
"""An engine samples for so long before it speaks of its requests."""
POLL_S = 0.5
"""How often a wait looks whether the user has asked to stop."""
IDLE_S = 0.02
"""Between two rounds in which no engine has anything to do."""
BUCKET_S = 10.0
"""What a block of weights may take beyond `silence_s`."""
MOST_FAILURES = 3
"""In a row, of one engine, without an answer between them; then the run ends."""


class RolloutError(RuntimeError):
    """A rollout worker failed, or did not answer in time."""


STARTING = Waiter("rollout worker", RolloutError, passed_on=())
"""vLLM raises a ValueError for whatever keeps it from starting."""


@dataclass(frozen=True)
class Patience:
    """How long engines are waited for, in seconds."""

    start_s: float
    """Until one is up."""
    silence_s: float
    """Beyond what it was asked for; then it is ended and started again."""
    answer_s: float
    """Until some response of all that are asked for ends."""


@dataclass(frozen=True)
class _Call:
    """Something that an engine was asked and has not answered."""

    engine: int
    """Its number."""
    what: Literal["start", "answer"]
    """It has to do."""
    deadline: float
    """On the monotonic clock."""


class RolloutPool:
    """All engines of a run."""

    def __init__(
        self,
        settings: EngineSettings,
        actor_options: Sequence[dict],
        images: ImageStore,
        *,
        patience: Patience,
        dealing: Literal["fixed", "free"] = "fixed",
        log: Callable[[str], None] = lambda message: None,
    ):
        """
        Args:
            actor_options: Ray options (resources, placement) of each engine.
            images: where the requests' hashes are known.
            dealing: see `Scheduler`.
            log: shows a message.

        Raises:
            RolloutError: an engine could not start, with its reason.
        """
        self.settings, self.images, self.patience = settings, images, patience
        self.log = log
        self.bring_up: Callable[[int], None] | None = None
        """Gives an engine the current policy's weights and proves it; None: nobody can now."""
        self.scheduler = Scheduler(len(actor_options), settings.max_sequences, dealing)
        self._options = actor_options
        self._held: list[set[str]] = [set() for _ in actor_options]  # names that the engine knows
        self._failures = [0] * len(actor_options)
        self._processes: dict[int, tuple[str, int]] = {}
        self._calls: dict[Any, _Call] = {}
        self._idle = [0.0] * len(actor_options)
        self._asked = 0
        self._last_reason = ""
        self.engines = [self._new_actor(engine) for engine in range(len(actor_options))]
        starting = [engine.ready.remote() for engine in self.engines]
        places = STARTING.wait(starting, patience.start_s, "start", "rollout.start_timeout_s")
        for engine, place in enumerate(places):
            self._processes[engine] = place
            self.scheduler.happen(engine, Event.STARTED)
        self.serve(range(len(self.engines)), version=0)  # the checkpoint's own

    @property
    def version(self) -> int:
        """Of the policy that the engines have to have."""
        return self.scheduler.version

    @property
    def up(self) -> list[int]:
        """The engines that can be called."""
        return self.scheduler.engines(*UP)

    def serve(self, engines: Iterable[int], version: int) -> None:
        """These are proved to have the weights of `version`: they may answer."""
        for engine in engines:
            self.scheduler.happen(engine, Event.PROVED, version)

    def state_dict(self) -> dict[str, Any]:
        """The policy's version."""
        return {"version": self.version}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The policy is the one that `state_dict` was taken of; no engine has it yet."""
        self.scheduler.go_on(state["version"])

    # Requests

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """The answers, in the order of the requests.

        Raises:
            RolloutError: no engine is left, or none of the answers came in time.
        """
        names = [f"{self._asked}/{i}" for i in range(len(requests))]
        self._asked += 1
        self.submit([Job(name, one) for name, one in zip(names, requests, strict=True)])
        return [job.completion() for job in self.wait(names)]

    def submit(self, jobs: Sequence[Job]) -> None:
        """Add requests; `pump` or `wait` samples them. With `fixed` dealing what was sampled before
        leaves no trace in them."""
        if self.scheduler.dealing == "fixed":
            assert not self.scheduler.has_work(), "requests of another phase are being sampled"
            self._ask(self.scheduler.serving, "forget")
        self.scheduler.add(jobs)

    def wait(self, names: Sequence[str]) -> list[Job]:
        """The jobs of these names, when all have ended; others go on meanwhile.

        Raises:
            RolloutError: no engine is left, or none of them ended for `answer_s`.
        """
        limit, left = self.patience.answer_s, len(names)
        last = time.monotonic()
        while (jobs := self.scheduler.take_ended(names)) is None:
            self.pump()
            now_left = sum(name not in self.scheduler.ended for name in names)
            if now_left < left:
                last, left = time.monotonic(), now_left
            if time.monotonic() - last > limit:
                busy = [i for i in self.up if self.scheduler.dealt[i]]
                raise RolloutError(
                    f"{left} responses, on rollout worker {', '.join(map(str, busy))}: none of "
                    f"them ended within {limit:.0f} s; raise rollout.timeout_s if the machine is "
                    "only slow"
                )
        return jobs

    def pump(self) -> None:
        """One round: start lost engines again, deal, and hear what was sampled.

        Raises:
            RolloutError: no engine is left.
        """
        self._start_again()
        self.scheduler.deal()
        for engine in self.scheduler.serving:
            if self.scheduler.dealt[engine] and not self._is_called(engine):
                self._sample(engine)
        idle = [engine for engine in range(len(self.engines)) if not self._is_called(engine)]
        started = time.monotonic()
        self._hear(POLL_S)
        for engine in idle:
            self._idle[engine] += time.monotonic() - started
        self._require_one()

    def take_idle(self) -> list[float]:
        """Seconds that each engine had nothing to do while responses were waited for, since this
        was last asked."""
        idle, self._idle = self._idle, [0.0] * len(self._idle)
        return idle

    def settle(self) -> None:
        """Let engines end what they do, and take back what they sample; others may go on with it,
        from where it stands."""
        while any(call.what == "answer" for call in self._calls.values()):
            self._hear(POLL_S)
        busy = [engine for engine in self.up if self._held[engine]]
        for engine, progress in self._ask(busy, "stop").items():
            self.scheduler.report(engine, progress)
        for engine in self.up:
            self._held[engine].clear()
            self.scheduler.recall(engine)

    def ask(self, questions: Mapping[int, Sequence[Request]]) -> dict[int, list[Completion]]:
        """Answers of particular engines, which sample nothing else and need not serve yet. One that
        fails is missing."""
        shares = {engine: self._shared(requests) for engine, requests in questions.items()}
        arguments = {engine: (questions[engine], shares[engine]) for engine in questions}
        return self._ask(arguments, "answer", arguments)

    def _sample(self, engine: int) -> None:
        """Ask an engine to go on, with what it was dealt anew."""
        dealt, held = self.scheduler.dealt[engine], self._held[engine]
        new = [(name, job.remaining()) for name, job in dealt.items() if name not in held]
        held.clear()
        held.update(dealt)
        until = min(self.scheduler.slots, len(dealt) - 1) if self.scheduler.waiting else 0
        images = self._shared([request for _, request in new])
        call = self.engines[engine].serve.remote(new, images, SLICE_S, until)
        self._calls[call] = self._call(engine, "answer", SLICE_S + self.patience.silence_s)

    def _shared(self, requests: Sequence[Request]) -> dict[str, Any]:
        return self.images.shared(dict.fromkeys(k for one in requests for k in one.image_hashes))

    # Weights and memory

    def publish(
        self,
        buckets: Sequence[ray.ObjectRef[Bucket]],
        version: int,
        engines: Sequence[int] | None = None,
    ) -> list[int]:
        """Give engines new weights; returns those that took them. They serve when they are proved
        to have them, which is the caller's next step.

        Args:
            engines: None: all that are up, under a new version, and what they sample is taken back.
        """
        if engines is None:
            self.settle()
            self.scheduler.go_on(version)
            engines = self.up
        arguments = {engine: (list(buckets), version) for engine in engines}
        took = self._ask(engines, "update_weights", arguments, BUCKET_S * len(buckets))
        return list(took)

    def sleep(self) -> None:
        """Free the engines' device memory while the learner steps."""
        if self.settings.sleeps:
            while any(call.what == "start" for call in self._calls.values()):
                self._hear(POLL_S)  # one that starts now would take the learner's memory
            self._ask(self.up, "sleep")

    def wake(self, part: str) -> None:
        """Take memory for `weights`, then `kv_cache`, again."""
        if self.settings.sleeps:
            self._ask(self.up, "wake", dict.fromkeys(self.up, (part,)))

    def close(self) -> None:
        """End the engines."""
        for engine in range(len(self.engines)):
            self._kill(engine)
        self.engines, self._calls = [], {}

    # Engines that are lost

    def _new_actor(self, engine: int) -> Any:
        return ray.remote(EngineActor).options(**self._options[engine]).remote(self.settings)

    def _start_again(self) -> None:
        for engine in self.scheduler.engines(EngineState.DEAD):
            self.scheduler.happen(engine, Event.RESTARTED)
            self.engines[engine] = self._new_actor(engine)
            actor = self.engines[engine]
            for call in (actor.process.remote(), actor.ready.remote()):
                self._calls[call] = self._call(engine, "start", self.patience.start_s)
        for engine in self.scheduler.engines(EngineState.STALE):
            if self.bring_up:
                self.bring_up(engine)
            if engine in self.scheduler.serving:
                self.log(f"rollout worker {engine} serves again, proved under {self.version}")

    def _call(self, engine: int, what: Literal["start", "answer"], seconds: float) -> _Call:
        return _Call(engine, what, time.monotonic() + seconds)

    def _is_called(self, engine: int) -> bool:
        return any(call.engine == engine for call in self._calls.values())

    def _hear(self, seconds: float) -> None:
        """Take answers that have come, and give up engines that are late."""
        if not self._calls:
            check_stop()
            time.sleep(IDLE_S)
            return
        ray.wait(list(self._calls), num_returns=1, timeout=seconds)
        check_stop()
        done, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        for answer in done:
            if call := self._calls.pop(answer, None):
                self._take(call, answer)
        for call in list(self._calls.values()):
            if time.monotonic() > call.deadline and call in self._calls.values():
                self._lose(call.engine, Event.FELL_SILENT, f"did not {call.what} in time")

    def _take(self, call: _Call, answer: Any) -> None:
        value = self._value(call.engine, call.what, answer)
        if value is _LOST:
            return
        if call.what == "answer":
            self._failures[call.engine] = 0
            self.scheduler.report(call.engine, value)
            self._held[call.engine] &= self.scheduler.dealt[call.engine].keys()
        else:
            self._processes[call.engine] = value
            if not self._is_called(call.engine):  # both calls of a start have come back
                self.scheduler.happen(call.engine, Event.STARTED)

    def _ask(
        self,
        engines: Iterable[int],
        method: str,
        arguments: Mapping[int, tuple] | None = None,
        extra_s: float = 0.0,
    ) -> dict[int, Any]:
        """What engines answer to a call that is made at once; those that fail are missing.

        Raises:
            RolloutError: no engine is left.
        """
        arguments = arguments or {}
        deadline = time.monotonic() + self.patience.silence_s + extra_s
        waiting = {
            getattr(self.engines[engine], method).remote(*arguments.get(engine, ())): engine
            for engine in engines
        }
        answers = {}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_S)
            check_stop()
            for call in done:
                engine = waiting.pop(call)
                if (value := self._value(engine, method, call)) is not _LOST:
                    answers[engine] = value
            if not done and time.monotonic() > deadline:
                for engine in waiting.values():
                    self._lose(engine, Event.FELL_SILENT, f"did not {method} in time")
                waiting = {}
        self._require_one()
        return dict(sorted(answers.items()))  # whoever was first: the order is the engines'

    def _value(self, engine: int, what: str, answer: Any) -> Any:
        """What an engine answered; `_LOST` where it failed, which is taken note of.

        Raises:
            ValueError: a request cannot be answered.
        """
        try:
            return ray.get(answer)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ValueError) and what == "answer":
                raise cause from None
            reason = f"could not {what}: {type(cause).__name__}: {cause}"
        except RayActorError as error:
            detail = str(error).strip().splitlines()[-1].split(" Some common causes")[0]
            reason = f"died and could not {what}: {detail}"
        self._lose(engine, Event.DIED, reason)
        return _LOST

    def _lose(self, engine: int, event: Event, reason: str) -> None:
        """End an engine that failed; others go on with what it was dealt."""
        self._last_reason = f"rollout worker {engine} {reason}"
        self.log(f"{self._last_reason}; it is started again")
        self._calls = {ref: call for ref, call in self._calls.items() if call.engine != engine}
        self._held[engine].clear()
        self.scheduler.happen(engine, event)
        self._kill(engine)
        if event is Event.FELL_SILENT:
            self.scheduler.happen(engine, Event.DIED)
        self._failures[engine] += 1
        if self._failures[engine] >= MOST_FAILURES:
            raise RolloutError(f"{self._last_reason}, the {MOST_FAILURES}rd time in a row")

    def _require_one(self) -> None:
        if not self.up:
            raise RolloutError(f"{self._last_reason}; no other rollout worker is left")

    def _kill(self, engine: int) -> None:
        """End an engine's process, also one that is stopped and would not hear Ray."""
        ray.kill(self.engines[engine])
        place = self._processes.pop(engine, None)
        if place is None:
            return
        node, process = place
        if node == ray.get_runtime_context().get_node_id():
            _end(process)
        else:
            where = NodeAffinitySchedulingStrategy(node, soft=True)
            ray.remote(_end).options(num_cpus=0, scheduling_strategy=where).remote(process)


_LOST = object()


def _end(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
