"""The model alone (torch and transformers) at the released widths with few layers: is bfloat16
within the usual error of float32, and how many tokens a second does it train on?

    python -m benchmarks.model_gpu                     # a GPU, 4 layers
    python -m benchmarks.model_gpu --small             # the small model's widths, on a CPU

Prints one JSON line a figure. Weights are random and fixed by the seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch

from thinking_rl.learner.packing import pack_row
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.images import ImagePatches
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.packed import PackedRow
from thinking_rl.model.tiny import TEXT, VISION, random_model
from thinking_rl.types import Conversation

REPEATS = 5


def configuration(small: bool, layers: int) -> KimiVLConfig:
    """Released widths, or the small model's, with `layers` decoder and vision layers."""
    if not small:
        text = {"num_hidden_layers": layers}
        return KimiVLConfig(text_config=text, vision_config={"num_hidden_layers": layers})
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "vocab_size": 512}
    return KimiVLConfig(
        text_config=TEXT | ids, vision_config=VISION, media_placeholder_token_id=500
    )


def batch(config: KimiVLConfig, tokens: int, grid: tuple[int, int], seed: int) -> PackedRow:
    """Four sequences of equal length, half of them with a picture; the last half in the loss."""
    generator, noise = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    media = config.media_placeholder_token_id
    conversations: list[Conversation] = []
    images: dict[str, ImagePatches] = {}
    for number in range(4):
        length = tokens // 4
        ids = torch.randint(10, media - 5, (length,), generator=generator).tolist()
        hashes: tuple[str, ...] = ()
        if number % 2 == 0:
            count = grid[0] * grid[1]
            pixels = noise.integers(0, 256, (count, 3, 14, 14), dtype=np.uint8)
            hashes = (str(number),)
            images[str(number)] = ImagePatches(str(number), grid, pixels)
            ids[1 : 1 + count // 4] = [media] * (count // 4)
        mask = tuple(place >= length // 2 for place in range(length))
        conversations.append(Conversation(tuple(ids), mask, hashes))
    return pack_row(conversations).packed(images, "cpu")


class PinnedRouting:
    """Record every router's choice, then give the same choices again: bfloat16 and float32 are
    compared on the same experts."""

    def __init__(self, model: KimiVLForConditionalGeneration):
        self.routers = [m for n, m in model.named_modules() if n.endswith("mlp.gate")]
        self.choices: list[torch.Tensor] = []

    def record(self) -> list:
        def keep(_module, _inputs, output):
            self.choices.append(output[2])

        return [router.register_forward_hook(keep) for router in self.routers]

    def replay(self) -> list:
        remaining = iter(self.choices)

        def pin(router, _inputs, output):
            chosen = next(remaining)
            weights = output[0].sigmoid().gather(1, chosen)
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
            return output[0], weights * router.routed_scaling_factor, chosen

        return [router.register_forward_hook(pin) for router in self.routers]


def compare(config: KimiVLConfig, row: PackedRow, device: str, seed: int) -> dict[str, float]:
    """Log-prob differences bfloat16 against float32 with the float32 routing pinned."""
    with torch.no_grad():
        model = random_model(config, seed).to(device).eval()  # pyright: ignore[reportArgumentType]
        pinned = PinnedRouting(model)
        hooks = pinned.record()
        exact = model.token_logprobs(row)[0]
        for hook in hooks:
            hook.remove()
        model.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.data = buffer.data.float()
        hooks = pinned.replay()
        rounded = model.token_logprobs(row)[0]
        for hook in hooks:
            hook.remove()
    difference = (rounded - exact).abs()
    return {
        "finite": bool(exact.isfinite().all() and rounded.isfinite().all()),
        "mean": float(difference.mean()),
        "largest": float(difference.max()),
        "mean_logprob": float(exact.mean()),
    }


def speed(
    config: KimiVLConfig, row: PackedRow, device: str, dtype: torch.dtype, seed: int
) -> list[float]:
    """Tokens a second, forward and backward, of each repetition after one warm-up."""
    model = random_model(config, seed).to(device, dtype).train()  # pyright: ignore[reportArgumentType]
    rates = []
    for _ in range(REPEATS + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        (-model.token_logprobs(row)[0].mean()).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(len(row.input_ids) / (time.perf_counter() - start))
        model.zero_grad(set_to_none=True)
    return rates[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the small model's widths")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    config = configuration(options.small, options.layers)
    grid = (8, 12) if options.small else (48, 64)
    row = batch(config, options.tokens, grid, options.seed).to(device)
    base = {"device": where, "torch": torch.__version__, "tokens": len(row.input_ids)}
    agreement = compare(config, row, device, options.seed)
    print(json.dumps({"figure": "bf16_against_fp32_pinned_routing", **agreement, **base}))
    for dtype in (torch.bfloat16, torch.float32):
        rates = speed(config, row, device, dtype, options.seed)
        result = {
            "figure": "forward_backward_tokens_per_s",
            "dtype": str(dtype).removeprefix("torch."),
            "median": statistics.median(rates),
            "lowest": min(rates),
            "highest": max(rates),
        }
        print(json.dumps(result | base), flush=True)


if __name__ == "__main__":
    main()
