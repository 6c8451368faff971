"""The learner's processes as Ray actors, driven together."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import ray
import torch

from thinking_rl.cluster.waiting import Workers
from thinking_rl.learner.packing import Conversation, PackedRow, pack_row, split_by_tokens
from thinking_rl.learner.rank import Learner, LearnerSettings


class LearnerError(RuntimeError):
    """A learner process failed, or did not answer in time."""


RANKS = Workers("learner rank", LearnerError, (ValueError, OSError, FloatingPointError))


def free_address() -> str:
    """A free address on this machine for a learner's ranks to meet at."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


class LearnerActor:
    """One rank."""

    def __init__(self, rank: int, world_size: int):
        self.rank, self.world_size = rank, world_size
        self.learner: Learner | None = None

    def address(self) -> str:
        return free_address()

    def build(self, settings: LearnerSettings, rendezvous: str) -> None:
        self.learner = Learner(settings, self.rank, self.world_size, rendezvous)

    def call(self, method: str, *arguments: Any) -> Any:
        assert self.learner is not None
        return getattr(self.learner, method)(*arguments)

    def weight_buckets(self, limit_bytes: int) -> list[ray.ObjectRef]:
        """All weights in Ray's object store, put there by rank 0; the others take part."""
        from rollouts.pool import put_buckets

        assert self.learner is not None
        return put_buckets(self.learner.weights(), limit_bytes, keep=self.rank == 0)


class LearnerGroup:
    """All ranks. Conversations in, numbers out; who computes what is decided here."""

    def __init__(
        self,
        settings: LearnerSettings,
        actor_options: Sequence[dict],
        *,
        tokens_per_microbatch: int,
        media_token_id: int,
    ):
        """actor_options: Ray options (resources, placement) of each rank.

        Raises:
            LearnerError: a rank could not start, with its reason.
        """
        self.settings = settings
        self.tokens_per_microbatch = tokens_per_microbatch
        self.media_token_id = media_token_id
        self.world_size = len(actor_options)
        remote = ray.remote(LearnerActor)
        self.actors = [
            remote.options(**options).remote(rank, self.world_size)
            for rank, options in enumerate(actor_options)
        ]
        rendezvous = self._wait([self.actors[0].address.remote()], "start")[0]
        self._wait([actor.build.remote(settings, rendezvous) for actor in self.actors], "start")

    def _wait(self, calls: list, what: str) -> list:
        return RANKS.wait(calls, self.settings.timeout_s, what, "learner.timeout_s")

    def _call(self, method: str, *arguments: Any) -> list:
        calls = [actor.call.remote(method, *arguments) for actor in self.actors]
        return self._wait(calls, method)

    def _deal(self, conversations: Sequence[Conversation]) -> tuple[list[list[PackedRow]], list]:
        """Rows for each rank (as many for each, empty ones at the end) and, likewise, the indices
        of the conversations in them."""
        lengths = [len(conversation.token_ids) for conversation in conversations]
        rows = split_by_tokens(lengths, self.tokens_per_microbatch)
        rows += [[] for _ in range(-len(rows) % self.world_size)]
        dealt = [rows[rank :: self.world_size] for rank in range(self.world_size)]
        packed = [
            [pack_row([conversations[i] for i in row], self.media_token_id) for row in share]
            for share in dealt
        ]
        return packed, dealt

    def logprobs(self, conversations: Sequence[Conversation]) -> list[torch.Tensor]:
        """Log-probabilities of each conversation's tokens in the loss."""
        packed, dealt = self._deal(conversations)
        answers = self._wait(
            [
                actor.call.remote("logprobs", rows)
                for actor, rows in zip(self.actors, packed, strict=True)
            ],
            "compute log-probs",
        )
        results: list[torch.Tensor] = [torch.empty(0)] * len(conversations)
        for share, values in zip(dealt, answers, strict=True):
            for row, flat in zip(share, values, strict=True):
                counts = [sum(conversations[i].loss_mask) for i in row]
                for index, value in zip(row, flat.split(counts) if row else [], strict=True):
                    results[index] = value
        return results

    def train(
        self, minibatches: Sequence[Sequence[Conversation]], learning_rates: Sequence[float]
    ) -> list[dict[str, float]]:
        """One iteration: the current policy becomes the reference, then one optimizer step for
        each minibatch, at its learning rate. Returns each step's metrics, divided by its counts."""
        dealt = [self._deal(conversations)[0] for conversations in minibatches]
        self._wait(
            [
                actor.call.remote("begin_iteration", [rows[rank] for rows in dealt])
                for rank, actor in enumerate(self.actors)
            ],
            "begin an iteration",
        )
        steps = []
        for index, (conversations, rate) in enumerate(
            zip(minibatches, learning_rates, strict=False)  # an iteration may have fewer steps
        ):
            tokens = sum(sum(conversation.loss_mask) for conversation in conversations)
            sums = self._call("step", index, len(conversations), tokens, rate)[0]
            steps.append(
                {
                    "loss": sums["loss"],
                    "learning_rate": rate,
                    "grad_norm": sums["grad_norm"],
                    "entropy": sums["entropy"] / tokens,
                    "kl": sums["kl"] / tokens,
                    "log_ratio": sums["log_ratio"] / len(conversations),
                    "log_ratio_abs": sums["log_ratio_abs"] / len(conversations),
                }
            )
        self._call("release")
        return steps

    def weight_buckets(self, limit_bytes: int = 2**30) -> list[ray.ObjectRef]:
        """References to all weights in the engine's dtype, in Ray's object store."""
        calls = [actor.weight_buckets.remote(limit_bytes) for actor in self.actors]
        return self._wait(calls, "give its weights")[0]

    def save(self, folder: str) -> None:
        """A sharded checkpoint that `load` continues from."""
        self._call("save", folder)

    def load(self, folder: str) -> None:
        """Continue from a sharded checkpoint."""
        self._call("load", folder)

    def export(self, folder: str) -> None:
        """Released safetensors."""
        self._call("export", folder)

    def close(self) -> None:
        """End the processes."""
        for actor in self.actors:
            ray.kill(actor)  # pyright: ignore[reportArgumentType]
        self.actors = []
