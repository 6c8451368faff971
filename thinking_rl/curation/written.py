"""What a command leaves: problems as parquet in the `plain` format, and a histogram."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinking_rl.model.images import read_image
from thinking_rl.types import Problem

BINS = 10


def problem_row(problem: Problem) -> dict[str, Any]:
    """A problem's columns in the `plain` format, pictures as their encoded bytes."""
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "images": [{"bytes": read_image(one), "path": None} for one in problem.images],
        "choices": list(problem.choices),
        "source": problem.source,
        "subject": problem.subject,
        "level": problem.level,
        "metadata": json.dumps(dict(problem.metadata), default=repr, sort_keys=True),
    }


def write_parquet(
    rows: Sequence[Mapping[str, Any]], measured: Mapping[str, str], file: Path
) -> None:
    """Write rows, whole or not at all.

    Args:
        measured: further columns and their types (`string`, `bool`, `int64`, `float64`).
    """
    from datasets import Dataset, Features, Image, List, Value

    text = ("id", "question", "answer", "source", "subject", "metadata")
    features = {name: Value("string") for name in text}
    features |= {"images": List(Image()), "choices": List(Value("string")), "level": Value("int64")}
    features |= {name: Value(kind) for name, kind in measured.items()}
    part = file.with_name(f"{file.name}.part")
    columns = {name: [row.get(name) for row in rows] for name in features}
    Dataset.from_dict(columns, features=Features(features)).to_parquet(part)
    part.replace(file)


def draw_histogram(kept: Sequence[float], dropped: Sequence[float], file: Path) -> None:
    """Pass rates of the problems that stay and of those that were measured and dropped."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), dpi=120)
    edges = [(place - 0.5) / BINS for place in range(BINS + 2)]
    axes.hist([list(kept), list(dropped)], bins=edges, stacked=True, label=["kept", "dropped"])
    axes.set_xlabel("pass rate")
    axes.set_ylabel("problems")
    axes.legend()
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)
