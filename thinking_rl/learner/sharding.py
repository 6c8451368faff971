"""FSDP2: one unit for each decoder layer and vision block, the rest in the root."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from thinking_rl.model.modeling import KimiVLForConditionalGeneration


def shard(model: KimiVLForConditionalGeneration, world_size: int, dtype: torch.dtype) -> None:
    """Shard a model (parameters may be on the meta device) over all processes, in place.

    Master weights and gradients are float32; `dtype` is that of the forward pass. Inputs are not
    cast on the way (rotary angles stay float32).
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (world_size,))
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for unit in [*model.vision_tower.encoder.blocks, *model.language_model.model.layers]:
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(model, "token_logprobs")
    register_fsdp_forward_method(model, "token_statistics")


def materialize(model: KimiVLForConditionalGeneration, device: torch.device | str) -> None:
    """Give a model built on the meta device real (unset) memory. The rotary frequencies, which
    no checkpoint holds, are computed anew."""
    model.to_empty(device=device)
    decoder = model.language_model.model
    decoder.rotary_emb = type(decoder.rotary_emb)(config=decoder.config).to(device)
