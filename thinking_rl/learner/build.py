"""A rank made ready: its process group, and the sharded model with its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from thinking_rl.learner.sharding import materialize, shard
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.weights import load_released


@dataclass(frozen=True)
class LearnerSettings:
    """What a rank needs to know of the recipe."""

    checkpoint: str
    """Folder of released weights."""
    learning_rate: float
    """Of a step that is not given one of its own."""
    tau: float
    """Strength of the pull towards the reference, of a step that is not given one; 0: none."""
    form: str = "sequence"
    """Of the loss (see `mirror_descent_loss`)."""
    normalisation: str = "sequences"
    """Of the loss (see `mirror_descent_loss`)."""
    ratio_band: tuple[float, float] | None = None
    """Ratio of learner to engine outside which a token's policy gradient is masked; None: none."""
    temperature: float = 1.0
    """What the logits of the policy that is trained are divided by."""
    optimizer: str = "adamw"
    """`adamw` or `muon`."""
    dtype: str = "float32"
    """Of the forward pass and of published weights; master weights are float32."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of AdamW's running means of the gradient and of its square."""
    weight_decay: float = 0.0
    """Share of a weight that a step takes off, in units of the learning rate; 0: none."""
    max_grad_norm: float = 1.0
    """Largest global norm of the gradient; a larger one is scaled down to it."""
    reset_optimizer: bool = True
    """Whether each iteration starts with fresh optimizer state."""
    freeze: tuple[str, ...] = ()
    """Parts that are not trained, as `set_trainable` names them; empty: all are."""
    activation_checkpointing: bool = False
    """Whether the backward pass computes activations again, to keep fewer."""
    threads: int = 1
    """CPU threads of a rank."""
    timeout_s: float = 3600.0
    """Longest wait, in seconds, for a call to the ranks and for a collective among them."""
    seed: int = 0
    """Of torch's generator, the same on every rank."""


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
