"""An optimizer step of ours against one of TRL's GRPOTrainer, one JSON line a figure.

    python -m benchmarks.step_vs_trl pictures   # prompts of about 600 tokens with one picture
    python -m benchmarks.step_vs_trl text       # prompts of 30 tokens

Both take the same small Kimi-VL, the same 8 problems with 8 responses (long-tailed, median 200,
longest 2,000 tokens) and the same advantages, in float32 with the same threads, without a reference
model and without activation checkpointing; both make one optimizer step on all 64, with AdamW. Each
setting runs in a process of its own. TRL's trainer is tried at micro-batches of 1, 2, 4 and 8, and
the best is measured again; it pads all to the longest completion of the generation batch. `trimmed`
is the same trainer with each micro-batch cut to its own longest, which it does not do itself.

TRL finds last hidden states by `model.base_model`, which Kimi-VL here does not have, and calls its
picture argument `image_grid_thw` and its placeholder `image_token_id`: `ForTrl` and its
configuration have these, and nothing else is changed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.figures import CLEAR, STATUS, figure
from thinking_rl.model.images import ImagePatches
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.tiny import write_tiny
from thinking_rl.types import Conversation

PROBLEMS, SAMPLES = 8, 8
MEDIAN, SIGMA, LONGEST = 200, 1.0, 2000
GRID = (40, 48)
"""Patches of the picture; a quarter as many tokens."""
TEXT = {"pictures": 120, "text": 30}
"""Words of the prompt, in tokens."""
RIVALS = ("trl 1", "trl 2", "trl 4", "trl 8", "trimmed 1", "trimmed 2", "trimmed 4", "trimmed 8")


class Batch(NamedTuple):
    """What both are given."""

    conversations: list[Conversation]
    """64, of 8 families."""
    images: dict[str, ImagePatches]
    """By hash."""


def make_batch(kind: str, media_token: int, seed: int) -> Batch:
    """Prompts and responses of random tokens."""
    draw = np.random.default_rng(seed)
    lengths = np.exp(draw.normal(np.log(MEDIAN), SIGMA, PROBLEMS * SAMPLES)).clip(8, LONGEST)
    lengths[draw.integers(len(lengths))] = LONGEST
    conversations, images = [], {}
    for problem in range(PROBLEMS):
        hashes: tuple[str, ...] = ()
        prompt = tuple(draw.integers(200, size=TEXT[kind]).tolist())
        if kind == "pictures":
            hashes = (f"picture {problem}",)
            pixels = draw.integers(256, size=(GRID[0] * GRID[1], 3, 14, 14), dtype=np.uint8)
            images[hashes[0]] = ImagePatches(hashes[0], GRID, pixels)
            prompt = (media_token,) * (GRID[0] * GRID[1] // 4) + prompt
        for sample in range(SAMPLES):
            length = int(lengths[problem * SAMPLES + sample])
            ids = prompt + tuple(draw.integers(200, size=length).tolist())
            mask = (False,) * len(prompt) + (True,) * length
            advantage = float(draw.normal())
            conversations.append(Conversation(ids, mask, hashes, advantage))
    return Batch(conversations, images)


def ours(checkpoint: Path, batch: Batch, options: argparse.Namespace) -> list[float]:
    """Seconds of each step: packing, forward, backward, clipping, AdamW."""
    from thinking_rl.learner.build import LearnerSettings
    from thinking_rl.learner.cost import cost_of
    from thinking_rl.learner.group import deal
    from thinking_rl.learner.packing import pack_row
    from thinking_rl.learner.rank import Rank

    settings = LearnerSettings(
        str(checkpoint), learning_rate=1e-6, tau=0.1, threads=options.threads
    )
    rank = Rank(settings, 0, 1, f"file://{checkpoint}/meet")
    cost = cost_of(rank.model.config.text_config)
    tokens = sum(sum(one.loss_mask) for one in batch.conversations)
    seconds = []
    for _ in range(options.repeats + 1):
        started = time.perf_counter()
        [shares] = deal(batch.conversations, options.row_tokens, 1, cost, prompt_once=True)
        rows = [
            pack_row([batch.conversations[i] for i in share], prompt_once=True) for share in shares
        ]
        rank.begin_iteration([rows], batch.images)
        rank.step(0, len(batch.conversations), tokens)
        rank.release()
        seconds.append(time.perf_counter() - started)
    torch.distributed.destroy_process_group()
    return seconds[1:]


class Backbone:
    """Last hidden states, as TRL asks for them."""

    def __init__(self, model: KimiVLForConditionalGeneration) -> None:
        self.model = model

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any) -> Any:
        grids = more.pop("image_grid_thw", None)
        pairs = None if grids is None else [(int(h), int(w)) for _, h, w in grids.tolist()]
        embeds = self.model.embed(input_ids, more.pop("pixel_values", None), pairs)
        decoder = self.model.language_model.model
        return decoder(inputs_embeds=embeds, attention_mask=attention_mask, **more)


class ForTrl(KimiVLForConditionalGeneration):
    """Kimi-VL with the property that TRL's fused head looks for."""

    @property
    def base_model(self) -> Any:
        return Backbone(self)


