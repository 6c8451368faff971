"""A learner's update on a small model, one process; one JSON line a figure.

    python -m benchmarks.learner prompt_once    # the prompt once against once for each response
    python -m benchmarks.learner tokens         # cost against tokens, sequences of one length

An update is forward, backward and optimizer step of `Rank.step` on rows that are at hand.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.figures import figure, pairs
from thinking_rl.learner.build import LearnerSettings
from thinking_rl.learner.packing import TrainingRow, pack_row
from thinking_rl.learner.rank import Rank
from thinking_rl.model.tiny import write_tiny
from thinking_rl.types import Conversation


def group(prompt: int, response: int, samples: int, seed: int) -> list[Conversation]:
    """Random responses of one length to a random prompt, of texts alone."""
    draw = np.random.default_rng(seed)
    first = tuple(draw.integers(200, size=prompt).tolist())
    mask = (False,) * prompt + (True,) * response
    return [
        Conversation(first + tuple(draw.integers(200, size=response).tolist()), mask, (), advantage)
        for advantage in np.linspace(-0.5, 1, samples).tolist()
    ]


class Update:
    """One optimizer step of one rank, again and again."""

    def __init__(self, rank: Rank, conversations: Sequence[Conversation]):
        self.rank = rank
        self.sequences = len(conversations)
        self.tokens = sum(sum(one.loss_mask) for one in conversations)

    def step(self, rows: Sequence[TrainingRow]) -> dict[str, float]:
        """Loss and gradient norm; the weights stay."""
        self.rank.begin_iteration([rows], {})
        return self.rank.step(0, self.sequences, self.tokens, learning_rate=0.0)


def prompt_once(rank: Rank, options: argparse.Namespace) -> None:
    """The same group in rows with and without a shared prompt."""
    conversations = group(options.prompt, options.response, options.samples, seed=0)
    update = Update(rank, conversations)
    shared, repeated = ([pack_row(conversations, prompt_once=once)] for once in (True, False))
    ours, theirs = update.step(shared), update.step(repeated)
    for name in ("loss", "grad_norm"):
        apart = abs(ours[name] - theirs[name]) / abs(theirs[name])
        figure(f"prompt_once/{name}", apart, "relative", 1e-5, 1)
    base = {"prompt": options.prompt, "response": options.response, "samples": options.samples}
    base |= {"tokens": len(shared[0].input_ids), "tokens_repeated": len(repeated[0].input_ids)}
    works = [lambda rows=rows: update.step(rows) for rows in (shared, repeated)]
    seconds = pairs(works[0], works[1], options.pairs, cpu_time=options.cpu_time)
    base |= {"threads": options.threads, "cpu_time": options.cpu_time}
    figure("prompt_once/update", seconds[0], "s", seconds[1], options.pairs, **base)


def tokens(rank: Rank, options: argparse.Namespace) -> None:
    """Sequences of one length: the cost of a row against its tokens, and how straight that is."""
    counts = [2**k * 1024 for k in range(2, 7) if 2**k <= options.most]
    seconds = []
    for count in counts:
        conversations = group(1, options.length - 1, count // options.length, seed=0)
        update, rows = Update(rank, conversations), [pack_row(conversations)]
        update.step(rows)
        taken = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            update.step(rows)
            taken.append(time.perf_counter() - start)
        seconds.append(float(np.median(taken)))
        figure("step/tokens", seconds[-1], "s", seconds[0], options.repeats, tokens=count)
    # Least squares of relative errors: each size counts alike.
    design = np.stack([np.ones(len(counts)), np.array(counts)], axis=1) / np.array(seconds)[:, None]
    (fixed, each), *_ = np.linalg.lstsq(design, np.ones(len(counts)))
    worst = max(abs(fixed + each * n - s) / s for n, s in zip(counts, seconds, strict=True))
    power = float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])
    base = {"seconds_per_1k_tokens": float(each * 1024), "fixed_s": float(fixed)}
    figure("step/linear_fit", float(worst), "relative", 1.0, len(counts), **base)
    figure("step/power", power, "exponent of tokens", 1.0, len(counts), length=options.length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prompt_once", "tokens"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that others use")
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--response", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=512, help="of each sequence, in tokens")
    parser.add_argument("--most", type=int, default=64, help="tokens of a row, in thousands")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_tiny(Path(folder) / "tiny")
        settings = LearnerSettings(
            str(checkpoint), learning_rate=0.0, tau=0.1, threads=options.threads
        )
        rank = Rank(settings, 0, 1, f"file://{folder}/meet")
        {"prompt_once": prompt_once, "tokens": tokens}[options.what](rank, options)
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
