"""One vLLM engine in this process: sampling, and taking new weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rollouts.vllm_workarounds import (
    WorkerExtension,
    engine_arguments,
    float32_router_on_cpu,
    set_environment,
)
from thinking_rl.model.images import ImagePatches
from thinking_rl.model.processing import load_processor
from thinking_rl.types import FinishReason, Segment


@dataclass(frozen=True)
class EngineSettings:
    """What an engine needs to know of the recipe."""

    checkpoint: str
    """Folder of released weights, with configuration and tokenizer."""
    dtype: str
    """Of the model: `float32` or `bfloat16`."""
    max_model_tokens: int
    """Prompt and response together."""
    max_sequences: int
    """Sequences decoded at once."""
    max_images: int
    """Most images in one prompt."""
    seed: int
    """Of the generator that samples what comes without a seed of its own."""
    media_token_id: int
    """Of `<|media_pad|>`, which is never sampled."""
    stop_token_ids: tuple[int, ...]
    """Sampling one of them ends a response."""
    image_token_limit: int | None = None
    """Most patches an image may have; None: the checkpoint's."""
    tensor_parallel: int = 1
    """GPUs that the weights are split over."""
    gpu_memory_share: float = 0.85
    """Share of each GPU's memory that the engine takes, weights and key-value cache together."""
    kv_cache_gib: int = 1
    """Key-value cache on a machine without a GPU."""
    threads: int = 1
    """CPU threads, on a machine without a GPU."""
    on_cpu: bool = True
    """Whether the machine has no GPU."""
    sleeps: bool = False
    """Whether the engine gives its device memory back while the learner steps."""


def checkpoint_settings(checkpoint: str | Path, **changes: Any) -> EngineSettings:
    """Settings of a single engine for a checkpoint folder, on a CPU; `changes` to any of them."""
    ids = load_processor(checkpoint).tokenizer.special_token_ids
    settings = EngineSettings(
        checkpoint=str(checkpoint),
        dtype="float32",
        max_model_tokens=1024,
        max_sequences=32,
        max_images=4,
        seed=0,
        media_token_id=ids["<|media_pad|>"],
        stop_token_ids=(ids["<|im_end|>"], ids["[EOS]"]),
    )
    return replace(settings, **changes)


@dataclass(frozen=True)
class Request:
    """A prompt to answer `samples` times."""

    prompt_ids: tuple[int, ...]
    """Rendered prompt, each image's placeholders expanded; with what was sampled before, where a
    response goes on."""
    image_hashes: tuple[str, ...]
    """Keys of the images in the image store, in the order of their placeholders."""
    samples: int
    """Responses."""
    max_response_tokens: int
    """Longest response."""
    temperature: float
    """0: greedy."""
    top_p: float = 1.0
    """Share of the probability that tokens are drawn from, the likeliest first."""
    seed: int | None = None
    """Fixes the samples of this request; None: the engine's generator goes on."""


@dataclass(frozen=True)
class Completion:
    """One sampled response."""

    segment: Segment
    """Its tokens, log-probs and policy."""
    finish_reason: FinishReason
    """Why it ended."""


