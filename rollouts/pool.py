"""Ray actors that hold engines, and the pool that spreads work over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import ray
import torch

from rollouts.engine import Completion, EngineSettings, Request
from thinking_rl.cluster.waiting import Workers


@dataclass(frozen=True)
class Bucket:
    """Some weights as one block of bytes, which Ray shares between processes without a copy."""

    data: np.ndarray
    """[bytes] uint8"""
    entries: tuple[tuple[str, str, tuple[int, ...], int, int], ...]
    """(released name, dtype, shape, first byte, number of bytes)"""

    def tensors(self) -> list[tuple[str, torch.Tensor]]:
        """The weights, as read-only views."""
        block = torch.from_numpy(self.data)
        return [
            (name, block[start : start + size].view(getattr(torch, dtype)).view(shape))
            for name, dtype, shape, start, size in self.entries
        ]


def make_bucket(tensors: Sequence[tuple[str, torch.Tensor]]) -> Bucket:
    """Put tensors end to end, each aligned to 16 bytes."""
    entries, start = [], 0
    for name, tensor in tensors:
        dtype = str(tensor.dtype).removeprefix("torch.")
        entries.append((name, dtype, tuple(tensor.shape), start, tensor.nbytes))
        start += -(-tensor.nbytes // 16) * 16
    block = torch.empty(start, dtype=torch.uint8)
    for (_, _, _, first, size), (_, tensor) in zip(entries, tensors, strict=True):
        raw = tensor.detach().to("cpu").contiguous().flatten().view(torch.uint8)
        block[first : first + size] = raw
    return Bucket(block.numpy(), tuple(entries))


def put_buckets(
    tensors: Iterable[tuple[str, torch.Tensor]], limit_bytes: int, *, keep: bool = True
) -> list[ray.ObjectRef]:
    """Put weights into Ray's object store in blocks of about `limit_bytes`. With keep=False they
    are only run through (the other ranks of a collective)."""
    references: list[ray.ObjectRef] = []
    pending: list[tuple[str, torch.Tensor]] = []
    size = 0
    for name, tensor in tensors:
        if not keep:
            continue
        if pending and size + tensor.nbytes > limit_bytes:
            references.append(ray.put(make_bucket(pending)))
            pending, size = [], 0
        pending.append((name, tensor))
        size += tensor.nbytes
    if pending:
        references.append(ray.put(make_bucket(pending)))
    return references


class EngineActor:
    """An engine in a Ray actor."""

    def __init__(self, settings: EngineSettings):
        self.settings = settings

    def ready(self) -> None:
        """Start the engine. Not in the constructor, whose errors Ray gives as text alone."""
        from rollouts.engine import Engine

        self.engine = Engine(self.settings)

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        return self.engine.generate(requests)

    def update_weights(self, buckets: Sequence[ray.ObjectRef], version: int) -> None:
        arrived = (ray.get(bucket).tensors() for bucket in buckets)
        self.engine.update_weights(arrived, version)

    def sleep(self) -> None:
        self.engine.sleep()

    def wake(self, part: str) -> None:
        self.engine.wake(part)


class RolloutError(RuntimeError):
    """A rollout worker failed, or did not answer in time."""


WORKERS = Workers("rollout worker", RolloutError)
STARTING = Workers("rollout worker", RolloutError, passed_on=())
"""vLLM raises a ValueError for whatever keeps it from starting."""


class RolloutPool:
    """All engines of a run."""

    def __init__(
        self,
        settings: EngineSettings,
        actor_options: Sequence[dict],
        *,
        start_timeout_s: float,
        timeout_s: float,
    ):
        """actor_options: Ray options (resources, placement) of each engine.

        Raises:
            RolloutError: an engine could not start, with its reason.
        """
        self.timeout_s = timeout_s
        self.version = 0
        remote = ray.remote(EngineActor)
        self.engines = [remote.options(**options).remote(settings) for options in actor_options]
        calls = [engine.ready.remote() for engine in self.engines]
        STARTING.wait(calls, start_timeout_s, "start", "rollout.start_timeout_s")

    def _wait(self, calls: list, what: str) -> list:
        return WORKERS.wait(calls, self.timeout_s, what, "rollout.timeout_s")

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Sample all requests, spread over the engines; results in the order of requests."""
        shares = [
            list(range(i, len(requests), len(self.engines))) for i in range(len(self.engines))
        ]
        calls = [
            engine.generate.remote([requests[i] for i in share])
            for engine, share in zip(self.engines, shares, strict=True)
        ]
        results: list[list[Completion]] = [[] for _ in requests]
        for share, answers in zip(shares, self._wait(calls, "answer"), strict=True):
            for index, answer in zip(share, answers, strict=True):
                results[index] = answer
        return results

    def publish(self, buckets: Sequence[ray.ObjectRef], version: int) -> None:
        """Give every engine new weights. Proving them is the caller's next step."""
        calls = [engine.update_weights.remote(list(buckets), version) for engine in self.engines]
        self._wait(calls, "take new weights")
        self.version = version

    def sleep(self) -> None:
        """Free the engines' device memory while the learner steps."""
        self._wait([e.sleep.remote() for e in self.engines], "sleep")

    def wake(self, part: str) -> None:
        """Take memory for `weights`, then `kv_cache`, again."""
        self._wait([e.wake.remote(part) for e in self.engines], "wake")

    def close(self) -> None:
        """End the engines."""
        for engine in self.engines:
            ray.kill(engine)  # pyright: ignore[reportArgumentType]
        self.engines = []
