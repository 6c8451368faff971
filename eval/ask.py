"""Ask a model the problems of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from eval.answers import Answer, AnswerFile
from eval.benchmarks.benchmark import Benchmark, Style
from rewards.reading.extraction import THINK_CLOSE, THINK_OPEN
from rollouts.engine import Completion, Request
from rollouts.pool import RolloutPool
from rollouts.prompts import Prompt, Sampling, render_prompt, request_seed
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.processing import KimiVLProcessor
from thinking_rl.types import FinishReason, Problem

CHUNK = 256


@dataclass(frozen=True)
class Model:
    """What answers: a processor, and engines behind a function (`RolloutPool.generate`)."""

    processor: KimiVLProcessor
    """Of the checkpoint."""
    images: ImageStore
    """Where `generate` finds the pictures of requests."""
    generate: Callable[[Sequence[Request]], list[Completion]]
    """The answers, in the order of the requests."""
    max_model_tokens: int
    """Prompt and response together."""


def when_first_asked(
    start: Callable[[], RolloutPool],
) -> Callable[[Sequence[Request]], list[Completion]]:
    """`RolloutPool.generate` of engines that start with the first request, so that a finished set
    is written again without them."""
    pools: list[RolloutPool] = []

    def generate(requests: Sequence[Request]) -> list[Completion]:
        if not pools:
            pools.append(start())
        return pools[0].generate(requests)

    return generate


@dataclass(frozen=True)
class Asking:
    """How problems are asked. Lengths are in tokens."""

    style: Style = "official"
    """Whose wording: `official`, the benchmark's own, or `kimi`, that of Kimi-VL's protocol."""
    samples: int = 1
    """Answers to each problem."""
    temperature: float = 0.0
    """0: greedy."""
    top_p: float = 1.0
    """Share of the probability that tokens are drawn from, the likeliest first."""
    max_response_tokens: int = 16384
    """Longest response, where thinking has no budget."""
    seed: int = 0
    """Makes the seed of each request, with benchmark, problem and sample."""
    thinking_budget: int | None = None
    """After so many tokens a response that has not closed its thinking gets `◁/think▷` appended."""
    answer_tokens: int = 512
    """What a response may have beyond its thinking budget, for the answer."""

    @property
    def longest(self) -> int:
        """Tokens to sample at most."""
        if self.thinking_budget is None:
            return self.max_response_tokens
        return self.thinking_budget + self.answer_tokens


def ask(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    model: Model,
    asking: Asking,
    file: AnswerFile | None = None,
    chunk: int = CHUNK,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """`asking.samples` answers to each problem, in order.

    Answers that `file` has are taken from there, new ones are appended a chunk at a time. Every
    request has a seed of its own, made from (seed, benchmark, id, sample), and chunks are cut from
    the whole list: an answer does not depend on what was answered before.

    Raises:
        ValueError: a prompt leaves no room for a response, or none for the whole thinking budget.
    """
    wanted = [(problem, sample) for problem in problems for sample in range(asking.samples)]
    answers = dict(file.answers) if file else {}
    for start in range(0, len(wanted), chunk):
        part = wanted[start : start + chunk]
        missing = [(p, s) for p, s in part if (p.id, s) not in answers]
        if missing:
            new = _answer(benchmark, missing, model, asking)
            if file:
                file.append(new)
            answers |= {(answer.id, answer.sample): answer for answer in new}
        progress(min(start + chunk, len(wanted)), len(wanted))
    return [answers[problem.id, sample] for problem, sample in wanted]


def check_prompts(
    benchmark: Benchmark, problems: Sequence[Problem], model: Model, asking: Asking
) -> None:
    """See that every prompt fits: better before the first answer than after hours.

    Raises:
        ValueError: as of `ask`.
    """
    for problem in problems:
        render(benchmark, problem, model, asking)


def _answer(
    benchmark: Benchmark, items: Sequence[tuple[Problem, int]], model: Model, asking: Asking
) -> list[Answer]:
    """Sample, and where a budget ran out, or the thinking went round in a loop, close the thinking
    and sample the answer."""
    prompts = {problem.id: render(benchmark, problem, model, asking) for problem, _ in items}
    budget = asking.thinking_budget
    longest = budget or asking.max_response_tokens
    sampling = Sampling(1, longest, asking.temperature, asking.top_p)
    decode = _decoder(model.processor)
    seeds = [(asking.seed, benchmark.name, problem.id, sample) for problem, sample in items]
    requests = [
        replace(prompts[problem.id].request(sampling), seed=request_seed(*seed, ""))
        for (problem, _), seed in zip(items, seeds, strict=True)
    ]
    ids, finish = _sample(model, requests)
    forced = [False] * len(items)
    if budget is not None:
        cut = [i for i, reason in enumerate(finish) if reason is not FinishReason.STOP]
        closer = tuple(model.processor.tokenizer.text_ids(THINK_CLOSE))
        for i in cut:
            forced[i] = THINK_CLOSE not in decode(ids[i])
            ids[i] += closer if forced[i] else ()
        rests, reasons = _sample(
            model,
            [
                replace(
                    requests[i],
                    prompt_ids=requests[i].prompt_ids + ids[i],
                    max_response_tokens=asking.answer_tokens,
                    seed=request_seed(*seeds[i], "answer"),
                )
                for i in cut
            ],
        )
        for i, rest, reason in zip(cut, rests, reasons, strict=True):
            ids[i], finish[i] = ids[i] + rest, reason
    return [
        Answer(
            id=problem.id,
            sample=sample,
            response=decode(ids[i]),
            tokens=len(ids[i]),
            thinking_tokens=thinking_length(ids[i], decode),
            finish=finish[i].value,
            forced_close=forced[i],
        )
        for i, (problem, sample) in enumerate(items)
    ]


def _sample(
    model: Model, requests: Sequence[Request]
) -> tuple[list[tuple[int, ...]], list[FinishReason]]:
    """Tokens of one response to each request, without the stop token, and why they ended."""
    completions = model.generate(requests) if requests else []
    reasons = [completion.finish_reason for completion in completions]
    return [
        completion.token_ids[: -1 if reason is FinishReason.STOP else None]
        for completion, reason in zip(completions, reasons, strict=True)
    ], reasons


def render(benchmark: Benchmark, problem: Problem, model: Model, asking: Asking) -> Prompt:
    """A problem's prompt.

    Raises:
        ValueError: it leaves no room for a response, or none for the whole thinking budget.
    """
    asked = benchmark.prompt(problem, asking.style)
    # The benchmark's own wording lists the choices already.
    prompt = render_prompt(model.processor, model.images, replace(asked, choices=()))
    needed = len(prompt.token_ids) + 1
    if asking.thinking_budget is not None:  # a cap that the engine cut short would be no budget
        closer = len(model.processor.tokenizer.text_ids(THINK_CLOSE))
        needed = len(prompt.token_ids) + asking.longest + closer
    if needed > model.max_model_tokens:
        raise ValueError(
            f"problem {problem.id}: the prompt has {len(prompt.token_ids)} tokens and with its "
            f"response needs {needed}, but max_model_tokens is {model.max_model_tokens}; raise it, "
            "or lower the image token limit or the thinking budget"
        )
    return prompt


def _decoder(processor: KimiVLProcessor) -> Callable[[Sequence[int]], str]:
    return lambda ids: str(processor.tokenizer.decode(list(ids), skip_special_tokens=False))


def thinking_length(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> int:
    """Tokens up to and including the first `◁/think▷`; all if thinking is only opened; else 0."""
    text = decode(ids)
    if THINK_CLOSE not in text:
        return len(ids) if THINK_OPEN in text else 0
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        if THINK_CLOSE in decode(ids[:middle]):
            high = middle
        else:
            low = middle + 1
    return low