class Engine:
    """vLLM with the workarounds in place. Build it once a process."""

    def __init__(self, settings: EngineSettings):
        set_environment(
            on_cpu=settings.on_cpu, threads=settings.threads, kv_cache_gib=settings.kv_cache_gib
        )
        from vllm import LLM

        import thinking_rl.model  # noqa: F401 (registers configuration and processor)
        from rollouts.vllm_plugin import register

        register()
        if settings.on_cpu:
            float32_router_on_cpu()
        self.settings = settings
        self.version = 0
        self.llm = LLM(
            settings.checkpoint,
            dtype=settings.dtype,  # pyright: ignore[reportArgumentType]
            seed=settings.seed,
            max_model_len=settings.max_model_tokens,
            max_num_seqs=settings.max_sequences,
            tensor_parallel_size=settings.tensor_parallel,
            # Inside a Ray actor vLLM would want bundles of one GPU each; an engine's is one bundle.
            distributed_executor_backend="mp" if settings.tensor_parallel > 1 else None,
            gpu_memory_utilization=settings.gpu_memory_share,
            limit_mm_per_prompt={"image": settings.max_images},
            mm_processor_kwargs=_image_limit(settings),
            mm_processor_cache_gb=0,  # pictures come cut, from the image store
            worker_extension_cls=f"{WorkerExtension.__module__}.{WorkerExtension.__name__}",
            enable_sleep_mode=settings.sleeps,
            enforce_eager=settings.on_cpu,
            disable_log_stats=True,
            **engine_arguments(on_cpu=settings.on_cpu),
        )

    def generate(
        self, requests: Sequence[Request], images: Mapping[str, ImagePatches]
    ) -> list[list[Completion]]:
        """Sample every request; for each the list of its completions.

        Log-probs are the model's own (temperature 1, nothing banned). Where every request has a
        seed, the engine's generator is left as it was.

        Args:
            images: patches by hash, of the requests' images at least.

        Raises:
            ValueError: a prompt has not the placeholders that its images need, or leaves no room
                for a response.
        """
        prompts = [self._prompt(request, images) for request in requests]
        engine = self.llm.llm_engine
        names = [str(number) for number in range(len(requests))]
        try:
            for name, request, prompt in zip(names, requests, prompts, strict=True):
                engine.add_request(name, prompt, self._sampling(request))
        except BaseException:
            engine.abort_request(names)  # none is left behind for the next call
            raise
        results: dict[str, list[Completion]] = {}
        seeded = all(request.seed is not None for request in requests)
        # On a CPU vLLM draws from the common generator even for requests that have their own.
        with torch.random.fork_rng(devices=[]) if seeded else nullcontext():
            while engine.has_unfinished_requests():
                for output in engine.step():
                    results[output.request_id] = self._completions(output.outputs)
        return [results[name] for name in names]

    def _completions(self, samples: Any) -> list[Completion]:
        return [self._completion(one) for one in sorted(samples, key=lambda one: one.index)]

    def _prompt(self, request: Request, images: Mapping[str, ImagePatches]) -> Any:
        """The prompt as vLLM has it once it is processed: nothing is left for it to expand."""
        from vllm.inputs.engine import tokens_input

        room = self.settings.max_model_tokens - len(request.prompt_ids)
        if room < 1:
            raise ValueError(
                f"a prompt has {len(request.prompt_ids)} tokens and rollout.max_model_tokens is "
                f"{self.settings.max_model_tokens}; raise it or lower model.image_token_limit"
            )
        runs = placeholder_runs(request.prompt_ids, self.settings.media_token_id)
        needed = [images[key].num_tokens for key in request.image_hashes]
        if [length for _, length in runs] != needed:
            raise ValueError(
                f"a prompt has runs of {[length for _, length in runs]} image placeholders, but "
                f"its {len(needed)} image(s) need {needed}; render prompt and images together"
            )
        if not runs:
            return tokens_input(list(request.prompt_ids))
        dtype = getattr(torch, self.settings.dtype)
        return _with_images(request, runs, [images[key] for key in request.image_hashes], dtype)

    def _sampling(self, request: Request):
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        room = self.settings.max_model_tokens - len(request.prompt_ids)
        sampling = SamplingParams(
            n=request.samples,
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=min(request.max_response_tokens, room),
            seed=request.seed,
            logprobs=0,
            stop_token_ids=list(self.settings.stop_token_ids),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        # Set after the fact: the constructor would clip the bias to -100.
        sampling.logit_bias = {self.settings.media_token_id: -math.inf}
        return sampling

    def _completion(self, sample) -> Completion:
        logprobs = [
            entry[token].logprob
            for entry, token in zip(sample.logprobs, sample.token_ids, strict=True)
        ]
        stopped = sample.finish_reason == "stop"
        return Completion(
            Segment(tuple(sample.token_ids), tuple(logprobs), self.version),
            FinishReason.STOP if stopped else FinishReason.LENGTH,
        )

    def update_weights(
        self, buckets: Iterable[Sequence[tuple[str, torch.Tensor]]], version: int
    ) -> None:
        """Take all weights anew, under released names, and drop what was computed with the old."""
        self.llm.collective_rpc("begin_update")
        for bucket in buckets:
            self.llm.collective_rpc("load_bucket", args=(bucket,))
        self.llm.collective_rpc("end_update")
        self.llm.llm_engine.engine_core.reset_encoder_cache()
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be dropped: requests are still running")
        self.version = version

    def sleep(self) -> None:
        """Give device memory back (weights and key-value cache), where the engine may."""
        if self.settings.sleeps:
            self.llm.sleep(level=2)

    def wake(self, part: str) -> None:
        """Take memory for `weights` or `kv_cache` again after `sleep`."""
        if self.settings.sleeps:
            self.llm.wake_up(tags=[part])


def placeholder_runs(token_ids: Sequence[int], media_token_id: int) -> list[tuple[int, int]]:
    """(first place, length) of each run of `<|media_pad|>`: one run for each image."""
    runs: list[tuple[int, int]] = []
    for place, token_id in enumerate(token_ids):
        if token_id != media_token_id:
            continue
        if runs and sum(runs[-1]) == place:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((place, 1))
    return runs


def _with_images(
    request: Request,
    runs: Sequence[tuple[int, int]],
    images: Sequence[ImagePatches],
    dtype: torch.dtype,
) -> Any:
    from transformers import BatchFeature
    from vllm.inputs.engine import mm_input
    from vllm.multimodal.inputs import (
        MultiModalFieldConfig,
        MultiModalKwargsItems,
        PlaceholderRange,
    )

    grids = torch.tensor([image.grid_hw for image in images])
    values = torch.cat([image.pixel_values for image in images]).to(dtype)
    fields = {
        "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", grids.prod(-1)),
        "image_grid_hws": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
    }
    features = BatchFeature({"pixel_values": values, "image_grid_hws": grids})
    return mm_input(
        list(request.prompt_ids),
        mm_kwargs=MultiModalKwargsItems.from_hf_inputs(features, fields),
        mm_hashes={"image": list(request.image_hashes)},
        mm_placeholders={"image": [PlaceholderRange(offset=at, length=n) for at, n in runs]},
    )


def _image_limit(settings: EngineSettings) -> dict | None:
    limit = settings.image_token_limit
    return None if limit is None else {"in_token_limit": limit}
