"""One vLLM engine in this process: sampling, and taking new weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from rollouts.vllm_workarounds import (
    WorkerExtension,
    engine_arguments,
    float32_router_on_cpu,
    set_environment,
)
from thinking_rl.types import FinishReason, Segment


@dataclass(frozen=True)
class EngineSettings:
    """What an engine needs to know of the recipe."""

    checkpoint: str
    dtype: str
    max_model_tokens: int
    max_sequences: int
    max_images: int
    seed: int
    media_token_id: int
    """never sampled"""
    stop_token_ids: tuple[int, ...]
    image_token_limit: int | None = None
    """most patches an image may have; None: the checkpoint's"""
    tensor_parallel: int = 1
    gpu_memory_share: float = 0.85
    kv_cache_gib: int = 1
    threads: int = 1
    on_cpu: bool = True
    sleeps: bool = False
    """whether the engine gives its device memory back between iterations"""


@dataclass(frozen=True)
class Request:
    """A prompt to answer `samples` times."""

    prompt_ids: tuple[int, ...]
    """rendered prompt, each picture's placeholders expanded"""
    collapsed_ids: tuple[int, ...]
    """the same with one placeholder a picture, the form that vLLM expands itself"""
    images: tuple[Image.Image, ...]
    """in the order of their placeholders"""
    samples: int
    max_tokens: int
    temperature: float
    top_p: float = 1.0
    seed: int | None = None
    """fixes the samples of this request; None: the engine's generator"""


@dataclass(frozen=True)
class Completion:
    """One sampled response."""

    segment: Segment
    finish_reason: FinishReason


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
            worker_extension_cls=f"{WorkerExtension.__module__}.{WorkerExtension.__name__}",
            enable_sleep_mode=settings.sleeps,
            enforce_eager=settings.on_cpu,
            disable_log_stats=True,
            **engine_arguments(on_cpu=settings.on_cpu),
        )
        self.llm.collective_rpc("prepare_model")

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Sample every request; for each the list of its completions.

        Log-probs are the model's own (temperature 1, nothing banned).

        Raises:
            ValueError: vLLM's expansion of a prompt has another number of placeholders than ours,
                or a prompt leaves no room for a response.
        """
        outputs = self.llm.generate(
            [self._prompt(request) for request in requests],  # pyright: ignore[reportArgumentType]
            [self._sampling(request) for request in requests],
            use_tqdm=False,
        )
        results = []
        for request, output in zip(requests, outputs, strict=True):
            ours, theirs = len(request.prompt_ids), len(output.prompt_token_ids or ())
            if list(request.prompt_ids) != output.prompt_token_ids:
                raise ValueError(
                    f"the engine reads a prompt of {theirs} tokens where the learner reads {ours}; "
                    "the checkpoint's preprocessor_config.json and the processor disagree"
                )
            results.append([self._completion(sample) for sample in output.outputs])
        return results

    def _prompt(self, request: Request):
        room = self.settings.max_model_tokens - len(request.prompt_ids)
        if room < 1:
            raise ValueError(
                f"a prompt has {len(request.prompt_ids)} tokens and rollout.max_model_tokens is "
                f"{self.settings.max_model_tokens}; raise it or lower model.image_token_limit"
            )
        prompt: dict = {"prompt_token_ids": list(request.collapsed_ids)}
        if request.images:
            prompt["multi_modal_data"] = {"image": list(request.images)}
        return prompt

    def _sampling(self, request: Request):
        from vllm import SamplingParams

        room = self.settings.max_model_tokens - len(request.prompt_ids)
        sampling = SamplingParams(
            n=request.samples,
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=min(request.max_tokens, room),
            seed=request.seed,
            logprobs=0,
            stop_token_ids=list(self.settings.stop_token_ids),
            detokenize=False,
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
        self.llm.reset_mm_cache()
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


def _image_limit(settings: EngineSettings) -> dict | None:
    limit = settings.image_token_limit
    return None if limit is None else {"in_token_limit": limit}
