"""A model's weights to two engines through the object store; one JSON line a figure.

    python -m benchmarks.publish

The learner's and the engines' own calls, in actors of their own. The engines are stand-ins that
take the bytes as vLLM does, by copying every tensor into memory that is there. `baseline` is one
thread that copies the same bytes once for each engine, from memory to memory.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import ray
import torch

from benchmarks.figures import figure
from rollouts import pool as pool_module
from rollouts.pool import Patience, RolloutPool
from rollouts.worker import EngineActor
from thinking_rl.cluster.devices import KEEP_FREED_MEMORY
from thinking_rl.learner.build import LearnerSettings
from thinking_rl.learner.group import Learner, RankActor
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.images import KimiVLImageProcessor
from thinking_rl.publication import objects

MIB = 2**20
ROWS, COLUMNS = 1408, 512
"""Of a matrix; experts are as many as make up the model."""
WARM = 2
"""Publications before those that count: pages of memory are fetched from the system once."""


def weights(mib: int, seed: int) -> dict[str, torch.Tensor]:
    """Random bfloat16 matrices of so many MiB."""
    draw = torch.Generator().manual_seed(seed)
    count = round(mib * MIB / (ROWS * COLUMNS * 2))
    return {f"m{i}": torch.randn(ROWS, COLUMNS, generator=draw).bfloat16() for i in range(count)}


def sums(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, int]:
    """Of every tensor's bits."""
    return {name: int(tensor.view(torch.int16).long().sum()) for name, tensor in tensors}


class Sender(RankActor):
    """A rank that holds weights alone."""

    def hold(self, mib: int, seed: int) -> dict[str, int]:
        self.tensors = weights(mib, seed)
        self.rank: Any = SimpleNamespace(rank=0, weights=lambda: iter(self.tensors.items()))
        return sums(self.tensors.items())


class Taker:
    """In place of an engine: memory for the weights."""

    def __init__(self, mib: int):
        self.memory = {name: one.zero_() for name, one in weights(mib, 0).items()}
        self.version = 0

    def update_weights(
        self, buckets: Iterable[Sequence[tuple[str, torch.Tensor]]], version: int
    ) -> None:
        for bucket in buckets:
            for name, tensor in bucket:
                self.memory[name].copy_(tensor)
        self.version = version


class StandIn(EngineActor):
    """The engine actor with a `Taker` inside."""

    def ready(self) -> tuple[str, int]:
        torch.set_num_threads(1)
        self.engine: Any = Taker(self.settings.max_model_tokens)
        return self.process()

    def stop(self) -> list:
        return []

    def has(self) -> tuple[int, dict[str, int]]:
        return self.engine.version, sums(self.engine.memory.items())


def learner_of(mib: int) -> tuple[Learner, dict[str, int]]:
    """The learner's side, without a model, and the sums of what it publishes."""
    learner = Learner.__new__(Learner)
    learner.settings = LearnerSettings("", learning_rate=0.0, tau=0.0, timeout_s=60)
    environment = {"runtime_env": {"env_vars": KEEP_FREED_MEMORY}}
    actor: Any = ray.remote(Sender).options(num_cpus=0, **environment).remote()  # pyright: ignore[reportAttributeAccessIssue]
    learner.actors = [actor]
    return learner, ray.get(actor.hold.remote(mib, seed=1), timeout=120)


def engines_of(mib: int, count: int) -> RolloutPool:
    """The engines' side."""
    pool_module.EngineActor = StandIn
    settings: Any = SimpleNamespace(max_sequences=1, sleeps=False, max_model_tokens=mib)
    store = ImageStore(KimiVLImageProcessor(), share=ray.put)
    patience = Patience(start_s=120, silence_s=60, answer_s=60)
    return RolloutPool(settings, [{"num_cpus": 0}] * count, store, patience=patience)


def plain_copies(mib: int, count: int) -> Iterator[float]:
    """Seconds of a copy to each engine's memory, again and again."""
    source = torch.ones(mib * MIB, dtype=torch.uint8)
    targets = [torch.zeros_like(source) for _ in range(count)]
    while True:
        start = time.perf_counter()
        for target in targets:
            target.copy_(source)
        yield time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=200)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=(2 * options.mib + 256) * MIB,
    )
    learner, sent = learner_of(options.mib)
    pool = engines_of(options.mib, options.engines)
    copies, seconds, plain = plain_copies(options.mib, options.engines), [], []
    for version in range(1, WARM + options.pairs + 1):
        start = time.perf_counter()
        objects.send(learner, pool, version)
        taken = time.perf_counter() - start
        baseline = next(copies)
        if version > WARM:
            seconds.append(taken)
            plain.append(baseline)
    base = {"mib": options.mib, "engines": options.engines, "threads": 1}
    median = statistics.median(seconds)
    figure("publish/time", median, "s", statistics.median(plain), len(seconds), **base)
    found: list[Any] = ray.get([engine.has.remote() for engine in pool.engines], timeout=60)
    wrong = sum(have[name] != sent[name] for _, have in found for name in sent)
    wrong += sum(version != WARM + options.pairs for version, _ in found)
    figure("publish/disagreement", float(wrong), "tensors", 0.0, len(found) * len(sent), **base)
    ray.shutdown()


if __name__ == "__main__":
    main()
