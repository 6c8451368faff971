"""What answers to a benchmark add up to: both verdicts, lengths, counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from eval.answers import Answer
from eval.ask import Asking
from eval.benchmarks.benchmark import Benchmark
from eval.score import score
from eval.statistics import Accuracy, accuracy
from thinking_rl.types import FinishReason, Problem


@dataclass(frozen=True)
class Measures:
    """What came of asking one benchmark in one way."""

    benchmark: str
    """Its name."""
    thinking_budget: int | None
    """In tokens; None: thinking had none."""
    problems: int
    """Problems asked."""
    samples: int
    """Answers to each problem."""
    official: Accuracy
    """By the benchmark's own rules."""
    strict: Accuracy
    """By the grader that rewards training, of the responses that it could grade."""
    official_right: int
    """Responses."""
    strict_right: int
    """Responses."""
    parse_failed: int
    """Responses in which the official rules found no answer."""
    not_graded: int
    """Responses that the strict grader could not grade; they count for nothing."""
    cut: int
    """Responses that did not end by themselves."""
    forced_close: int
    """Responses whose thinking was closed for them."""
    mean_tokens: float
    """Of the length of a response."""
    mean_thinking_tokens: float
    """Of the length of its thinking (see `Answer.thinking_tokens`)."""

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
