"""Ask a model the problems of a benchmark, and measure its answers."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from eval.answers import Answer, AnswerFile
from eval.benchmarks.benchmark import Benchmark, Style
from eval.score import score, wilson_interval
from rewards.reading.extraction import THINK_CLOSE, THINK_OPEN
from rollouts.collect import Prompt, Sampling, render_prompt
from rollouts.engine import Completion, Request
from thinking_rl.model.processing import KimiVLProcessor
from thinking_rl.types import FinishReason, Problem

CHUNK = 256


@dataclass(frozen=True)
class Model:
    """What answers: a processor, and engines behind a function (`RolloutPool.generate`)."""

    processor: KimiVLProcessor
    generate: Callable[[Sequence[Request]], list[list[Completion]]]
    max_model_tokens: int
    """Prompt and response together."""


@dataclass(frozen=True)
class Asking:
    """How problems are asked. Lengths are in tokens."""

    style: Style = "official"
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 16384
    """Of a response, where thinking has no budget."""
    seed: int = 0
    thinking_budget: int | None = None
    """After so many tokens a response that has not closed its thinking gets `◁/think▷` appended."""
    answer_tokens: int = 512
    """What a response may have beyond its thinking budget, for the answer."""

    @property
    def longest(self) -> int:
        """Tokens to sample at most."""
        if self.thinking_budget is None:
            return self.max_tokens
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
    the whole list: an answer does not depend on what was answered before. Raises ValueError where a
    prompt leaves no room for a response.
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
    """Raise ValueError where `ask` would: better before the first answer than after hours."""
    for problem in problems:
        render(benchmark, problem, model, asking)


def request_seed(seed: int, benchmark: str, identifier: str, sample: int, part: str = "") -> int:
    """A seed below 2^63 that depends on nothing else."""
    text = "\0".join((str(seed), benchmark, identifier, str(sample), part))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def _answer(
    benchmark: Benchmark, items: Sequence[tuple[Problem, int]], model: Model, asking: Asking
) -> list[Answer]:
    """Sample, and where a budget ran out, close the thinking and sample the answer."""
    prompts = {problem.id: render(benchmark, problem, model, asking) for problem, _ in items}
    budget = asking.thinking_budget
    sampling = Sampling(1, budget or asking.max_tokens, asking.temperature, asking.top_p)
    media, decode = model.processor.media_token_id, _decoder(model.processor)
    seeds = [(asking.seed, benchmark.name, problem.id, sample) for problem, sample in items]
    requests = [
        replace(prompts[problem.id].request(sampling, media), seed=request_seed(*seed))
        for (problem, _), seed in zip(items, seeds, strict=True)
    ]
    ids, finish = _sample(model, requests)
    forced = [False] * len(items)
    if budget is not None:
        cut = [i for i, reason in enumerate(finish) if reason is FinishReason.LENGTH]
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
                    collapsed_ids=requests[i].collapsed_ids + ids[i],
                    max_tokens=asking.answer_tokens,
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
    completions = [answers[0] for answers in model.generate(requests)] if requests else []
    reasons = [completion.finish_reason for completion in completions]
    return [
        completion.segment.token_ids[: -1 if reason is FinishReason.STOP else None]
        for completion, reason in zip(completions, reasons, strict=True)
    ], reasons


def render(benchmark: Benchmark, problem: Problem, model: Model, asking: Asking) -> Prompt:
    """A problem's prompt. Raises ValueError where it leaves no room for a response, or none for the
    whole thinking budget."""
    asked = benchmark.prompt(problem, asking.style)
    # The benchmark's own wording lists the choices already.
    prompt = render_prompt(model.processor, replace(asked, choices=()))
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


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that one of k answers is right, estimated without bias from `right` of `samples`:
    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1)."""
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from {samples} samples")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


@dataclass(frozen=True)
class Accuracy:
    """Mean over problems of the share of a problem's graded answers that are right."""

    mean: float
    """NaN where nothing was graded."""
    low: float
    high: float
    """95% interval: Wilson's, with the number of problems for its count, as the answers to one
    problem are not independent. With one sample each it is the usual one."""
    pass_at: dict[int, float]
    """k -> pass@k, for k = 1, 2, 4... and the number of samples; over the problems of which every
    answer was graded."""


@dataclass(frozen=True)
class Measures:
    """What came of asking one benchmark in one way."""

    benchmark: str
    thinking_budget: int | None
    problems: int
    samples: int
    official: Accuracy
    strict: Accuracy
    official_right: int
    """Responses."""
    strict_right: int
    parse_failed: int
    """Responses in which the official rules found no answer."""
    not_graded: int
    """Responses that the strict grader could not grade; they count for nothing."""
    cut: int
    """Responses that did not end by themselves."""
    forced_close: int
    """Responses whose thinking was closed for them."""
    mean_tokens: float
    mean_thinking_tokens: float

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def measure(
    benchmark: Benchmark, problems: Sequence[Problem], answers: Sequence[Answer], asking: Asking
) -> Measures:
    """Both verdicts on answers that `ask` gave, and what they add up to."""
    by_id = {problem.id: problem for problem in problems}
    copies = [replace(by_id[a.id], id=f"{a.id} {a.sample}") for a in answers]
    responses = {copy.id: a.response for copy, a in zip(copies, answers, strict=True)}
    rows = score(benchmark, copies, responses, asking.style)
    official: dict[str, list[bool | None]] = defaultdict(list)
    strict: dict[str, list[bool | None]] = defaultdict(list)
    for answer, row in zip(answers, rows, strict=True):
        official[answer.id].append(row.official)
        strict[answer.id].append(row.strict)
    count = max(1, len(answers))
    return Measures(
        benchmark=benchmark.name,
        thinking_budget=asking.thinking_budget,
        problems=len(problems),
        samples=asking.samples,
        official=accuracy(list(official.values())),
        strict=accuracy(list(strict.values())),
        official_right=sum(row.official for row in rows),
        strict_right=sum(row.strict is True for row in rows),
        parse_failed=sum(row.parse_failed for row in rows),
        not_graded=sum(row.strict is None for row in rows),
        cut=sum(answer.finish != FinishReason.STOP.value for answer in answers),
        forced_close=sum(answer.forced_close for answer in answers),
        mean_tokens=sum(answer.tokens for answer in answers) / count,
        mean_thinking_tokens=sum(answer.thinking_tokens for answer in answers) / count,
    )


def accuracy(verdicts: Sequence[Sequence[bool | None]]) -> Accuracy:
    """From the verdicts on each problem's answers; None is no verdict."""
    graded = [[one for one in listed if one is not None] for listed in verdicts]
    shares = [sum(listed) / len(listed) for listed in graded if listed]
    low, high = wilson_interval(sum(shares), len(shares))
    samples = max((len(listed) for listed in verdicts), default=0)
    full = [listed for listed in graded if len(listed) == samples]
    return Accuracy(
        mean=sum(shares) / len(shares) if shares else math.nan,
        low=low,
        high=high,
        pass_at={
            k: sum(pass_at_k(samples, sum(listed), k) for listed in full) / len(full)
            for k in sorted({*(2**i for i in range(samples.bit_length())), samples})
            if full and 1 <= k <= samples
        },
    )
