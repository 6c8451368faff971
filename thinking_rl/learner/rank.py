"""One training process: a sharded model, its optimizer, and the mirror-descent step.

All ranks of a learner make the same calls in the same order with the same number of rows;
whoever has less work is given empty rows, since every forward and backward is collective.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from thinking_rl.algorithm.loss import (
    LossOutput,
    importance_weights,
    inside_band,
    mirror_descent_loss,
)
from thinking_rl.learner.build import LearnerSettings, build_model, join
from thinking_rl.learner.optimizers import make_optimizers
from thinking_rl.learner.packing import TrainingRow
from thinking_rl.learner.sharded_state import load_state, save_state
from thinking_rl.model.images import ImagePatches
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.weights import full_tensors, save_released

IMPORTANCE_CAP = 2.0
"""Largest weight of a token that an older policy sampled."""


@dataclass
class StepMetrics:
    """Sums over this process's tokens and responses; `reduce` makes them global."""

    sums: dict[str, float] = field(default_factory=dict)
    """Name -> what this process has added up so far."""

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


class ExpertLoad:
    """Counts how many tokens each expert is given, over the forward passes of a step."""

    def __init__(self, model: torch.nn.Module):
        self._routers = [m for name, m in model.named_modules() if name.endswith("mlp.gate")]
        self._counts: dict[torch.nn.Module, torch.Tensor] = {}
        for router in self._routers:
            router.register_forward_hook(self._count)

    def _count(self, router: Any, inputs: Any, output: Any) -> None:
        counts = output[2].flatten().bincount(minlength=router.num_experts)
        self._counts[router] = self._counts.get(router, 0) + counts

    def clear(self) -> None:
        """Before a step."""
        self._counts = {}

    def reduce(self) -> dict[str, float]:
        """Over all processes; collective. `expert_load`: tokens of a layer's busiest expert over
        those of the mean expert, as a mean over the layers. `expert_bias`: the largest size of a
        correction bias."""
        if not self._routers:
            return {}
        counts = torch.stack([self._counts[router] for router in self._routers]).double()
        dist.all_reduce(counts)
        busiest = (counts.amax(1) / counts.mean(1)).mean()
        biases = [router.get_buffer("e_score_correction_bias") for router in self._routers]
        largest = torch.stack([bias.abs().max() for bias in biases]).max()
        return {"expert_load": busiest.item(), "expert_bias": largest.item()}