def padded(batch: Batch, pad: int) -> dict[str, Any]:
    """The batch as TRL scores it: prompts padded on the left, completions on the right."""
    prompts, completions = [], []
    for one in batch.conversations:
        split = one.loss_mask.index(True)
        prompts.append(one.token_ids[:split])
        completions.append(one.token_ids[split:])
    widths = max(map(len, prompts)), max(map(len, completions))
    before = torch.tensor([(pad,) * (widths[0] - len(p)) + p for p in prompts])
    after = torch.tensor([c + (pad,) * (widths[1] - len(c)) for c in completions])
    real = torch.tensor([len(c) for c in completions])
    inputs: dict[str, Any] = {
        "prompt_ids": before,
        "prompt_mask": (before != pad).long(),
        "completion_ids": after,
        "completion_mask": (torch.arange(widths[1]) < real[:, None]).long(),
        "advantages": torch.tensor([one.advantage for one in batch.conversations]),
        "num_items_in_batch": real.sum(),
    }
    if batch.images:
        pictures = [batch.images[one.image_hashes[0]] for one in batch.conversations]
        inputs["pixel_values"] = torch.cat([one.pixel_values for one in pictures])
        inputs["image_grid_thw"] = torch.tensor([(1, *one.grid_hw) for one in pictures])
        inputs["num_images"] = [1] * len(pictures)
    return inputs


def trl(
    checkpoint: Path, batch: Batch, options: argparse.Namespace, size: int, trim: bool
) -> list[float]:
    """Seconds of each optimizer step of TRL's trainer, handing out the completions included."""
    from datasets import Dataset
    from transformers import AutoProcessor, TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    torch.set_num_threads(options.threads)
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = ForTrl.from_pretrained(checkpoint, dtype=torch.float32)
    model.config.image_token_id = model.config.media_placeholder_token_id
    pad = processor.tokenizer.pad_token_id
    started, seconds = [0.0], []

    class Given(GRPOTrainer):
        """Completions and rewards come from outside."""

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            return padded(batch, pad)

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            if trim:
                longest = int(inputs["completion_mask"].sum(1).max())
                names = ("completion_ids", "completion_mask")
                inputs = {**inputs, **{name: inputs[name][:, :longest] for name in names}}
            return super()._compute_loss(model, inputs)

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            started[0] = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - started[0])

    count = len(batch.conversations)
    settings = GRPOConfig(
        output_dir=str(checkpoint / "trl"),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=count // size,
        steps_per_generation=count // size,
        num_generations=SAMPLES,
        max_completion_length=LONGEST,
        max_steps=options.repeats + 1,
        learning_rate=1e-6,
        beta=0.0,
        max_grad_norm=1.0,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )
    prompt = [{"role": "user", "content": "?"}]
    trainer = Given(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": [prompt] * count}),
        processing_class=processor,
        callbacks=[Clock()],
    )
    trainer.train()
    return seconds[1:]


def run_one(setting: str, options: argparse.Namespace) -> None:
    """One setting, in this process: prints seconds of a step and memory above the weights."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_tiny(Path(folder) / "tiny")
        media = json.loads((checkpoint / "config.json").read_text())["media_placeholder_token_id"]
        batch = make_batch(options.kind, media, seed=0)
        CLEAR.write_text("5")
        before = resident_gib("VmRSS")
        name, _, size = setting.partition(" ")
        if name == "ours":
            seconds = ours(checkpoint, batch, options)
        else:
            seconds = trl(checkpoint, batch, options, int(size), trim=name == "trimmed")
        memory = resident_gib("VmHWM") - before
    median = statistics.median(seconds)
    spread = [min(seconds), max(seconds)]
    print(json.dumps({"seconds": median, "spread": spread, "memory": memory}))


def resident_gib(field: str) -> float:
    """Of this process."""
    [line] = [one for one in STATUS.read_text().splitlines() if one.startswith(field)]
    return int(line.split()[1]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=tuple(TEXT))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--row-tokens", type=int, default=8192, help="of ours, a row")
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.one, options)
        return
    mine = measured("ours", options.repeats)
    conditions = {"threads": options.threads, "row_tokens": options.row_tokens}
    count = PROBLEMS * SAMPLES
    for name in ("trl", "trimmed"):
        tried = {s: measured(s, 1) for s in options.rivals if s.startswith(name)}
        if not tried:
            continue
        best = min(tried, key=lambda setting: tried[setting]["seconds"])
        theirs = measured(best, options.repeats)
        more = conditions | {"against": best, "spread_s": theirs["spread"]}
        rates = count / mine["seconds"], count / theirs["seconds"]
        label = f"step/{options.kind}"
        figure(label, rates[0], "samples/s", rates[1], options.repeats, **more)
        figure(f"{label}/memory", mine["memory"], "GiB", theirs["memory"], 1, **more)
    print(f"ours: {mine}", file=sys.stderr)


def measured(setting: str, repeats: int) -> dict[str, Any]:
    """What `run_one` says of a setting, in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.step_vs_trl", *sys.argv[1:], "--one", setting]
    line += ["--repeats", str(repeats)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=3000, check=False)
    if done.returncode:
        sys.exit(f"{setting}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{setting}: {found}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
