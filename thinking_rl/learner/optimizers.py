"""The optimizers of a rank: AdamW alone, or Muon for hidden matrices and AdamW for the rest.

Muon as in Moonlight (arXiv 2502.16982): the momentum of a matrix is made orthogonal and scaled so
that its root mean square is that of a step of AdamW, so both share one learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from thinking_rl.learner.build import LearnerSettings

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95
RMS = 0.2
"""Of an update's entries, in learning rates."""
NOT_HIDDEN = ("embed_tokens.weight", "lm_head.weight")
"""Matrices that are looked up in or out of, by the end of their names."""
EXPERTS, GATE_AND_UP = "mlp.experts.", "gate_up_proj"


def make_optimizers(
    model: torch.nn.Module, settings: LearnerSettings
) -> list[torch.optim.Optimizer]:
    """Whatever steps together on a model's trainable parameters."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = {
        name: p for name, p in trainable if settings.optimizer == "muon" and is_hidden(name, p)
    }
    rest = [p for name, p in trainable if name not in matrices]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(
            torch.optim.AdamW(
                rest,
                lr=settings.learning_rate,
                betas=settings.betas,
                weight_decay=settings.weight_decay,
            )
        )
    if matrices:
        optimizers.append(Muon(matrices.items(), settings.learning_rate, settings.weight_decay))
    return optimizers


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether Muon steps on it: a matrix between hidden states, or a stack of experts'."""
    is_matrix = parameter.ndim == 2 and not name.endswith(NOT_HIDDEN)
    return is_matrix or (parameter.ndim == 3 and EXPERTS in name)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [N, rows, columns] with all singular values near 1, by five Newton-Schulz
    iterations in bfloat16 (arXiv 2502.16982, section 2.1)."""
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.bfloat16()
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, also on sharded parameters.

    A matrix that is sharded by rows is gathered for its update, which every rank computes whole. A
    stack of experts' matrices is sharded by experts: each rank updates its own, and none is
    gathered. `gate_up_proj` holds two matrices of each expert, which are updated apart.
    """

    def __init__(
        self, named: Iterable[tuple[str, Tensor]], learning_rate: float, weight_decay: float
    ):
        groups = [
            {"params": [parameter], "halves": 2 if name.endswith(GATE_AND_UP) else 1}
            for name, parameter in named
        ]
        super().__init__(groups, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of every parameter that has a gradient; collective where they are sharded."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        update = _like(parameter, gradient.lerp(momentum, MOMENTUM), group["halves"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update, alpha=group["lr"])


def _like(parameter: Tensor, update: Tensor, halves: int) -> Tensor:
    """The update of a parameter, sharded as the parameter is."""
    if not isinstance(update, DTensor):
        return _scaled(update, halves)
    mesh, placements = update.device_mesh, update.placements
    if update.ndim == 3:
        assert placements == (Shard(0),), "a rank has whole experts"
        own = _scaled(update.to_local(), halves)
        return DTensor.from_local(
            own, mesh, placements, shape=parameter.shape, stride=parameter.stride()
        )
    return distribute_tensor(_scaled(update.full_tensor(), halves), mesh, placements)


def _scaled(update: Tensor, halves: int) -> Tensor:
    """Orthogonal matrices whose entries have the root mean square `RMS`."""
    if update.numel() == 0:  # a rank without experts
        return update
    rows, columns = update.shape[-2] // halves, update.shape[-1]
    matrices = update.reshape(-1, rows, columns)
    size = RMS * math.sqrt(max(rows, columns))
    return orthogonal(matrices).to(update.dtype).mul_(size).view(update.shape)
