"""One training process: a sharded model, its optimizer, and the mirror-descent step.

All processes of a learner make the same calls in the same order with the same number of rows;
whoever has less work is given empty rows, since every forward and backward is collective.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_sharded
from torch.distributed.checkpoint.state_dict_saver import save as save_sharded
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from thinking_rl.algorithm.loss import mirror_descent_loss
from thinking_rl.learner.packing import PackedRow, row_logprobs
from thinking_rl.learner.sharding import materialize, shard
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.weights import full_tensors, load_released, save_released


@dataclass(frozen=True)
class LearnerSettings:
    """What a learner needs to know of the recipe."""

    checkpoint: str
    """folder of released weights"""
    learning_rate: float
    tau: float
    dtype: str = "float32"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    reset_optimizer: bool = True
    freeze: tuple[str, ...] = ()
    activation_checkpointing: bool = False
    threads: int = 1
    timeout_s: float = 3600.0
    seed: int = 0


@dataclass
class StepMetrics:
    """Sums over this process's tokens and responses; `reduce` makes them global."""

    sums: dict[str, float] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def reduce(self) -> dict[str, float]:
        """Summed over all processes; collective."""
        names = sorted(self.sums)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        values = torch.tensor([self.sums[n] for n in names], dtype=torch.float64, device=device)
        dist.all_reduce(values)
        return dict(zip(names, values.tolist(), strict=True))


