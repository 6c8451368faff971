"""The pool of engine actors: what it does with engines that die, fall silent or fail.

The engines here are stand-ins; a real one is run by test_engine.py and, in its actor, test_run.py.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from rollouts import pool as pool_module
from rollouts.engine import Completion, Progress, Request
from rollouts.lifecycle import EngineState
from rollouts.pool import Patience, RolloutError, RolloutPool
from rollouts.scheduler import Job
from thinking_rl.learner.group import put_buckets
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.images import KimiVLImageProcessor
from thinking_rl.types import FinishReason, Segment

TOKENS = 40


def png(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (28, 28), color).save(stream, "PNG")
    return stream.getvalue()


class StandIn:
    """In place of an engine actor: samples a token of each request in every hundredth of a second.
    A request with a word for a temperature is an order: `die`, `fail`, or `refuse`; one with
    pictures is given them."""

    def __init__(self, settings: SimpleNamespace):
        self.settings, self.version = settings, 0
        self.requests: dict[str, Request] = {}

    def process(self) -> tuple[str, int]:
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def ready(self) -> tuple[str, int]:
        if self.settings.error:
            raise self.settings.error
        return self.process()

    def serve(self, new: list, images: dict, seconds: float, until: int) -> list[Progress]:
        import ray

        self.requests |= dict(new)
        wanted = {key for _, request in new for key in request.image_hashes}
        patches: list[Any] = ray.get(list(images.values()))
        assert {key: one.hash for key, one in zip(images, patches, strict=True)} == {
            key: key for key in wanted
        }
        for request in self.requests.values():
            if request.temperature == "die":
                os._exit(1)
            if request.temperature == "fail":
                raise KeyError("x")
            if request.temperature == "refuse":
                raise ValueError("too long")
        time.sleep(0.1)
        return [self._go_on(name) for name in list(self.requests)]

    def _go_on(self, name: str) -> Progress:
        request = self.requests.pop(name)
        left = request.max_response_tokens
        first, now = len(request.sampled_ids), min(10, left)
        ids = tuple(range(first, first + now))
        if now < left:
            done = request.sampled_ids + ids
            values = request.__dict__ | {"sampled_ids": done, "max_response_tokens": left - now}
            self.requests[name] = Request(**values)
        reason = FinishReason.UNFINISHED if now < left else FinishReason.LENGTH
        return Progress(name, Segment(ids, (-1.0,) * now, self.version), reason)

    def answer(self, requests: list, images: dict) -> list[Completion]:
        return [Completion((Segment((), (), self.version),), FinishReason.STOP) for _ in requests]

    def stop(self) -> list[Progress]:
        self.requests = {}
        return []

    def forget(self) -> None: ...

    def update_weights(self, buckets: list, version: int) -> None:
        import ray

        arrived: list[Any] = [ray.get(bucket) for bucket in buckets]
        assert [name for bucket in arrived for name, _ in bucket.tensors()] == ["x", "y"]
        self.version = version


@pytest.fixture(scope="module")
def make_pool() -> Iterator[Callable[..., Any]]:
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},
    )

    def make(engines: int = 2, error: Exception | None = None) -> RolloutPool:
        settings = SimpleNamespace(max_sequences=4, sleeps=False, error=error)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool_module, "EngineActor", StandIn)
            pool = RolloutPool(
                settings,  # pyright: ignore[reportArgumentType]
                [{"num_cpus": 0}] * engines,
                ImageStore(KimiVLImageProcessor(), share=ray.put),
                patience=Patience(start_s=120, silence_s=8, answer_s=60),
                dealing="free",
            )
            pool._new_actor = new_actor.__get__(pool)  # whoever comes again
        return pool

    yield make
    ray.shutdown()


def new_actor(pool: RolloutPool, engine: int) -> Any:
    import ray

    return ray.remote(StandIn).options(**pool._options[engine]).remote(pool.settings)


def request(tokens: int = TOKENS, order: Any = 1.0, hashes: tuple[str, ...] = ()) -> Request:
    return Request((1, 2), hashes, tokens, temperature=order, seed=3)


def weights() -> list[Any]:
    """Two tensors in two blocks."""
    tensors = iter([("x", torch.ones(2)), ("y", torch.ones(2))])
    return put_buckets(tensors, limit_bytes=8, rank=0)


def ids(answers: list[Completion]) -> set[tuple[int, ...]]:
    return {answer.token_ids for answer in answers}


def proving(pool: RolloutPool) -> list[int]:
    """Let engines be brought up as a publisher would; returns who was."""
    brought = list[int]()

    def bring_up(engine: int) -> None:
        took = pool.publish(weights(), pool.version, [engine])
        pool.serve(pool.ask({one: [request()] for one in took}), pool.version)
        brought.append(engine)

    pool.bring_up = bring_up
    return brought


def test_all_are_answered_by_all(make_pool: Callable) -> None:
    pool = make_pool()
    assert ids(pool.generate([request() for _ in range(20)])) == {tuple(range(TOKENS))}
    assert pool.generate([]) == []
    pool.publish(weights(), 3)
    assert pool.scheduler.serving == []  # none is proved
    pool.serve(pool.up, 3)
    answers = pool.generate([request() for _ in range(9)])
    assert {one.policy_version for answer in answers for one in answer.segments} == {3}
    pool.close()


def test_other_ranks_only_take_part_in_gathering() -> None:
    weights = iter([("x", torch.ones(2)), ("y", torch.ones(2))])
    assert put_buckets(weights, limit_bytes=8, rank=1) == []
    assert list(weights) == []


def test_engines_get_the_pictures_of_their_requests(make_pool: Callable) -> None:
    pool = make_pool()
    red, blue, green = (pool.images.add(png(color)).hash for color in ("red", "blue", "green"))
    wanted = [(red, blue), (green,), (red,), (), (blue, blue)]
    assert len(pool.generate([request(hashes=hashes) for hashes in wanted])) == len(wanted)
    assert pool.images.decoded == 3
    pool.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_others_go_on_and_a_lost_engine_comes_back_proved(
    make_pool: Callable, how: signal.Signals
) -> None:
    pool = make_pool()
    brought = proving(pool)
    pool.publish(weights(), 1)
    pool.serve(pool.up, 1)
    names = [str(number) for number in range(60)]
    pool.submit([Job(name, request()) for name in names])
    for _ in range(3):
        pool.pump()
    before, (_, process) = set(pool.scheduler.dealt[0]), pool._processes[0]
    assert before
    os.kill(process, how)
    struck = time.monotonic()
    while pool.scheduler.states[0] is EngineState.SERVING:
        pool.pump()
    assert time.monotonic() - struck < 30
    assert not pool.scheduler.dealt[0]
    jobs = pool.wait(names)
    assert ids([job.completion() for job in jobs]) == {tuple(range(TOKENS))}
    while pool.scheduler.states[0] is not EngineState.SERVING:
        pool.pump()
    assert brought == [0]
    answers = pool.generate([request() for _ in range(20)])
    assert {one.policy_version for answer in answers for one in answer.segments} == {1}
    pool.close()


def test_the_last_engine_ends_the_run(make_pool: Callable) -> None:
    pool = make_pool(engines=1)
    died = "rollout worker 0 died and could not answer: .*no other rollout worker is left"
    with pytest.raises(RolloutError, match=died):
        pool.generate([request(order="die")])
    pool.close()


def test_a_fault_that_follows_a_request_ends_the_run(make_pool: Callable) -> None:
    pool = make_pool()
    with pytest.raises(RolloutError, match="could not answer: KeyError: 'x'"):
        pool.generate([request(order="fail")])
    pool.close()


def test_a_request_that_cannot_be_answered_is_the_user_s(make_pool: Callable) -> None:
    pool = make_pool()
    with pytest.raises(ValueError, match="too long"):
        pool.generate([request(order="refuse")])
    pool.close()


def test_a_worker_that_cannot_start(make_pool: Callable) -> None:
    reason = "ValueError: not a\nreadable checkpoint"
    with pytest.raises(RolloutError, match=rf"rollout worker \d could not start: {reason}"):
        make_pool(error=ValueError("not a\nreadable checkpoint"))
