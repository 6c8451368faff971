"""An engine in a Ray actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ray

from rollouts.engine import Completion, EngineSettings, Request
from thinking_rl.cluster.logs import speak_into_log
from thinking_rl.model.buckets import Bucket
from thinking_rl.model.images import ImagePatches


class EngineActor:
    """An engine in a process of its own; pictures and weights come as references."""

    def __init__(self, settings: EngineSettings):
        speak_into_log("rollout worker")
        self.settings = settings

    def ready(self) -> None:
        """Start the engine. Not in the constructor, whose errors Ray gives as text alone."""
        from rollouts.engine import Engine

        self.engine = Engine(self.settings)

    def generate(
        self, requests: Sequence[Request], images: Mapping[str, ray.ObjectRef[ImagePatches]]
    ) -> list[list[Completion]]:
        patches = dict(zip(images, ray.get(list(images.values())), strict=True))
        return self.engine.generate(requests, patches)

    def update_weights(self, buckets: Sequence[ray.ObjectRef[Bucket]], version: int) -> None:
        arrived = (ray.get(bucket).tensors() for bucket in buckets)
        self.engine.update_weights(arrived, version)

    def sleep(self) -> None:
        self.engine.sleep()

    def wake(self, part: str) -> None:
        self.engine.wake(part)
