"""All engines of a run: work spread over them, weights and memory."""

from __future__ import annotations

from collections.abc import Sequence

import ray

from rollouts.engine import Completion, EngineSettings, Request
from rollouts.worker import EngineActor
from thinking_rl.cluster.waiting import Waiter
from thinking_rl.model.buckets import Bucket
from thinking_rl.model.image_store import ImageStore


class RolloutError(RuntimeError):
    """A rollout worker failed, or did not answer in time."""


WORKERS = Waiter("rollout worker", RolloutError)
STARTING = Waiter("rollout worker", RolloutError, passed_on=())
"""vLLM raises a ValueError for whatever keeps it from starting."""


class RolloutPool:
    """All engines of a run."""

    def __init__(
        self,
        settings: EngineSettings,
        actor_options: Sequence[dict],
        images: ImageStore,
        *,
        start_timeout_s: float,
        timeout_s: float,
    ):
        """
        Args:
            actor_options: Ray options (resources, placement) of each engine.
            images: where the requests' hashes are known.

        Raises:
            RolloutError: an engine could not start, with its reason.
        """
        self.images = images
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
        calls = []
        for engine, share in zip(self.engines, shares, strict=True):
            mine = [requests[i] for i in share]
            hashes = dict.fromkeys(key for request in mine for key in request.image_hashes)
            calls.append(engine.generate.remote(mine, self.images.shared(hashes)))
        results: list[list[Completion]] = [[] for _ in requests]
        for share, answers in zip(shares, self._wait(calls, "answer"), strict=True):
            for index, answer in zip(share, answers, strict=True):
                results[index] = answer
        return results

    def publish(self, buckets: Sequence[ray.ObjectRef[Bucket]], version: int) -> None:
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
