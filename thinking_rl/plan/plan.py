"""What a run would do and need, worked out without starting it: `--dry-run`.

Everything the recipe names is looked at; nothing heavy is imported.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinking_rl.files.json_files import read_json
from thinking_rl.files.run_folder import KEPT
from thinking_rl.plan.devices import find_gpus, plan_devices
from thinking_rl.plan.findings import Plan
from thinking_rl.plan.inputs import check_inputs
from thinking_rl.plan.memory import GIB, TINY_PARAMETERS, count_parameters, estimate_memory
from thinking_rl.recipe.schema import RL_STAGE, SFT_STAGE, Recipe


def make_plan(recipe: Recipe) -> Plan:
    """`check_inputs`, and what the run would do and need: stages, devices, memory, disk."""
    plan = check_inputs(recipe)
    _plan_stages(plan, recipe)
    _warn_of_what_never_comes(plan, recipe)
    gpus_gib = find_gpus()
    plan_devices(plan, recipe, gpus_gib)
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


def _plan_stages(plan: Plan, recipe: Recipe) -> None:
    if sft := recipe.active_sft:
        text = f"{sft.steps} steps of {sft.batch_size} conversations"
        tokens = sft.tokens_per_pass(recipe.learner.workers)
        plan.add("stages", SFT_STAGE, f"{text}, at most {tokens:,} tokens at once on a worker")
    if rl := recipe.active_rl:
        tokens = rl.responses * recipe.rollout.max_response_tokens
        plan.add(
            "stages",
            RL_STAGE,
            f"{rl.iterations} iterations of {rl.problems_per_iteration} problems x "
            f"{rl.samples_per_problem} samples, at most {rl.planned_steps} optimizer steps each",
        )
        plan.add("stages", "per step", f"{rl.step_responses} responses per optimizer step")
        plan.add("stages", "per iteration", f"at most {tokens:,} response tokens")
    data = recipe.data
    plan.add(
        "stages",
        "evaluation",
        f"{data.eval_problems} problems x (1 greedy + {data.eval_samples} samples)",
    )


def _warn_of_what_never_comes(plan: Plan, recipe: Recipe) -> None:
    """Settings that a stage is too short for, as in a trial of a few steps."""
    if (sft := recipe.active_sft) and sft.optimizer.warmup_steps >= sft.steps:
        plan.warnings.append(
            f"sft.optimizer.warmup_steps: {sft.optimizer.warmup_steps} steps of a stage of "
            f"{sft.steps}: the learning rate never gets to {sft.optimizer.learning_rate:g}"
        )
    if rl := recipe.active_rl:
        steps = rl.iterations * rl.planned_steps
        if rl.optimizer.warmup_steps >= steps:
            plan.warnings.append(
                f"rl.optimizer.warmup_steps: {rl.optimizer.warmup_steps} steps of a stage of "
                f"{steps}: the learning rate never gets to {rl.optimizer.learning_rate:g}"
            )
        length = rl.length
        if (
            length.reward_weight or length.toggle_every
        ) and length.start_iteration >= rl.iterations:
            plan.warnings.append(
                f"rl.length.start_iteration: {length.start_iteration} of {rl.iterations} "
                "iterations: length never enters the reward"
            )
        for name in ("evaluate_every", "benchmarks_every", "checkpoint_every"):
            if getattr(rl, name) > rl.iterations:
                plan.warnings.append(
                    f"rl.{name}: {getattr(rl, name)} of {rl.iterations} iterations: only at the end"
                )


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
            "or lower learner.tokens_per_microbatch, or sft.micro_batch_size times "
            "sft.max_conversation_tokens"
        )


def _plan_disk(plan: Plan, recipe: Recipe, parameters: int) -> None:
    width = 4 if recipe.model.dtype == "float32" else 2
    # Of RL: float32 weights, and two moments where the optimizer is kept.
    rl = recipe.active_rl
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
