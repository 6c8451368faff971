"""All ranks of the learner as Ray actors, driven together."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import torch

from thinking_rl.cluster.logs import speak_into_log
from thinking_rl.cluster.waiting import Waiter
from thinking_rl.learner.build import LearnerSettings
from thinking_rl.learner.cost import Cost, cost_of
from thinking_rl.learner.packing import TrainingRow, pack_row
from thinking_rl.learner.rank import Rank
from thinking_rl.learner.rows import pack_by_cost, sizes_of
from thinking_rl.model.buckets import Bucket, buckets
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.images import ImagePatches
from thinking_rl.types import Conversation

Images = Mapping[str, "ray.ObjectRef[ImagePatches]"]
"""Patches in Ray's object store, by hash."""


NOT_FINITE_IN_A_ROW = 3
"""Steps without a finite gradient after which training stops."""


class LearnerError(RuntimeError):
    """A learner process failed, or did not answer in time."""


RANKS = Waiter("learner rank", LearnerError, (ValueError, OSError, FloatingPointError))


def free_address() -> str:
    """A free address on this machine for the ranks to meet at."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


def fetch(images: Images) -> dict[str, ImagePatches]:
    """Patches by hash; views of the object store's memory where they are on this node."""
    return dict(zip(images, ray.get(list(images.values())), strict=True))


def put_buckets(weights: Any, limit_bytes: int, rank: int) -> list[ray.ObjectRef[Bucket]]:
    """All weights in the object store, put there by rank 0; the others only take part in
    gathering them."""
    if rank == 0:
        return [ray.put(bucket) for bucket in buckets(weights, limit_bytes)]
    for _ in weights:
        pass
    return []


class RankActor:
    """A `Rank` in a process of its own; pictures come as references."""

    rank: Rank

    def __init__(self) -> None:
        speak_into_log("learner rank")

    def address(self) -> str:
        return free_address()

    def build(self, settings: LearnerSettings, rank: int, world_size: int, rendezvous: str) -> None:
        """Not in the constructor, whose errors Ray gives as text alone."""
        self.rank = Rank(settings, rank, world_size, rendezvous)

    def begin_iteration(self, minibatches: Sequence[Sequence[TrainingRow]], images: Images) -> None:
        self.rank.begin_iteration(minibatches, fetch(images))

    def scores(
        self, rows: Sequence[TrainingRow], images: Images, temperature: float
    ) -> list[torch.Tensor]:
        return self.rank.scores(rows, fetch(images), temperature)

    def step(
        self, index: int, num_sequences: int, num_tokens: int, learning_rate: float, tau: float
    ) -> dict[str, float]:
        return self.rank.step(index, num_sequences, num_tokens, learning_rate, tau)

    def release(self) -> None:
        self.rank.release()

    def weight_buckets(self, limit_bytes: int) -> list[ray.ObjectRef[Bucket]]:
        return put_buckets(self.rank.weights(), limit_bytes, self.rank.rank)

    def save(self, folder: str) -> None:
        self.rank.save(folder)

    def load(self, folder: str) -> None:
        self.rank.load(folder)

    def export(self, folder: str) -> None:
        self.rank.export(folder)


