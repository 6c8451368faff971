"""Log-probs of tokens, forward and backward, against stored logits; one JSON line a figure.

    python -m benchmarks.logprob

Float32 at the released head. Memory is the process's resident peak above inputs, head and the
head's gradient; `baseline` is `log_softmax` of all logits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.figures import figure, pairs, peak_gib
from thinking_rl.model.kernels.logprobs import token_logprobs

HIDDEN = 2048


class Case:
    """Random states, head and targets, with gradients' memory already there."""

    def __init__(self, tokens: int, vocabulary: int):
        generator = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(tokens, HIDDEN, generator=generator).requires_grad_()
        self.weight = torch.empty(vocabulary, HIDDEN).normal_(std=0.02, generator=generator)
        self.weight.requires_grad_()
        self.targets = torch.randint(vocabulary, (tokens,), generator=generator)
        self.factor = torch.randn(tokens, generator=generator)

    def ours(self) -> torch.Tensor:
        return token_logprobs(self.hidden, self.weight, self.targets)[0]

    def with_entropy(self) -> torch.Tensor:
        return token_logprobs(self.hidden, self.weight, self.targets, with_entropy=True)[0]

    def plain(self) -> torch.Tensor:
        table = F.linear(self.hidden, self.weight).log_softmax(-1)
        return table.gather(1, self.targets[:, None])[:, 0]

    def step(self, values: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Log-probs and both gradients."""
        found = values()
        loss = (found * self.factor).sum()
        return (found.detach(), *torch.autograd.grad(loss, (self.hidden, self.weight)))


def memory(case: Case, values: Callable[[], torch.Tensor]) -> float:
    """GiB above inputs, head and the head's gradient."""
    return peak_gib(lambda: case.step(values)) - case.weight.nbytes / 2**30


def difference(case: Case) -> float:
    """Largest relative difference of values and of gradients, in the norm of each."""
    ours, plain = case.step(case.with_entropy), case.step(case.plain)
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, plain, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--more-tokens", type=int, default=16384, help="for memory alone")
    parser.add_argument("--vocabulary", type=int, default=163840)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--time-only", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that others use")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    case = Case(options.tokens, options.vocabulary)
    base = {"threads": options.threads, "dtype": "float32", "vocabulary": options.vocabulary}
    base["tokens"] = options.tokens
    if not options.time_only:
        ours, plain = memory(case, case.ours), memory(case, case.plain)
        figure("logprob/memory_gib", ours, "GiB", plain, 1, **base)
        figure("logprob/difference", difference(case), "relative", 1e-5, 1, **base)
    works = [lambda values=values: case.step(values) for values in (case.ours, case.plain)]
    seconds = pairs(works[0], works[1], options.pairs, cpu_time=options.cpu_time)
    base["cpu_time"] = options.cpu_time
    figure("logprob/time", seconds[0], "s", seconds[1], options.pairs, **base)
    if options.more_tokens and not options.time_only:
        more = Case(options.more_tokens, options.vocabulary)
        base["tokens"] = options.more_tokens
        # The plain way's at so many tokens would not fit: it grows with them.
        grown = plain * options.more_tokens / options.tokens
        figure("logprob/memory_gib", memory(more, more.ours), "GiB", grown, 1, **base)


if __name__ == "__main__":
    main()
