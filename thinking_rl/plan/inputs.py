"""Everything that a recipe names, looked at before each run: data, rewards, checkpoint."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from thinking_rl.files.checkpoint import check_complete
from thinking_rl.files.hub import is_hub_id
from thinking_rl.plan.devices import check_devices, find_gpus
from thinking_rl.plan.findings import Plan
from thinking_rl.recipe.schema import BenchmarkRun, Recipe

WEIGHT_FILE = re.compile(r"\.(safetensors|bin|pt|pth|gguf|ya?ml)$")
"""A file, where a folder was meant: no hub id ends so."""


def check_inputs(recipe: Recipe) -> Plan:
    """Looks at everything the recipe names: data, rewards, checkpoint. For every run."""
    import rewards
    from thinking_rl.data import check_source

    plan = Plan()
    sources = {"data.train": recipe.data.train if recipe.active_rl else []}
    sources["data.eval"] = recipe.data.eval
    sources["sft.data"] = recipe.active_sft.data if recipe.active_sft else []
    for key, listed in sources.items():
        for index, source in enumerate(listed):
            with plan.looking_at(f"{key}.{index}"):
                text = check_source(source, response_needed=key == "sft.data")
                plan.add("data", f"{key}.{index}", f"{text} (weight {source.weight:g})")
    for index, one in enumerate(recipe.data.benchmarks):
        with plan.looking_at(f"data.benchmarks.{index}"):
            plan.add("data", f"data.benchmarks.{index}", check_benchmark(one))
    for index, part in enumerate(recipe.rewards.parts):
        with plan.looking_at(f"rewards.parts.{index}.grader"):
            rewards.check(part.grader)
            plan.add("rewards", part.grader, f"weight {part.weight:g}")
    for name in recipe.trackers:
        with plan.looking_at("trackers"):
            check_tracker(name)
    with plan.looking_at("model.path"):
        plan.add("model", recipe.model.path, check_model(recipe.model.path))
    check_devices(plan, recipe, find_gpus())
    return plan


def check_benchmark(one: BenchmarkRun) -> str:
    """One line about a benchmark.

    Raises:
        ValueError: its first rows cannot be used.
    """
    from eval.benchmarks.registry import get_benchmark
    from thinking_rl.data.problems import ROWS_CHECKED

    benchmark = get_benchmark(one.name)
    count = f"first {one.limit} problems" if one.limit else "all problems"
    if one.path is None or not Path(one.path).exists():
        place = one.path or benchmark.hub_id
        return f"{one.name}, {count} x {one.samples}: the hub is asked for {place} when it starts"
    benchmark.load(one.path, one.split, min(ROWS_CHECKED, one.limit or ROWS_CHECKED))
    return f"{one.name}, {count} x {one.samples}, from {one.path}"


def check_tracker(name: str) -> None:
    """See that a tracker's package is there.

    Raises:
        ValueError: it is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"{name} is not installed; pip install {name}, or take it out of the list")


def check_model(path: str) -> str:
    """One line about the checkpoint at `path`.

    Raises:
        ValueError: it is no checkpoint, or configuration, tokenizer or shards are missing from its
            folder; lists them.
    """
    if path == "tiny":
        return "a small random model, made for the run"
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if is_hub_id(path) and WEIGHT_FILE.search(path) is None:
            return "a hub id: downloaded when the run starts"
        raise ValueError(f"no folder {folder}; expected a checkpoint folder, a hub id or `tiny`")
    shards = check_complete(folder)
    return f"{len(shards)} shard{'s' * (len(shards) != 1)} in {folder}"
