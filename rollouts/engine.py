"""One vLLM engine in this process: requests come and go while others run, weights change."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rollouts.repetition import LONGEST_PERIOD, LoopDetector
from rollouts.vllm_workarounds import (
    WorkerExtension,
    engine_arguments,
    float32_router_on_cpu,
    set_environment,
)
from thinking_rl.model.images import ImagePatches
from thinking_rl.model.processing import load_processor
from thinking_rl.types import FinishReason, Segment

LOOK_EVERY = 32
"""Steps after which looping responses are ended."""
LOOP_MEMORY = 5 * LONGEST_PERIOD
"""Tokens of a response that goes on which its loop may have begun in."""


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
    """A prompt to answer once, or a response to go on with."""

    prompt_ids: tuple[int, ...]
    """Rendered prompt, each image's placeholders expanded."""
    image_hashes: tuple[str, ...]
    """Keys of the images in the image store, in the order of their placeholders."""
    max_response_tokens: int
    """Most tokens to sample now."""
    temperature: float
    """0: greedy."""
    seed: int
    """Fixes the noise that is drawn for it."""
    top_p: float = 1.0
    """Share of the probability that tokens are drawn from, the likeliest first."""
    sampled_ids: tuple[int, ...] = ()
    """What was sampled of the response before, where it goes on."""


@dataclass(frozen=True)
class Progress:
    """What became of a request since it was last spoken of."""

    name: str
    """Of the request."""
    segment: Segment
    """The new tokens, log-probs and their policy."""
    finish_reason: FinishReason
    """Why it ended, or that it has not."""


@dataclass(frozen=True)
class Completion:
    """What was sampled for a request."""

    segments: tuple[Segment, ...]
    """Its tokens, log-probs and policies, in order."""
    finish_reason: FinishReason
    """Why it ended."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All tokens, in order."""
        return tuple(token for segment in self.segments for token in segment.token_ids)


