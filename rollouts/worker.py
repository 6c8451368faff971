"""An engine in a Ray actor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import ray

from rollouts.engine import Completion, EngineSettings, Progress, Request
from thinking_rl.cluster.logs import speak_into_log
from thinking_rl.model.buckets import Bucket
from thinking_rl.model.images import ImagePatches


class EngineActor:
    """An engine in a process of its own; pictures and weights come as references."""

    def __init__(self, settings: EngineSettings):
        speak_into_log("rollout worker")
        self.settings = settings

    def process(self) -> tuple[str, int]:
        """Node and process id, by which it can be ended where it does not answer."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def ready(self) -> tuple[str, int]:
        """Start the engine; returns `process`. Not in the constructor, whose errors Ray gives as
        text alone."""
        from rollouts.engine import Engine

        self.engine = Engine(self.settings)
        self.engine.warm_up()
        return self.process()

    def serve(
        self,
        new: Sequence[tuple[str, Request]],
        images: Mapping[str, ray.ObjectRef[ImagePatches]],
        seconds: float,
        until: int,
    ) -> list[Progress]:
        """Take requests beside those that it has, sample for so long, or until only `until` are
        left, and say what became of each."""
        patches = dict(zip(images, ray.get(list(images.values())), strict=True))
        for name, request in new:
            self.engine.add(name, request, patches)
        return self.engine.run(seconds, until)

    def answer(
        self, requests: Sequence[Request], images: Mapping[str, ray.ObjectRef[ImagePatches]]
    ) -> list[Completion]:
        """Answer requests alone, without a trace of earlier ones or for later ones."""
        patches = dict(zip(images, ray.get(list(images.values())), strict=True))
        self.engine.forget()
        answers = self.engine.generate(requests, patches)
        self.engine.forget()
        return answers

    def stop(self) -> list[Progress]:
        return self.engine.stop()

    def forget(self) -> None:
        self.engine.forget()

    def update_weights(self, buckets: Sequence[ray.ObjectRef[Bucket]], version: int) -> None:
        arrived = (ray.get(bucket).tensors() for bucket in buckets)
        self.engine.update_weights(arrived, version)

    def sleep(self) -> None:
        self.engine.sleep()

    def wake(self, part: str) -> None:
        self.engine.wake(part)
