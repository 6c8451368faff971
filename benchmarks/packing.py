"""How full rows are and how even ranks, by simulation; one JSON line a figure.

    python -m benchmarks.packing

Response lengths are lognormal with mean 6,000 and a cap of 32,768 tokens, on 8 ranks; cost is that
of the released model (`thinking_rl.learner.cost`). A row is full at the cost of as many tokens as
it may have, of the mixture at hand; a dearer one counts as full. `baseline` cuts rows in order and
deals them round.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np

from benchmarks.figures import figure
from thinking_rl.learner.cost import Cost, cost_of
from thinking_rl.learner.packing import split_by_tokens
from thinking_rl.learner.rows import Size, needs, pack_by_cost, step_cost
from thinking_rl.model.configuration import KimiVLConfig

MEAN, CAP, SIGMA = 6000, 32768, 0.9
RANKS, SAMPLES, PROMPT = 8, 8, 600
TOKENS_PER_ROW = 49152


def responses(count: int, prompt: int, seed: int) -> list[Size]:
    """Responses of groups of `SAMPLES`, prompts included."""
    draw = np.random.default_rng(seed)
    lengths = np.exp(draw.normal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, count)).clip(16, CAP)
    family = [i // SAMPLES if prompt else i for i in range(count)]
    return [Size(i, prompt + int(n), prompt, family[i]) for i, n in enumerate(lengths)]


def balance(rows: Sequence[Sequence[Size]], cost: Cost) -> float:
    """Work of all ranks over what they wait for."""
    total = sum(needs(row, cost)[1] for row in rows)
    return total / (RANKS * step_cost(rows, RANKS, cost))


def fill(rows: Sequence[Sequence[Size]], cost: Cost) -> float:
    """Work of the rows over what they could hold."""
    found = [needs(row, cost) for row in rows]
    by_token = sum(total for _, total in found) / sum(tokens for tokens, _ in found)
    return statistics.mean(min(1.0, total / (by_token * TOKENS_PER_ROW)) for _, total in found)


def in_order(sizes: Sequence[Size]) -> list[list[Size]]:
    """Rows cut in order, each prompt repeated."""
    cut = split_by_tokens([one.length for one in sizes], TOKENS_PER_ROW)
    rows = [[Size(i, sizes[i].length, family=i) for i in row] for row in cut]
    return rows + [[] for _ in range(-len(rows) % RANKS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    cost = cost_of(KimiVLConfig().text_config)
    for count in (256, 1024):
        for prompt in (0, PROMPT):
            found, before = [], []
            for seed in range(options.seeds):
                sizes = responses(count, prompt, seed)
                rows = pack_by_cost(sizes, TOKENS_PER_ROW, RANKS, cost)
                for results, packed in ((found, rows), (before, in_order(sizes))):
                    results.append((fill(packed, cost), balance(packed, cost)))
            for place, name in enumerate(("packing/fill", "packing/balance")):
                ours, theirs = (statistics.median(x[place] for x in y) for y in (found, before))
                base = {"responses": count, "prompt_once": bool(prompt)}
                figure(name, ours, "share", theirs, options.seeds, **base)


if __name__ == "__main__":
    main()
