"""The recipe's `optimizer` sections."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from thinking_rl.recipe.section import LARGEST_RATE, CountOrZero, Section, as_tuple

Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Section):
    """AdamW or Muon, and the course of the learning rate through a stage."""

    kind: Literal["adamw", "muon"] = "adamw"
    """muon: hidden matrices, experts' included, are stepped on by Muon as in Moonlight, everything
    else by AdamW at the same learning rate."""
    learning_rate: float = Field(gt=0, le=LARGEST_RATE)
    """Highest learning rate of the stage, reached after `warmup_steps`."""
    betas: Annotated[tuple[Beta, Beta], BeforeValidator(as_tuple)] = (0.9, 0.95)
    """Decay rates of the running means of the gradient and of its square."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Share of a weight that a step takes off, in units of the learning rate; 0: none."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Largest global norm of the gradient; a larger one is scaled down to it."""
    warmup_steps: CountOrZero = 0
    """Optimizer steps over which the learning rate rises, the first being a step of it already; 0:
    it starts at its highest."""
    final_share: float = Field(default=1.0, gt=0, le=1)
    """Learning rate at the stage's end as a share of `learning_rate`, reached along a cosine. The
    end is that of the run as it began: a resumed run with more iterations stays there."""

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of optimizer step `step`, from 0, of a stage that was planned with `steps`;
        beyond them it stays. So a run that is made longer keeps the rates of its earlier steps."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        progress = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
        fall = (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * (self.final_share + (1 - self.final_share) * fall)