class Rank:
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
        self.optimizers = make_optimizers(self.model, settings)
        self.expert_load = ExpertLoad(self.model)
        self._minibatches: list[list[TrainingRow]] = []
        self._references: list[list[torch.Tensor | None]] = []
        self._images: Mapping[str, ImagePatches] = {}

    @torch.no_grad()
    def scores(
        self,
        rows: Sequence[TrainingRow],
        images: Mapping[str, ImagePatches],
        temperature: float = 1.0,
    ) -> list[torch.Tensor]:
        """For each row [3, R] log-probabilities of its tokens in the loss, entropies of the
        distributions that they come from, and variances of the log-probability of what is drawn
        from them; on the CPU.

        Args:
            images: patches by hash, of the rows' images at least.
            temperature: what the logits are divided by: that of the settings makes the model the
                policy that is trained.
        """
        found = []
        for row in rows:
            packed = row.packed(images, self.device)
            found.append(torch.stack(self.model.token_statistics(packed, temperature)).cpu())
        reshard(self.model)
        return found

    def begin_iteration(
        self,
        minibatches: Sequence[Sequence[TrainingRow]],
        images: Mapping[str, ImagePatches],
    ) -> None:
        """Take an iteration's rows (one list for each minibatch), make the current policy the
        reference, and start with a fresh optimizer.

        The first minibatch needs no reference pass: its first step's log-probs are the reference.

        Args:
            images: patches by hash, of the rows' images at least.
        """
        self._minibatches, self._images = [list(rows) for rows in minibatches], images
        self._references = [[None] * len(self._minibatches[0])]
        for rows in self._minibatches[1:]:
            temperature = self.settings.temperature
            self._references.append(
                [*logprobs(self.model, rows, images, self.device, temperature=temperature)]
            )
        if self.settings.reset_optimizer:
            self.optimizers = make_optimizers(self.model, self.settings)

    def step(
        self,
        index: int,
        num_sequences: int,
        num_tokens: int,
        learning_rate: float | None = None,
        tau: float | None = None,
    ) -> dict[str, float]:
        """One optimizer step on minibatch `index`. The counts are global: responses and response
        tokens of the minibatch over all ranks. `learning_rate`, `tau`: None: that of the settings.

        A step whose gradient is not finite is not taken.

        Returns:
            `loss` and its terms, `grad_norm` (not finite: the step was not taken), `expert_load`,
            `expert_bias`, and sums over all ranks of `entropy` and `kl` (by token), `log_ratio` (by
            response), `mismatch` (of log-probs of learner and engine, absolute) over `compared`
            tokens, and `masked` tokens (outside the band).
        """
        self.model.train()
        self._zero_gradients()
        self.expert_load.clear()
        sums = StepMetrics()
        for number, row in enumerate(self._minibatches[index]):
            values, entropy = self.model.token_logprobs(
                row.packed(self._images, self.device), temperature=self.settings.temperature
            )
            reference = self._references[index][number]
            if reference is None:
                reference = self._references[index][number] = values.detach().cpu()
            reference = reference.to(self.device)
            output = self._loss(row, values, reference, num_sequences, num_tokens, tau, sums)
            # FSDP2 averages gradients over ranks; the loss is already divided by global counts.
            (output.loss * self.world_size).backward()
            sums.add(loss=output.loss.item(), entropy=entropy.sum().item())
            sums.add(**{name: value.item() for name, value in output.metrics.items()})
        grad_norm = gradient_norm(self.model, self.settings.max_grad_norm)
        if math.isfinite(grad_norm):
            self._take_step(self.settings.learning_rate if learning_rate is None else learning_rate)
        return sums.reduce() | self.expert_load.reduce() | {"grad_norm": grad_norm}

    def _loss(
        self,
        row: TrainingRow,
        values: torch.Tensor,
        current: torch.Tensor,
        num_sequences: int,
        num_tokens: int,
        tau: float | None,
        sums: StepMetrics,
    ) -> LossOutput:
        """The loss of a row whose tokens have log-probs `values` now, and had `current` when the
        iteration began."""
        settings = self.settings
        older, engine = row.references.to(self.device), row.engine_logprobs.to(self.device)
        is_current = older.isnan()
        weights = importance_weights(current, older, IMPORTANCE_CAP)
        weights = weights.masked_fill(is_current, 1.0)
        if settings.ratio_band:
            inside = inside_band(values.detach(), engine, settings.ratio_band)
            weights = weights * inside
            sums.add(masked=(~inside).sum().item())
        # An engine's log-probs are those of temperature 1.
        is_known = is_current & ~engine.isnan() & (settings.temperature == 1.0)
        sums.add(
            compared=is_known.sum().item(), mismatch=(current - engine)[is_known].abs().sum().item()
        )
        return mirror_descent_loss(
            values,
            torch.where(is_current, current, older),
            row.advantages.to(self.device),
            row.seq_ids.to(self.device),
            num_sequences,
            settings.tau if tau is None else tau,
            form=settings.form,
            normalisation=settings.normalisation,
            num_tokens=num_tokens,
            weights=weights,
        )

    def _take_step(self, learning_rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()

    def _zero_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def release(self) -> None:
        """After an iteration's steps: give back what only they needed (gradients, and moments
        that the next iteration would drop), before an engine on the same device wakes."""
        self._zero_gradients()
        self._minibatches, self._references, self._images = [], [], {}
        if self.settings.reset_optimizer:
            self.optimizers = make_optimizers(self.model, self.settings)
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
        """Write the float32 weights, and the optimizer's state where iterations keep it;
        collective.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        save_state(folder, self.model, self._kept_optimizers())

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote, also with another number of ranks; collective.

        Raises:
            ValueError: the checkpoint is missing, incomplete, or of another model.
        """
        load_state(folder, self.model, self._kept_optimizers())

    def _kept_optimizers(self) -> Sequence[torch.optim.Optimizer]:
        return [] if self.settings.reset_optimizer else self.optimizers


@torch.no_grad()
def logprobs(
    model: KimiVLForConditionalGeneration,
    rows: Sequence[TrainingRow],
    images: Mapping[str, ImagePatches],
    device: torch.device | str,
    *,
    temperature: float = 1.0,
) -> list[torch.Tensor]:
    """Log-probabilities [R] of each row's tokens in the loss, on the CPU; collective where the
    model is sharded.

    Args:
        temperature: what the logits are divided by.
    """
    values = []
    for row in rows:
        packed = row.packed(images, device)
        value, _ = model.token_logprobs(packed, with_entropy=False, temperature=temperature)
        values.append(value.cpu())
    reshard(model)
    return values


def reshard(model: torch.nn.Module) -> None:
    """After a forward alone, which leaves the root's parameters gathered; an optimizer made then
    would hold copies that no forward ever reads."""
    if isinstance(model, FSDPModule):
        model.reshard()


def gradient_norm(model: torch.nn.Module, max_norm: float) -> float:
    """Clip the gradients to a global norm; collective. What it was before, perhaps not finite."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def clip_gradients(model: torch.nn.Module, max_norm: float) -> float:
    """Clip the gradients to a global norm, which is returned; collective.

    Raises:
        FloatingPointError: the norm is not finite.
    """
    value = gradient_norm(model, max_norm)
    if not math.isfinite(value):
        raise FloatingPointError(f"gradient norm is {value}; the step was not taken")
    return value
