"""Grade a file of responses: `python -m rewards.grade --grader math_answer < in.jsonl > out.jsonl`.

A row in: `{id, response, answer, choices?, question?, metadata?}`; a row out: `{id, value,
correct, outcome, extracted, error, note, parts, seconds}`, in the order of the rows in.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

from rewards.processes.pool import GradingPool
from thinking_rl.types import Problem, Score


def read_rows(lines: Iterable[str]) -> list[tuple[Problem, str]]:
    """The problem and the response of each line.

    Raises:
        ValueError: a line cannot be used; it is named.
    """
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(_row(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {error}") from error
    return rows


def _row(row: Any) -> tuple[Problem, str]:
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, found {type(row).__name__}")
    for key in ("id", "response", "answer"):
        if key not in row:
            raise ValueError(f"no {key!r}; found {', '.join(map(repr, row)) or 'nothing'}")
    for key in ("response", "answer"):
        if not isinstance(row[key], str):
            raise ValueError(f"{key!r} must be text, found {type(row[key]).__name__}")
    choices, metadata = row.get("choices") or [], row.get("metadata") or {}
    if not isinstance(choices, list) or not all(isinstance(text, str) for text in choices):
        raise ValueError("'choices' must be a list of texts")
    if not isinstance(metadata, dict):
        raise ValueError(f"'metadata' must be an object, found {type(metadata).__name__}")
    problem = Problem(
        id=str(row["id"]),
        question=str(row.get("question", "")),
        answer=row["answer"],
        choices=tuple(choices),
        metadata=metadata,
    )
    return problem, row["response"]


def as_row(problem: Problem, score: Score) -> dict[str, Any]:
    """A graded row, ready for JSON."""
    return {
        "id": problem.id,
        "value": score.value,
        "correct": score.correct,
        "outcome": score.outcome.value,
        "extracted": score.extracted,
        "error": score.error,
        "note": score.note,
        "parts": dict(score.parts),
        "seconds": round(score.seconds, 6),
    }


def main(arguments: list[str] | None = None) -> int:
    """Grade standard input to standard output. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rewards.grade", description=__doc__)
    parser.add_argument("--grader", default="math_answer", help="registry key or other spec")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds per answer")
    parser.add_argument("--memory", type=float, default=2.0, help="GiB per process")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    for name in ("timeout", "memory", "workers"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name}: expected a number above 0, not {getattr(options, name)}")
    try:
        rows = read_rows(sys.stdin)
        parts = [(options.grader, 1.0)]
        with GradingPool(parts, options.timeout, options.memory, options.workers) as pool:
            scores = pool.grade(rows)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for (problem, _), score in zip(rows, scores, strict=True):
        print(json.dumps(as_row(problem, score)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
