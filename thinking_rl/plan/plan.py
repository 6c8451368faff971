"""What a run would do, checked and worked out without starting it: `--dry-run`.

Everything the recipe names is looked at (data, rewards, checkpoint); nothing heavy is imported.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from thinking_rl.cluster.placement import bundles, layout_of
from thinking_rl.files.checkpoint import check_complete, is_hub_id, read_json
from thinking_rl.plan.memory import GIB, TINY_PARAMETERS, count_parameters, estimate_memory
from thinking_rl.recipe.load import RecipeError
from thinking_rl.recipe.schema import BenchmarkRun, Recipe
from thinking_rl.run.state import KEPT


@dataclass
class Plan:
    """Findings as (heading, name, text), and what would stop the run."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, heading: str, name: str, text: str) -> None:
        """Adds one line under a heading."""
        self.rows.append((heading, name, text))

    @contextmanager
    def looking_at(self, key: str) -> Iterator[None]:
        """Turns a ValueError about what recipe key `key` names into a problem of the plan."""
        try:
            yield
        except ValueError as error:
            self.problems.append(f"{key}: {error}")

    def raise_problems(self) -> None:
        """Raises RecipeError with all that would stop the run, if anything would."""
        if self.problems:
            raise RecipeError("; ".join(self.problems))


def check_inputs(recipe: Recipe) -> Plan:
    """Looks at everything the recipe names: data, rewards, checkpoint. For every run."""
    import rewards
    from thinking_rl.data import check_source

    plan = Plan()
    sources = {"data.train": recipe.data.train if "rl" in recipe.stages else []}
    sources["data.eval"] = recipe.data.eval
    sources["sft.data"] = recipe.sft.data if recipe.sft and "sft" in recipe.stages else []
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
    with plan.looking_at("model.path"):
        plan.add("model", recipe.model.path, check_model(recipe.model.path))
    return plan


def make_plan(recipe: Recipe) -> Plan:
    """`check_inputs`, and what the run would do and need: stages, devices, memory, disk."""
    plan = check_inputs(recipe)
    _plan_stages(plan, recipe)
    gpus_gib = find_gpus()
    _plan_devices(plan, recipe, gpus_gib)
    config, whose = _config(recipe.model.path)
    parameters = TINY_PARAMETERS
    if config is not None:
        parameters = sum(count_parameters(config).values())
        plan.add("model", "parameters", f"{parameters:,}{whose}")
        _plan_memory(plan, recipe, config, gpus_gib)
    elif recipe.model.path == "tiny":
        plan.add("memory", "model", f"about {TINY_PARAMETERS:,} parameters: under 0.1 GiB")
    else:
        plan.warnings.append(f"memory and disk: sizes of {recipe.model.path} are not known here")
        return plan
    _plan_disk(plan, recipe, parameters)
    return plan


def print_plan(plan: Plan, console: Console) -> None:
    """Prints the plan under its headings; without colours where the output is no terminal."""
    headings = dict.fromkeys(heading for heading, _, _ in plan.rows)
    width = max(len(name) for _, name, _ in plan.rows)
    for heading in headings:
        console.print(Text(heading, style="bold"), soft_wrap=True)
        for _, name, text in (row for row in plan.rows if row[0] == heading):
            console.print(Text(f"  {name:<{width}}  {text}"), soft_wrap=True)
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def check_benchmark(one: BenchmarkRun) -> str:
    """One line about a benchmark. Raises ValueError where its first rows cannot be used."""
    from eval.benchmarks.registry import get_benchmark
    from thinking_rl.data.problems import ROWS_CHECKED

    benchmark = get_benchmark(one.name)
    count = f"first {one.limit} problems" if one.limit else "all problems"
    if one.path is None or not Path(one.path).exists():
        place = one.path or benchmark.hub_id
        return f"{one.name}, {count} x {one.samples}: the hub is asked for {place} when it starts"
    benchmark.load(one.path, one.split, min(ROWS_CHECKED, one.limit or ROWS_CHECKED))
    return f"{one.name}, {count} x {one.samples}, from {one.path}"


def check_model(path: str) -> str:
    """One line about the checkpoint at `path`.

    Raises ValueError that lists what is missing from its folder: configuration, tokenizer, shards.
    """
    if path == "tiny":
        return "a small random model, made for the run"
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if is_hub_id(path):
            return "a hub id: downloaded when the run starts"
        raise ValueError(f"no folder {folder}; expected a checkpoint folder, a hub id or `tiny`")
    shards = check_complete(folder)
    return f"{len(shards)} shard{'s' * (len(shards) != 1)} in {folder}"


