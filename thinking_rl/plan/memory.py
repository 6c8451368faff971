"""How many parameters a Kimi-VL has, and how much memory a run of it needs. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinking_rl.files.kimi_vl_a3b import RELEASED_TEXT, RELEASED_VISION
from thinking_rl.recipe.schema import Recipe

GIB = 2**30
TINY_PARAMETERS = 2_600_000
"""About what the `tiny` model has."""


def count_parameters(config: Mapping[str, Any]) -> dict[str, int]:
    """Parameters by part (`vision_tower`, `projector`, `router`, `decoder`) of a `config.json`.

    The routers' correction biases count with the routers, as they do in the checkpoint. The parts
    of Kimi-VL-A3B sum to 16,407,656,048.
    """
    text = {**RELEASED_TEXT, **config.get("text_config", {})}
    vision = {**RELEASED_VISION, **config.get("vision_config", {})}
    hidden, layers = text["hidden_size"], text["num_hidden_layers"]
    moe_layers = layers - text["first_k_dense_replace"]
    experts = text["n_routed_experts"]
    expert_mlps = (experts + text["n_shared_experts"]) * 3 * hidden * text["moe_intermediate_size"]
    embeddings = text["vocab_size"] * hidden * (1 if text["tie_word_embeddings"] else 2)
    decoder = (
        embeddings
        + hidden  # the last norm
        + layers * (2 * hidden + _attention(text))
        + text["first_k_dense_replace"] * 3 * hidden * text["intermediate_size"]
        + moe_layers * expert_mlps
    )
    return {
        "vision_tower": _vision_tower(vision),
        "projector": _projector(vision, hidden),
        "router": moe_layers * (experts * hidden + experts),
        "decoder": decoder,
    }


def _attention(text: Mapping[str, Any]) -> int:
    """Latent attention of one layer, its norms included."""
    hidden, heads, rank = text["hidden_size"], text["num_attention_heads"], text["kv_lora_rank"]
    nope, rope, value = text["qk_nope_head_dim"], text["qk_rope_head_dim"], text["v_head_dim"]
    query_width, query_rank = heads * (nope + rope), text["q_lora_rank"]
    query = hidden * query_width
    if query_rank:
        query = query_rank * (hidden + 1 + query_width)
    return (
        query
        + hidden * (rank + rope)  # down to the latent and the shared rotary key
        + rank  # its norm
        + rank * heads * (nope + value)
        + heads * value * hidden
    )


def _vision_tower(vision: Mapping[str, Any]) -> int:
    width, inner = vision["hidden_size"], vision["intermediate_size"]
    patches = 3 * vision["patch_size"] ** 2 * width + width
    positions = vision["init_pos_emb_height"] * vision["init_pos_emb_width"] * width
    block = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
    return patches + positions + vision["num_hidden_layers"] * block + 2 * width


def _projector(vision: Mapping[str, Any], hidden: int) -> int:
    width = vision["hidden_size"]
    merged = width * vision["merge_kernel_size"][0] * vision["merge_kernel_size"][1]
    return 2 * width + merged * (merged + 1) + hidden * (merged + 1)


@dataclass(frozen=True)
class Memory:
    """GiB of one device. Estimates: nothing here has seen the device."""

    engine_weights: float
    """In the recipe's dtype, split over the devices of an engine."""
    engine_kv_cache: float
    """What `max_sequences` sequences of `max_model_tokens` would fill; an engine with less room
    decodes fewer at once."""
    learner_state: float
    """Sharded: float32 master weights, and float32 gradients and two Adam moments where trained."""
    learner_activations: float
    """Of the larger micro-batch of the stages, of text tokens, with one unsharded layer."""


def estimate_memory(recipe: Recipe, config: Mapping[str, Any]) -> Memory:
    """Memory of an engine's device and of a learner's device for the model of `config`."""
    text = {**RELEASED_TEXT, **config.get("text_config", {})}
    parts = count_parameters(config)
    total = sum(parts.values())
    trained = total - sum(parts[part] for part in recipe.model.freeze)
    width = 4 if recipe.model.dtype == "float32" else 2
    rollout, learner = recipe.rollout, recipe.learner
    # The latent and the rotary key are all that is cached, and every tensor-parallel rank has them.
    cached = text["num_hidden_layers"] * (text["kv_lora_rank"] + text["qk_rope_head_dim"])
    return Memory(
        engine_weights=total * width / rollout.tensor_parallel / GIB,
        engine_kv_cache=cached * width * rollout.max_sequences * rollout.max_model_tokens / GIB,
        learner_state=(4 * total + 12 * trained) / learner.workers / GIB,
        learner_activations=width * _activation_values(recipe, text, parts["decoder"]) / GIB,
    )


def _activation_values(recipe: Recipe, text: Mapping[str, Any], decoder: int) -> float:
    """Values that one micro-batch keeps for its backward pass, and one layer's weights."""
    hidden, layers = text["hidden_size"], text["num_hidden_layers"]
    heads, chosen = text["num_attention_heads"], text["num_experts_per_tok"]
    key_width = text["qk_nope_head_dim"] + text["qk_rope_head_dim"]
    attention = heads * (2 * key_width + 2 * text["v_head_dim"])
    mlp = 3 * (chosen + text["n_shared_experts"]) * text["moe_intermediate_size"]
    layer = 6 * hidden + attention + mlp + 2 * chosen * hidden  # the last: copies sent to experts
    kept = layers * hidden + layer if recipe.learner.activation_checkpointing else layers * layer
    tokens = [recipe.learner.tokens_per_microbatch if recipe.active_rl else 0]
    if recipe.active_sft:
        tokens.append(recipe.active_sft.tokens_per_pass(recipe.learner.workers))
    return max(tokens) * kept + decoder / layers
