"""Do our kernels' GPU paths start, and are their numbers right? One JSON line a figure.

    make gpu-check                                    # a GPU
    python -m benchmarks.gpu_check --device cpu       # the same checks of the CPU's paths

bfloat16 at the released widths against float64; `baseline` is the largest error that rounding
explains. Ends with 1 where one is exceeded, with 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

import torch

from benchmarks.figures import figure
from thinking_rl.model.attention import SegmentLayout, attend
from thinking_rl.model.kernels.logprobs import token_logprobs

NEEDS = (
    "no GPU: gpu-check needs one NVIDIA GPU of compute capability 8.0 or newer with 8 GiB free, a "
    "driver for the CUDA version that torch was built with, and an environment made by "
    "`make setup` on that machine"
)
LENGTHS, PREFIXES = (600, 200, 1, 333, 700), (-1, 0, 0, 0, -1)
HEADS, WIDTH, VALUE_WIDTH = 16, 192, 128
ROUNDING = 2.0**-7
"""Of a result in bfloat16 whose inner products are rounded once more, relative in the norm."""


def error(measured: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative, in the norm."""
    measured, exact = measured.detach().double(), exact.detach().double()
    return float((measured - exact).norm() / exact.norm())


def logprobs(device: str) -> Iterator[tuple[str, float]]:
    """Log-probs and their gradients against stored logits."""
    draw = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(1100, 2048, generator=draw, device=device, dtype=torch.bfloat16)
    weight = torch.randn(9_000, 2048, generator=draw, device=device, dtype=torch.bfloat16) * 0.02
    targets = torch.randint(9_000, (1100,), generator=draw, device=device)
    inputs = hidden.requires_grad_(), weight.requires_grad_()
    values, entropy = token_logprobs(*inputs, targets, with_entropy=True)
    table = (hidden.double() @ weight.double().t()).log_softmax(-1)
    exact = table.gather(1, targets[:, None])[:, 0]
    yield "logprobs", error(values, exact)
    yield "entropy", error(entropy, -(table.exp() * table).sum(-1))
    slopes = torch.autograd.grad(values.sum(), inputs)
    expected = torch.autograd.grad(exact.sum(), inputs)
    for name, mine, theirs in zip(("hidden", "head"), slopes, expected, strict=True):
        yield f"gradient of the {name}", error(mine, theirs)


def attention(device: str) -> Iterator[tuple[str, float]]:
    """Three continuations of one segment, and a segment alone, against all scores."""
    draw = torch.Generator(device).manual_seed(0)
    inputs = [
        torch.randn(
            sum(LENGTHS), HEADS, width, generator=draw, device=device, dtype=torch.bfloat16
        ).requires_grad_()
        for width in (WIDTH, WIDTH, VALUE_WIDTH)
    ]
    query, key, value = inputs
    layout = SegmentLayout(LENGTHS, device, causal=True, prefixes=PREFIXES)
    out = attend(query, key, value, layout, WIDTH**-0.5)
    segment = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    place = torch.arange(sum(LENGTHS))
    own = (segment[:, None] == segment) & (place[:, None] >= place)
    seen = (own | (torch.tensor(PREFIXES)[segment][:, None] == segment)).to(device)
    scores = torch.einsum("ihd,jhd->hij", query.double(), key.double()) * WIDTH**-0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    exact = torch.einsum("hij,jhd->ihd", weights, value.double())
    yield "attention", error(out, exact)
    factor = torch.randn(out.shape, generator=draw, device=device)
    slopes = torch.autograd.grad((out * factor).sum(), inputs)
    expected = torch.autograd.grad((exact * factor).sum(), inputs)
    for name, mine, theirs in zip(("query", "key", "value"), slopes, expected, strict=True):
        yield f"gradient of the {name}", error(mine, theirs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        print(NEEDS, file=sys.stderr)
        return 2
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        where = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
        print(json.dumps(where | {"free_gib": free / 2**30, "total_gib": total / 2**30}))
    worst = 0.0
    for check in (logprobs, attention):
        for name, value in check(device):
            figure(f"gpu_check/{check.__name__}/{name}", value, "relative", ROUNDING, 1)
            worst = max(worst, value)
    return int(not worst <= ROUNDING)


if __name__ == "__main__":
    raise SystemExit(main())
