"""How closely vLLM and our model agree, one JSON line a figure: `python -m benchmarks.agreement`.

The same weights on both sides, float32, sampled responses: log-probs of every response token, for
text, one image, three images of different sizes, and a picture that the token limit shrinks; again
after each of several publications of changed weights, and of the same weights twice.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rollouts.collect import collect
from rollouts.engine import Completion, Engine, EngineSettings, Request, checkpoint_settings
from rollouts.prompts import Prompt, Sampling, render_prompt
from thinking_rl.learner.packing import pack_row, split_by_tokens
from thinking_rl.model.buckets import make_bucket
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.processing import KimiVLProcessor, load_processor
from thinking_rl.model.tiny import write_tiny
from thinking_rl.model.weights import full_tensors, load_released, save_released
from thinking_rl.publication.agreement import Agreement, measure
from thinking_rl.types import Conversation, Problem

IMAGE_TOKEN_LIMIT = 48
"""Patches; the larger picture below has 20 x 15 and is shrunk."""
SAMPLING = Sampling(samples=8, max_response_tokens=24, temperature=1.0)
TOKENS_PER_ROW = 2048
TENSORS_PER_BUCKET = 20
SHARPNESS = 4
"""Factor on a fresh model's matrices; without it, it hardly looks at its prompt."""
CHANGE = 0.05
"""Noise of a publication, as a share of each tensor's own spread."""


def picture(width: int, height: int, seed: int = 0) -> bytes:
    """A PNG of noise: no two places look alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def problems() -> dict[str, Problem]:
    """One problem of each kind of prompt."""
    three = (picture(28, 28, 1), picture(84, 30, 2), picture(45, 70, 3))
    return {
        "text": Problem("text", "What is 12 + 30?", "42"),
        "one image": Problem("one", "Add the digits.", "7", images=(picture(56, 84),)),
        "three images": Problem(
            "three", "Is <image2> wider than <image1> and <image3>?", "A", three
        ),
        "shrunk image": Problem("shrunk", "How many?", "3", images=(picture(280, 210, 4),)),
    }


def render_problems(processor: KimiVLProcessor, images: ImageStore) -> dict[str, Prompt]:
    """The prompts of `problems`."""
    return {name: render_prompt(processor, images, one) for name, one in problems().items()}


@dataclass(frozen=True)
class LocalEngine:
    """An engine of this process, in place of a pool."""

    engine: Engine
    """Answers."""
    images: ImageStore
    """Where the requests' hashes are known."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """The answers, in the order of the requests."""
        hashes = [key for request in requests for key in request.image_hashes]
        return self.engine.generate(requests, self.images.shared(hashes))


def write_sharp(folder: str | Path, seed: int = 0) -> Path:
    """A small random checkpoint whose answers depend on every part of the model."""
    write_tiny(folder, seed=seed)
    reference = Reference(folder)
    with torch.no_grad():
        for parameter in reference.model.parameters():
            if parameter.ndim > 1:
                parameter *= SHARPNESS
    save_released(full_tensors(reference.model), folder)
    return Path(folder)


def engine_settings(checkpoint: str | Path, **changes) -> EngineSettings:
    """Settings of a small engine on the CPU."""
    small = {"max_model_tokens": 256, "image_token_limit": IMAGE_TOKEN_LIMIT}
    return checkpoint_settings(checkpoint, **(small | changes))


class Reference:
    """Our own model in this process, in place of the learner."""

    def __init__(self, checkpoint: str | Path, dtype: torch.dtype = torch.float32):
        self.processor = load_processor(checkpoint, IMAGE_TOKEN_LIMIT)
        self.images = ImageStore(self.processor.image_processor)
        self.model = KimiVLForConditionalGeneration(KimiVLConfig.from_pretrained(checkpoint))
        self.model = self.model.to(dtype).eval()  # pyright: ignore[reportArgumentType]
        load_released(self.model, checkpoint)

    @torch.no_grad()
    def scores(
        self, conversations: Sequence[Conversation]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Log-probs of each conversation's tokens in the loss, and entropies, from packed rows."""
        results = []
        lengths = [len(one.token_ids) for one in conversations]
        for indices in split_by_tokens(lengths, TOKENS_PER_ROW):
            chosen = [conversations[i] for i in indices]
            row = pack_row(chosen)
            patches = self.images.shared(row.image_hashes)
            counts = [sum(one.loss_mask) for one in chosen]
            both = self.model.token_logprobs(row.packed(patches, "cpu"))
            results += zip(*(values.split(counts) for values in both), strict=True)
        return results

    @torch.no_grad()
    def change(self, seed: int) -> None:
        """Move every weight a little, the routers' correction biases too."""
        generator = torch.Generator().manual_seed(seed)
        for tensor in self.model.state_dict().values():
            spread = tensor.float().std().nan_to_num() + 1e-3
            tensor += CHANGE * spread * torch.randn(tensor.shape, generator=generator)

    def buckets(self) -> Iterator[list[tuple[str, torch.Tensor]]]:
        """All weights under released names, as a pool hands them to an engine."""
        tensors = list(full_tensors(self.model))
        for start in range(0, len(tensors), TENSORS_PER_BUCKET):
            yield make_bucket(tensors[start : start + TENSORS_PER_BUCKET]).tensors()

    def publish(self, engine: Engine) -> None:
        """Give an engine these weights."""
        engine.update_weights(self.buckets(), engine.version + 1)


def agreement(
    engine: Engine,
    reference: Reference,
    prompts: Mapping[str, Prompt],
    sampling: Sampling = SAMPLING,
) -> dict[str, Agreement]:
    """Sample each prompt with the engine, and compare with our model."""
    results = {}
    for name, prompt in prompts.items():
        local = LocalEngine(engine, reference.images)
        groups = collect(local, reference.processor, [prompt], sampling)
        results[name] = measure(reference, groups)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="a folder; by default a small random model")
    parser.add_argument("--publications", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = options.checkpoint or write_sharp(Path(scratch) / "sharp")
        engine = Engine(engine_settings(checkpoint))
        reference = Reference(checkpoint)
        prompts = render_problems(reference.processor, reference.images)

        def show(weights: str) -> None:
            for name, found in agreement(engine, reference, prompts).items():
                figures = {"largest": found.largest, "mean": found.mean, "tokens": found.tokens}
                print(json.dumps({"weights": weights, "prompt": name, **figures}), flush=True)

        show("as loaded")
        for number in range(1, options.publications + 1):
            reference.change(seed=number)
            reference.publish(engine)
            show(f"changed, publication {number}")
        for number in (1, 2):
            reference.publish(engine)
            show(f"unchanged, publication {number} of 2")


if __name__ == "__main__":
    main()
