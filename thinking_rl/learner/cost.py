"""What a sequence costs to train on: linear in its tokens, and quadratic in attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cost:
    """In text tokens that have nothing to attend to."""

    crossover: float
    """Length, in tokens, at which a sequence's attention costs as much as all the rest of it."""

    def of(self, length: int, before: int = 0) -> float:
        """A sequence of `length` tokens that continues one of `before`, which is not counted."""
        return length + (length**2 + 2 * before * length) / self.crossover


def cost_of(text: Any) -> Cost:
    """By operations: of a decoder's configuration (transformers' DeepseekV3Config).

    Causal attention over n tokens multiplies n^2 / 2 queries and keys, and as many weights and
    values, of the same width; every other parameter that is used is multiplied once a token.
    """
    hidden, heads = text.hidden_size, text.num_attention_heads
    width = text.qk_nope_head_dim + text.qk_rope_head_dim
    latent = text.kv_lora_rank
    projections = (
        hidden * heads * width
        + hidden * (latent + text.qk_rope_head_dim)
        + latent * heads * (text.qk_nope_head_dim + text.v_head_dim)
        + heads * text.v_head_dim * hidden
    )
    dense = min(text.first_k_dense_replace, text.num_hidden_layers)
    routed = (text.num_experts_per_tok + text.n_shared_experts) * text.moe_intermediate_size
    inner = dense * text.intermediate_size + (text.num_hidden_layers - dense) * routed
    used = text.num_hidden_layers * projections + 3 * hidden * inner + hidden * text.vocab_size
    return Cost(crossover=2 * used / (2 * text.num_hidden_layers * heads * width))