def find_gpus() -> list[float]:
    """Memory in GiB of each NVIDIA GPU of this machine; NaN where only its device file tells."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=2)
        return [float(line) / 1024 for line in found.stdout.split("\n") if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return [math.nan] * len(list(Path("/dev").glob("nvidia[0-9]*")))


def _plan_stages(plan: Plan, recipe: Recipe) -> None:
    for stage in recipe.stages:
        if stage == "sft" and (sft := recipe.sft):
            text = f"{sft.steps} steps of {sft.batch_size} conversations"
            tokens = sft.tokens_per_pass(recipe.learner.workers)
            plan.add("stages", "sft", f"{text}, at most {tokens:,} tokens at once on a worker")
        if stage == "rl" and (rl := recipe.rl):
            responses = rl.problems_per_iteration * rl.samples_per_problem
            tokens = responses * recipe.rollout.max_response_tokens
            plan.add(
                "stages",
                "rl",
                f"{rl.iterations} iterations of {rl.problems_per_iteration} problems x "
                f"{rl.samples_per_problem} samples, {rl.steps_per_iteration} optimizer steps each",
            )
            per_step = responses / rl.steps_per_iteration
            plan.add("stages", "per step", f"{per_step:g} responses per optimizer step")
            plan.add("stages", "per iteration", f"at most {tokens:,} response tokens")
    data = recipe.data
    plan.add("stages", "evaluation", f"{data.eval_problems} problems x {data.eval_samples} samples")


def _plan_devices(plan: Plan, recipe: Recipe, gpus_gib: list[float]) -> None:
    rollout, workers = recipe.rollout, recipe.learner.workers
    engine_devices = rollout.engines * rollout.tensor_parallel
    shared = rollout.placement == "shared"
    needed = max(engine_devices, workers) if shared else engine_devices + workers
    together = "taking turns on the same devices" if shared else "on devices of their own"
    engines = f"{rollout.engines} x {rollout.tensor_parallel} (tensor parallel), {together}"
    plan.add("devices", "engines", engines)
    plan.add("devices", "learner", f"{workers} worker{'s' * (workers != 1)}")
    found = f"{len(gpus_gib)} found on this machine"
    if not gpus_gib:
        found = "none found on this machine, so a run here uses the CPU"
    plan.add("devices", "GPUs", f"{needed} needed, {found}")
    if gpus_gib or recipe.ray_address:
        with plan.looking_at("devices"):
            bundles(layout_of(recipe))
    if recipe.ray_address:
        plan.add("devices", "cluster", f"the Ray cluster at {recipe.ray_address} places them")
    elif 0 < len(gpus_gib) < needed:
        plan.warnings.append(f"devices: {needed} GPUs needed, {len(gpus_gib)} found")


def _plan_memory(
    plan: Plan, recipe: Recipe, config: Mapping[str, Any], gpus_gib: list[float]
) -> None:
    memory = estimate_memory(recipe, config)
    rollout = recipe.rollout
    learner = memory.learner_state + memory.learner_activations
    plan.add(
        "memory",
        "engine",
        f"{memory.engine_weights:.1f} GiB of weights on each device; {rollout.max_sequences} full "
        f"sequences would fill {memory.engine_kv_cache:.1f} GiB of key-value cache",
    )
    plan.add(
        "memory",
        "learner",
        f"{learner:.1f} GiB on each device: {memory.learner_state:.1f} weights, gradients and "
        f"moments, about {memory.learner_activations:.1f} activations",
    )
    size = min(gpus_gib, default=math.nan)
    if math.isnan(size):
        return
    engine = rollout.gpu_memory_share * size
    plan.add("memory", "device", f"{size:.1f} GiB, of which an engine takes {engine:.1f}")
    if memory.engine_weights >= engine:
        plan.warnings.append(
            f"memory: weights of {memory.engine_weights:.1f} GiB do not fit the engine's "
            f"{engine:.1f}; raise rollout.tensor_parallel or rollout.gpu_memory_share"
        )
    if learner > size:
        plan.warnings.append(
            f"memory: a learner's {learner:.1f} GiB do not fit {size:.1f}; raise learner.workers, "
            "or lower learner.tokens_per_microbatch, or sft.micro_batch_size times sft.max_tokens"
        )


def _plan_disk(plan: Plan, recipe: Recipe, parameters: int) -> None:
    width = 4 if recipe.model.dtype == "float32" else 2
    # Of RL: float32 weights, and two moments where the optimizer is kept.
    rl = recipe.rl if "rl" in recipe.stages else None
    state = (4 if rl is None or rl.reset_optimizer else 12) * parameters / GIB
    model = width * parameters / GIB
    # A checkpoint is whole before the oldest of those kept goes.
    count = 0 if rl is None else KEPT + 1 if rl.checkpoint_every else 1
    needed = count * state + len(recipe.stages) * model
    folder = Path(recipe.run_dir).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free / GIB
    plan.add(
        "disk",
        recipe.run_dir,
        f"about {needed:.1f} GiB needed (training checkpoints: {count} of {state:.1f}, a model of "
        f"{model:.1f} after each stage), {free:.1f} free",
    )
    if needed > free:
        plan.warnings.append(f"disk: about {needed:.1f} GiB needed, {free:.1f} free in {existing}")


def _config(path: str) -> tuple[Mapping[str, Any] | None, str]:
    """The checkpoint's config.json, and a remark where a stand-in is used; None if not known."""
    file = Path(path).expanduser() / "config.json"
    if file.is_file():
        try:
            return read_json(file), ""
        except ValueError:
            return None, ""  # `check_model` has reported it
    if "kimi-vl-a3b" in path.lower():
        return {}, " (of the released configuration)"
    return None, ""