class Learner:
    """A rank of the learner. Settings and checkpoint are the same on every rank."""

    def __init__(self, settings: LearnerSettings, rank: int, world_size: int, rendezvous: str):
        """rendezvous: an init method all ranks share, such as `tcp://host:port`.

        Raises:
            ValueError: the checkpoint is incomplete or does not fit its configuration.
        """
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.device = join(settings, rank, world_size, rendezvous)
        self.model = build_model(settings, world_size, self.device)
        self.optimizer = self._new_optimizer()
        self._minibatches: list[list[PackedRow]] = []
        self._references: list[list[torch.Tensor | None]] = []

    def _new_optimizer(self) -> torch.optim.AdamW:
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            trainable,
            lr=self.settings.learning_rate,
            betas=self.settings.betas,
            weight_decay=self.settings.weight_decay,
        )

    @torch.no_grad()
    def logprobs(self, rows: Sequence[PackedRow]) -> list[torch.Tensor]:
        """Log-probabilities [R] of each row's tokens in the loss, on the CPU."""
        values = [row_logprobs(self.model, row.to(self.device))[0].cpu() for row in rows]
        # A forward alone leaves the root's parameters gathered; an optimizer made then would
        # hold copies that no forward ever reads.
        assert isinstance(self.model, FSDPModule)
        self.model.reshard()
        return values

    def begin_iteration(self, minibatches: Sequence[Sequence[PackedRow]]) -> None:
        """Take an iteration's rows (one list for each optimizer step), make the current policy
        the reference, and start with a fresh optimizer.

        The first minibatch needs no reference pass: until its step the policy is the reference.
        """
        self._minibatches = [list(rows) for rows in minibatches]
        self._references = [[None] * len(self._minibatches[0])]
        for rows in self._minibatches[1:]:
            self._references.append([*self.logprobs(rows)])
        if self.settings.reset_optimizer:
            self.optimizer = self._new_optimizer()

    def step(
        self, index: int, num_sequences: int, num_tokens: int, learning_rate: float | None = None
    ) -> dict[str, float]:
        """One optimizer step on minibatch `index`. The counts are global: responses and response
        tokens of the minibatch over all ranks. `learning_rate`: None: that of the settings.

        Returns:
            `loss`, `grad_norm`, and sums over all ranks of `entropy` and `kl` (by token) and
            `log_ratio` (by response).
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums = StepMetrics()
        rows = zip(self._minibatches[index], self._references[index], strict=True)
        for row, reference in rows:
            row = row.to(self.device)
            logprobs, entropy = row_logprobs(self.model, row)
            output = mirror_descent_loss(
                logprobs,
                logprobs.detach() if reference is None else reference.to(self.device),
                row.advantages,
                row.seq_ids,
                num_sequences,
                self.settings.tau,
                num_tokens=num_tokens,
            )
            # FSDP2 averages gradients over ranks; the loss is already divided by global counts.
            (output.loss * self.world_size).backward()
            sums.add(loss=output.loss.item(), entropy=entropy.sum().item())
            sums.add(**{name: value.item() for name, value in output.metrics.items()})
        grad_norm = clip_gradients(self.model, self.settings.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate if learning_rate is None else learning_rate
        self.optimizer.step()
        return sums.reduce() | {"grad_norm": grad_norm}

    def release(self) -> None:
        """After an iteration's steps: give back what only they needed (gradients, and moments
        that the next iteration would drop), before an engine on the same device wakes."""
        self.optimizer.zero_grad(set_to_none=True)
        self._minibatches, self._references = [], []
        if self.settings.reset_optimizer:
            self.optimizer = self._new_optimizer()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Released (name, full tensor) pairs in the engine's dtype; collective."""
        yield from full_tensors(self.model, getattr(torch, self.settings.dtype))

    def export(self, folder: str | Path) -> None:
        """Write the weights as a released checkpoint's safetensors, on rank 0; collective."""
        if self.rank == 0:
            save_released(self.weights(), folder)
        else:
            for _ in self.weights():
                pass
        dist.barrier()

    def save(self, folder: str | Path) -> None:
        """Write the float32 weights, and the optimizer's state where iterations keep it, sharded
        (torch DCP); collective.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        try:
            save_sharded(self._state(), checkpoint_id=str(folder))
        except (Exception, CheckpointException) as error:  # the latter is no Exception
            raise OSError(f"{folder}: could not write the checkpoint: {error}") from error

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote, also with another number of ranks; collective.

        Raises:
            ValueError: the checkpoint is missing, incomplete, or of another model.
        """
        state = self._state()
        try:
            load_sharded(state, checkpoint_id=str(folder))
        except (Exception, CheckpointException) as error:  # the latter is no Exception
            raise ValueError(
                f"{folder}: not a checkpoint that this model can continue from: {error}"
            ) from error
        set_model_state_dict(self.model, state["model"])
        if "optimizer" in state:
            set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"])

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"model": get_model_state_dict(self.model)}
        if not self.settings.reset_optimizer:
            state["optimizer"] = get_optimizer_state_dict(self.model, self.optimizer)
        return state


def clip_gradients(model: torch.nn.Module, max_norm: float) -> float:
    """Clip the gradients to a global norm, which is returned; collective.

    Raises:
        FloatingPointError: the norm is not finite.
    """
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    if not math.isfinite(value):
        raise FloatingPointError(f"gradient norm is {value}; the step was not taken")
    return value


def join(settings: LearnerSettings, rank: int, world_size: int, rendezvous: str) -> torch.device:
    """Set this process up as a rank: threads, seed, process group. Returns its device."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    cuda = torch.cuda.is_available()
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=rendezvous,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=settings.timeout_s),
    )
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


def build_model(
    settings: LearnerSettings, world_size: int, device: torch.device | str
) -> KimiVLForConditionalGeneration:
    """The sharded model with the checkpoint's weights; no process ever holds all of it."""
    if not os.path.isdir(settings.checkpoint):
        raise ValueError(f"{settings.checkpoint}: no such checkpoint folder")
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    config.dtype = torch.float32
    with torch.device("meta"):
        model = KimiVLForConditionalGeneration(config)
    model = model.float()
    model.set_trainable(settings.freeze)
    shard(model, world_size, getattr(torch, settings.dtype))
    materialize(model, device)
    load_released(model, settings.checkpoint)
    if settings.activation_checkpointing:
        model.gradient_checkpointing_enable()
    return model
