"""The pool of engine actors: weights on their way, order of results, and what is said of failures.

The engines here are stand-ins; a real one is run by test_engine.py and, in its actor, test_run.py.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rollouts import pool as pool_module
from rollouts.pool import RolloutError, RolloutPool
from thinking_rl.learner.group import put_buckets
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.images import KimiVLImageProcessor


def png(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (28, 28), color).save(stream, "PNG")
    return stream.getvalue()


@dataclass(frozen=True)
class Do:
    """In place of a request: an error to raise, seconds to sleep, `die`, or anything else to be
    given back."""

    what: Any
    image_hashes: tuple[str, ...] = ()


class StandIn:
    """In place of an engine actor; answers with the request's `what`, its version, its process and
    the pictures it was given."""

    def __init__(self, settings: Exception | None):
        self.settings, self.version = settings, 0

    def ready(self) -> None:
        if self.settings:
            raise self.settings

    def generate(self, requests: list, images: dict) -> list:
        import ray

        patches: list[Any] = ray.get(list(images.values()))
        given = {key: one.hash for key, one in zip(images, patches, strict=True)}
        for request in (one.what for one in requests):
            if request == "die":
                os._exit(1)
            if isinstance(request, Exception):
                raise request
            if isinstance(request, float):
                time.sleep(request)
        return [[(one.what, self.version, os.getpid(), given)] for one in requests]

    def update_weights(self, buckets: list, version: int) -> None:
        import ray

        arrived: list[Any] = [ray.get(bucket) for bucket in buckets]
        assert [name for bucket in arrived for name, _ in bucket.tensors()] == ["x", "y"]
        self.version = version

    def sleep(self) -> None: ...

    def wake(self, part: str) -> None: ...


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

    def make(settings: Exception | None = None, engines: int = 1) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool_module, "EngineActor", StandIn)
            options = [{"num_cpus": 0}] * engines
            images = ImageStore(KimiVLImageProcessor(), share=ray.put)
            return RolloutPool(settings, options, images, start_timeout_s=120, timeout_s=60)  # pyright: ignore[reportArgumentType]

    yield make
    ray.shutdown()


def test_results_keep_the_order_of_requests(make_pool: Callable) -> None:
    pool = make_pool(engines=2)
    requests = [Do(number) for number in range(7)]
    results = pool.generate(requests)
    assert [answers[0][0] for answers in results] == list(range(7))
    assert len({answers[0][2] for answers in results}) == 2
    assert pool.generate([]) == []
    weights = [("x", torch.ones(2)), ("y", torch.ones(2))]
    pool.publish(put_buckets(iter(weights), limit_bytes=8, rank=0), version=3)
    assert {answers[0][1] for answers in pool.generate(requests)} == {3} == {pool.version}
    pool.close()


def test_other_ranks_only_take_part_in_gathering() -> None:
    weights = iter([("x", torch.ones(2)), ("y", torch.ones(2))])
    assert put_buckets(weights, limit_bytes=8, rank=1) == []
    assert list(weights) == []


def test_engines_get_the_pictures_of_their_requests(make_pool: Callable) -> None:
    pool = make_pool(engines=2)
    pool.timeout_s = 60
    red, blue, green = (pool.images.add(png(color)).hash for color in ("red", "blue", "green"))
    wanted = [(red, blue), (green,), (red,), (), (blue, blue)]
    results = pool.generate([Do(number, hashes) for number, hashes in enumerate(wanted)])
    given = [answers[0][3] for answers in results]
    first, second = {red: red, blue: blue}, {green: green}
    assert given == [first, second, first, second, first]
    assert pool.images.decoded == 3
    pool.close()


def test_a_worker_that_cannot_start(make_pool: Callable) -> None:
    reason = "ValueError: not a\nreadable checkpoint"
    with pytest.raises(RolloutError, match=f"rollout worker 0 could not start: {reason}"):
        make_pool(ValueError("not a\nreadable checkpoint"))


def test_workers_that_fail(make_pool: Callable) -> None:
    """A raising worker goes on; a slow one and a dead one are named."""
    pool = make_pool()
    with pytest.raises(RolloutError, match="worker 0 could not answer: KeyError: 'x'"):
        pool.generate([Do(KeyError("x"))])
    with pytest.raises(ValueError, match="too long"):
        pool.generate([Do(ValueError("too long"))])
    assert pool.generate([Do("still here")])[0][0][0] == "still here"
    pool.timeout_s = 1
    with pytest.raises(RolloutError, match=r"did not answer within 1 s; .*rollout\.timeout_s"):
        pool.generate([Do(5.0)])
    pool.timeout_s = 60
    with pytest.raises(RolloutError, match="rollout worker 0 died and could not answer: "):
        pool.generate([Do("die")])
    pool.close()
