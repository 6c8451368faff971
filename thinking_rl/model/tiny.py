"""A complete small random Kimi-VL checkpoint: `python -m thinking_rl.model.tiny OUT`.

Everything a real checkpoint has (weights under the released names, configuration, vocabulary,
processor, generation settings), at about two and a half million parameters.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from thinking_rl.files.kimi_vl_a3b import RELEASED_TEXT, RELEASED_VISION
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.processing import write_processor_files
from thinking_rl.model.weights import full_tensors, save_released

TEXT = RELEASED_TEXT | {
    "model_type": "deepseek_v3",
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    # kv_lora_rank stays 512 and qk_rope_head_dim 64: vLLM's latent-attention kernel has no others.
    "qk_nope_head_dim": 64,
    "v_head_dim": 128,  # no less on a GPU: vLLM's prefill on Hopper and older refuses 64
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "dtype": "float32",
}
VISION = RELEASED_VISION | {
    "model_type": "moonvit",
    "init_pos_emb_height": 16,
    "init_pos_emb_width": 16,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "hidden_size": 96,
    "intermediate_size": 256,
}
CORRECTION_BIAS_STD = 0.01


def write_tiny(folder: str | Path, *, seed: int = 0, image_token_limit: int = 4096) -> Path:
    """Write a small random checkpoint to `folder`; the same seed gives the same bytes.

    The routers' correction biases are small random numbers rather than zeros, so that whoever
    drops them is found out.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    processor = write_processor_files(folder, in_token_limit=image_token_limit)
    tokenizer = processor.tokenizer
    ids = {
        "bos_token_id": tokenizer.convert_tokens_to_ids("[BOS]"),
        "eos_token_id": tokenizer.convert_tokens_to_ids("[EOS]"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("[PAD]"),
    }
    media = tokenizer.convert_tokens_to_ids("<|media_pad|>")
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = {
        "architectures": ["KimiVLForConditionalGeneration"],
        "model_type": "kimi_vl",
        "dtype": "float32",
        "ignore_index": -100,
        "media_placeholder_token_id": media,
        "pad_token_id": ids["pad_token_id"],
        "text_config": TEXT | ids | {"vocab_size": len(tokenizer)},
        "vision_config": VISION,
    }
    generation = ids | {
        "eos_token_id": [turn_end, ids["eos_token_id"]],
        "suppress_tokens": [media],
        "do_sample": True,
        "temperature": 1.0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))
    model = random_model(KimiVLConfig.from_dict(config), seed)
    save_released(full_tensors(model), folder)
    return folder


def random_model(config: KimiVLConfig, seed: int) -> KimiVLForConditionalGeneration:
    """A model with random weights fixed by the seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KimiVLForConditionalGeneration(config)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(std=CORRECTION_BIAS_STD)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-token-limit", type=int, default=4096, help="patches an image")
    options = parser.parse_args()
    folder = write_tiny(options.out, seed=options.seed, image_token_limit=options.image_token_limit)
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