@dataclass
class _Running:
    """A request that vLLM has."""

    key: str
    """vLLM's name for it."""
    loop: LoopDetector = field(default_factory=LoopDetector)
    """Reads its tokens."""
    reported: int = 0
    """Tokens of it that were spoken of."""
    has_looped: bool = False
    """It was said to have ended; vLLM has it until the next look."""


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
        """Of the policy whose weights it has; 0: the checkpoint's."""
        self._running: dict[str, _Running] = {}
        self._steps = 0
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
    ) -> list[Completion]:
        """Answer every request, alone with them; in their order.

        Args:
            images: patches by hash, of the requests' images at least.

        Raises:
            ValueError: as `add`; none of the requests is left behind.
        """
        try:
            for number, request in enumerate(requests):
                self.add(str(number), request, images)
        except BaseException:
            self.stop()
            raise
        parts: dict[str, list[Progress]] = {}
        for one in self.run():
            parts.setdefault(one.name, []).append(one)
        return [
            Completion(tuple(p.segment for p in answer), answer[-1].finish_reason)
            for answer in (parts[str(number)] for number in range(len(requests)))
        ]

    def add(self, name: str, request: Request, images: Mapping[str, ImagePatches]) -> None:
        """Take a request, beside those that are running.

        Args:
            name: no other running request has it.
            images: patches by hash, of the request's images at least.

        Raises:
            ValueError: the prompt has not the placeholders that its images need, or leaves no room
                for a response.
        """
        assert name not in self._running, f"request {name} is running"
        prompt, sampling = self._prompt(request, images), self._sampling(request)
        key = self.llm.llm_engine.add_request(name, prompt, sampling)
        self._running[name] = _Running(key)
        self._running[name].loop.feed(request.sampled_ids[-LOOP_MEMORY:])

    def run(self, seconds: float = math.inf, until: int = 0) -> list[Progress]:
        """Sample for so long, or until only `until` requests are left, and say what became of each.

        Log-probs are the model's own (temperature 1, nothing banned).
        """
        deadline, progress = time.monotonic() + seconds, list[Progress]()
        while len(self._running) > until and time.monotonic() < deadline:
            outputs: list[Any] = self.llm.llm_engine.step()
            for output in outputs:
                progress += self._ended(output.request_id, output.outputs[0])
            self._steps += 1
            if self._steps % LOOK_EVERY == 0:
                progress += self._under_way()
                self._end_loops()
        return progress + self._under_way()

    def stop(self) -> list[Progress]:
        """End all requests, and say what became of each."""
        progress = self._under_way()
        self.llm.llm_engine.abort_request(list(self._running))
        self._running.clear()
        return progress

    def warm_up(self) -> None:
        """Sample two tokens: the first step takes seconds more than any other."""
        self.generate([Request((0, 1), (), 2, temperature=1.0, seed=0)], {})
        self.forget()

    def forget(self) -> None:
        """Drop what was computed for earlier requests: what comes depends on them no more."""
        self._end_loops()
        assert not self._running, "requests are running"
        self._steps = 0
        self.llm.llm_engine.engine_core.reset_encoder_cache()
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be dropped: requests are still running")

    def _under_way(self) -> list[Progress]:
        """The new tokens of all that are running."""
        states: Mapping[str, Any] = self.llm.llm_engine.output_processor.request_states
        progress = []
        for name, running in self._running.items():
            state: Any = states[running.key]
            ids: list[int] = state.detokenizer.output_token_ids
            if len(ids) > running.reported and not running.has_looped:
                entries = state.logprobs_processor.logprobs
                progress.append(self._news(name, ids, entries, FinishReason.UNFINISHED))
        return progress

    def _end_loops(self) -> None:
        """At steps that are fixed, so that no clock decides what is sampled beside what."""
        looped = [name for name, running in self._running.items() if running.has_looped]
        if looped:
            self.llm.llm_engine.abort_request(looped)
        for name in looped:
            del self._running[name]

    def _ended(self, name: str, sample: Any) -> list[Progress]:
        if self._running[name].has_looped:
            del self._running[name]
            return []
        reason = FinishReason(sample.finish_reason)
        last = self._news(name, sample.token_ids, sample.logprobs, reason)
        del self._running[name]
        return [last]

    def _news(self, name: str, ids: Sequence[int], entries: Any, reason: FinishReason) -> Progress:
        """The tokens that were not spoken of yet, up to the end of a loop where there is one."""
        running = self._running[name]
        first, running.reported = running.reported, len(ids)
        new = list(ids[first:])
        if end := running.loop.feed(new):
            new, reason, running.has_looped = new[:end], FinishReason.REPETITION, True
        logprobs = [entries[first + i][token].logprob for i, token in enumerate(new)]
        return Progress(name, Segment(tuple(new), tuple(logprobs), self.version), reason)

    def _prompt(self, request: Request, images: Mapping[str, ImagePatches]) -> Any:
        """The prompt as vLLM has it once it is processed: nothing is left for it to expand."""
        from vllm.inputs.engine import tokens_input

        ids = [*request.prompt_ids, *request.sampled_ids]
        if len(ids) >= self.settings.max_model_tokens:
            raise ValueError(
                f"a prompt has {len(ids)} tokens and rollout.max_model_tokens is "
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
            return tokens_input(ids)
        chosen = [images[key] for key in request.image_hashes]
        dtype = getattr(torch, self.settings.dtype)
        return _with_images(ids, request.image_hashes, runs, chosen, dtype)

    def _sampling(self, request: Request):
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        used = len(request.prompt_ids) + len(request.sampled_ids)
        sampling = SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=min(request.max_response_tokens, self.settings.max_model_tokens - used),
            seed=request.seed,
            logprobs=0,
            stop_token_ids=list(self.settings.stop_token_ids),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        # Set after the fact: the constructor would clip the bias to -100.
        sampling.logit_bias = {self.settings.media_token_id: -math.inf}
        return sampling

    def update_weights(
        self, buckets: Iterable[Sequence[tuple[str, torch.Tensor]]], version: int
    ) -> None:
        """Take all weights anew, under released names, and drop what was computed with the old.
        No request may be running."""
        self.llm.collective_rpc("begin_update")
        for bucket in buckets:
            self.llm.collective_rpc("load_bucket", args=(bucket,))
        self.llm.collective_rpc("end_update")
        self.forget()
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
    token_ids: list[int],
    hashes: Sequence[str],
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
        token_ids,
        mm_kwargs=MultiModalKwargsItems.from_hf_inputs(features, fields),
        mm_hashes={"image": list(hashes)},
        mm_placeholders={"image": [PlaceholderRange(offset=at, length=n) for at, n in runs]},
    )


def _image_limit(settings: EngineSettings) -> dict | None:
    limit = settings.image_token_limit
    return None if limit is None else {"in_token_limit": limit}