class Learner:
    """All ranks. Conversations in, numbers out; who computes what is decided here."""

    def __init__(
        self,
        settings: LearnerSettings,
        actor_options: Sequence[dict],
        images: ImageStore,
        *,
        tokens_per_microbatch: int,
    ):
        """
        Args:
            actor_options: Ray options (resources, placement) of each rank.
            images: where the conversations' hashes are known.
            tokens_per_microbatch: most tokens of a row; a longer conversation stands alone.

        Raises:
            LearnerError: a rank could not start, with its reason.
        """
        self.settings = settings
        self.images = images
        self.tokens_per_microbatch = tokens_per_microbatch
        self.cost = cost_of(KimiVLConfig.from_pretrained(settings.checkpoint).text_config)
        self.world_size = len(actor_options)
        self.not_finite = 0
        """Steps in a row, the last ones, that were not taken."""
        remote = ray.remote(RankActor)
        self.actors = [remote.options(**options).remote() for options in actor_options]
        [rendezvous] = self._wait([self.actors[0].address.remote()], "start")
        starting = [
            actor.build.remote(settings, rank, self.world_size, rendezvous)
            for rank, actor in enumerate(self.actors)
        ]
        self._wait(starting, "start")

    def _wait(self, calls: list, what: str) -> list:
        return RANKS.wait(calls, self.settings.timeout_s, what, "learner.timeout_s")

    def _deal(self, conversations: Sequence[Conversation]) -> list[list[list[int]]]:
        limit = self.tokens_per_microbatch
        return deal(conversations, limit, self.world_size, self.cost, prompt_once=True)

    def _pack(
        self, conversations: Sequence[Conversation], rows: Sequence[Sequence[int]]
    ) -> list[TrainingRow]:
        chosen = [[conversations[i] for i in row] for row in rows]
        return [pack_row(row, prompt_once=True) for row in chosen]

    def scores(
        self, conversations: Sequence[Conversation], temperature: float = 1.0
    ) -> list[torch.Tensor]:
        """For each conversation [3, tokens] log-probabilities of its tokens in the loss, entropies
        of the distributions that they come from, and variances of the log-probability of what is
        drawn from them, with the logits divided by `temperature`."""
        dealt = self._deal(conversations)
        calls = []
        for actor, share in zip(self.actors, dealt, strict=True):
            rows = self._pack(conversations, share)
            images = self.images.shared(hashes_of(rows))
            calls.append(actor.scores.remote(rows, images, temperature))
        results: list[torch.Tensor] = [torch.empty(0)] * len(conversations)
        for share, values in zip(dealt, self._wait(calls, "compute log-probs"), strict=True):
            for row, flat in zip(share, values, strict=True):
                counts = [sum(conversations[i].loss_mask) for i in row]
                for index, value in zip(row, flat.split(counts, -1) if row else [], strict=True):
                    results[index] = value
        return results

    def train(
        self,
        minibatches: Sequence[Sequence[Conversation]],
        learning_rates: Sequence[float],
        tau: float,
    ) -> list[dict[str, float]]:
        """One iteration: the current policy becomes the reference, then one optimizer step for
        each learning rate, on the minibatches in turn, over and over. Returns the metrics of each
        step that was taken, divided by its counts; a step whose gradient is not finite is not.

        Raises:
            FloatingPointError: `NOT_FINITE_IN_A_ROW` steps were not taken, one after the other.
        """
        self._begin_iteration(minibatches)
        steps = []
        for number, rate in enumerate(learning_rates):
            index = number % len(minibatches)
            step = self._step(index, minibatches[index], rate, tau)
            if math.isfinite(step["grad_norm"]):
                self.not_finite = 0
                steps.append(step)
                continue
            self.not_finite += 1
            if self.not_finite == NOT_FINITE_IN_A_ROW:
                raise FloatingPointError(
                    f"the gradient was not finite in {self.not_finite} optimizer steps in a row, "
                    "none of which was taken; lower the learning rate, or look at the rewards"
                )
        self._wait([actor.release.remote() for actor in self.actors], "release")
        return steps

    def _step(
        self, index: int, conversations: Sequence[Conversation], rate: float, tau: float
    ) -> dict[str, float]:
        count, tokens = len(conversations), sum(sum(one.loss_mask) for one in conversations)
        calls = [actor.step.remote(index, count, tokens, rate, tau) for actor in self.actors]
        sums = self._wait(calls, "step")[0]
        divisors = {"entropy": tokens, "kl": tokens, "log_ratio": count, "log_ratio_abs": count}
        whole = (
            "loss",
            "policy_loss",
            "regularizer",
            "grad_norm",
            "mismatch",
            "compared",
            "masked",
            "expert_load",
            "expert_bias",
        )
        return (
            {"learning_rate": rate, "step_responses": count}
            | {name: sums[name] for name in whole if name in sums}
            | {name: sums[name] / divisor for name, divisor in divisors.items()}
        )

    def _begin_iteration(self, minibatches: Sequence[Sequence[Conversation]]) -> None:
        shares: list[list[list[TrainingRow]]] = [[] for _ in self.actors]
        for conversations in minibatches:
            dealt = self._deal(conversations)
            for rows, share in zip(shares, dealt, strict=True):
                rows.append(self._pack(conversations, share))
        calls = []
        for actor, share in zip(self.actors, shares, strict=True):
            images = self.images.shared(hashes_of([row for rows in share for row in rows]))
            calls.append(actor.begin_iteration.remote(share, images))
        self._wait(calls, "begin an iteration")

    def weight_buckets(self, limit_bytes: int) -> list[ray.ObjectRef[Bucket]]:
        """References to all weights in the engine's dtype, in Ray's object store."""
        calls = [actor.weight_buckets.remote(limit_bytes) for actor in self.actors]
        return self._wait(calls, "give its weights")[0]

    def save(self, folder: str) -> None:
        """A sharded checkpoint that `load` continues from."""
        self._wait([actor.save.remote(folder) for actor in self.actors], "save")

    def load(self, folder: str) -> None:
        """Continue from a sharded checkpoint."""
        self._wait([actor.load.remote(folder) for actor in self.actors], "load")

    def export(self, folder: str) -> None:
        """Released safetensors."""
        self._wait([actor.export.remote(folder) for actor in self.actors], "export")

    def close(self) -> None:
        """End the processes."""
        for actor in self.actors:
            ray.kill(actor)  # pyright: ignore[reportArgumentType]
        self.actors = []


def deal(
    conversations: Sequence[Conversation],
    tokens_per_row: int,
    world_size: int,
    cost: Cost,
    *,
    prompt_once: bool,
) -> list[list[list[int]]]:
    """For each rank its rows, as indices of conversations; as many rows for each, of which the
    n-th cost alike, and empty ones at the end."""
    sizes = sizes_of(conversations, prompt_once=prompt_once)
    rows = pack_by_cost(sizes, tokens_per_row, world_size, cost)
    indices = [[one.index for one in row] for row in rows]
    return [indices[rank::world_size] for rank in range(world_size)]


def hashes_of(rows: Sequence[TrainingRow]) -> list[str]:
    """The distinct images of some rows."""
    return list(dict.fromkeys(key for row in rows for key in row.image_hashes))
