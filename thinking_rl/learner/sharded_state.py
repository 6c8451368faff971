"""Weights and an optimizer's moments as every rank holds them: written and read by all together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_sharded
from torch.distributed.checkpoint.state_dict_saver import save as save_sharded


def save_state(
    folder: str | Path, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Write the float32 weights, and the moments of the optimizers that are given, sharded (torch
    DCP); collective.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    try:
        save_sharded(_state(model, optimizers), checkpoint_id=str(folder))
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        raise OSError(f"{folder}: could not write the checkpoint: {error}") from error


def load_state(
    folder: str | Path, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Read what `save_state` wrote, also with another number of ranks; collective.

    Raises:
        ValueError: the checkpoint is missing, incomplete, or of another model.
    """
    state = _state(model, optimizers)
    try:
        load_sharded(state, checkpoint_id=str(folder))
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        raise ValueError(
            f"{folder}: not a checkpoint that this model can continue from: {error}"
        ) from error
    set_model_state_dict(model, state["model"])
    if optimizers:
        set_optimizer_state_dict(model, optimizers, state["optimizer"])


def _state(model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    state: dict[str, Any] = {"model": get_model_state_dict(model)}
    if optimizers:
        state["optimizer"] = get_optimizer_state_dict(model, optimizers)
    return state
