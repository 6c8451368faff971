"""Log-probabilities of tokens and entropies of their distributions, without storing the logits.

Tokens and vocabulary are taken in blocks. The forward pass keeps one normaliser for each token,
from which the backward pass makes a block's probabilities again: one product with the head more
than the plain way, and a workspace that grows neither with the tokens nor with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TOKENS, VOCABULARY = 1024, 8192
"""Of one block; its float32 logits take 32 MiB."""


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    with_entropy: bool = False,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy of the distribution that it comes from.

    Args:
        hidden: [T, hidden] states in front of the head.
        weight: [vocabulary, hidden] of the head.
        targets: [T] int64.
        temperature: what the logits are divided by.

    Returns:
        Log-probs [T] in nats, and entropies [T] in nats, which have no gradient ([0] where they
        are not wanted); float32 whatever the inputs are.
    """
    scale = 1 / temperature
    return _TokenLogprobs.apply(hidden, weight, targets, with_entropy, scale)  # pyright: ignore[reportReturnType]


class _TokenLogprobs(torch.autograd.Function):
    """The gradient of a log-prob by the logits is one at the target, minus the probabilities. Its
    factor, the token's own, goes to the hidden states rather than to the logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        with_entropy: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        tokens = len(targets)
        normaliser = hidden.new_full((tokens,), -torch.inf, dtype=torch.float32)
        chosen = torch.zeros_like(normaliser)
        entropy = torch.zeros_like(normaliser if with_entropy else normaliser[:0])
        for vocabulary, part in _blocks(weight, VOCABULARY):
            for place, states in _blocks(hidden, TOKENS):
                logits = _product(states, part.t()).mul_(scale)
                local, is_here = _local(targets[place], vocabulary)
                chosen[place] += logits.gather(1, local)[:, 0] * is_here
                here = logits.logsumexp(-1)
                total = normaliser[place].logaddexp(here)
                if with_entropy:
                    logits -= here[:, None]
                    of_block = -torch.einsum("tv,tv->t", logits.exp(), logits)
                    # The chain rule of entropy: of which block, and of the token within it.
                    old, new = (normaliser[place] - total).exp(), (here - total).exp()
                    within = old * entropy[place] + new * of_block
                    entropy[place] = within + torch.special.entr(old) + torch.special.entr(new)
                normaliser[place] = total
        ctx.save_for_backward(hidden, weight, targets, normaliser)
        ctx.scale = scale
        ctx.mark_non_differentiable(entropy)
        return chosen - normaliser, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normaliser = ctx.saved_tensors
        factor = gradients[0].float()[:, None] * ctx.scale
        scaled = (hidden * factor).to(hidden.dtype)
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        of_hidden = torch.zeros_like(hidden, dtype=torch.float32) if needs_hidden else None
        of_weight = torch.empty_like(weight) if needs_weight else None
        for vocabulary, part in _blocks(weight, VOCABULARY):
            of_part = torch.zeros_like(part, dtype=torch.float32) if needs_weight else None
            for place, states in _blocks(hidden, TOKENS):
                slope = _product(states, part.t()).mul_(ctx.scale)
                slope.sub_(normaliser[place, None]).exp_().neg_()
                local, is_here = _local(targets[place], vocabulary)
                slope.scatter_add_(1, local, is_here.float()[:, None])
                slope = slope.to(part.dtype)
                if of_hidden is not None:
                    _add_product(of_hidden[place], slope, part)
                if of_part is not None:
                    _add_product(of_part, slope.t(), _operand(scaled[place]))
            if of_weight is not None and of_part is not None:
                of_weight[vocabulary] = of_part
        if of_hidden is not None:
            of_hidden = of_hidden.mul_(factor).to(hidden.dtype)
        return of_hidden, of_weight, None, None, None


def _blocks(rows: Tensor, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows in blocks of at most `size`, each with its place, ready for `_product`."""
    for start in range(0, len(rows), size):
        place = slice(start, min(start + size, len(rows)))
        yield place, _operand(rows[place])


def _local(targets: Tensor, vocabulary: slice) -> tuple[Tensor, Tensor]:
    """Columns [T, 1] of the targets in a block of the vocabulary, and whether they are in it."""
    local = targets - vocabulary.start
    width = vocabulary.stop - vocabulary.start
    return local.clamp(0, width - 1)[:, None], (local >= 0) & (local < width)


def _operand(matrix: Tensor) -> Tensor:
    """Only GPUs multiply lower precision into float32."""
    return matrix if matrix.is_cuda else matrix.float()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32."""
    return a @ b if a.dtype == torch.float32 else torch.mm(a, b, out_dtype=torch.float32)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to a float32 total, in place."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    else:
        total += torch.mm(a, b, out_dtype=torch.float32)
