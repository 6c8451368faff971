"""The devices that a run asks for, and those that this machine has."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

from thinking_rl.cluster.placement import bundles, check_answers, placement_of
from thinking_rl.plan.findings import Plan
from thinking_rl.recipe.schema import Recipe

HALF_ONLY = "float32 on a GPU: vLLM's latent attention takes half precision only there"
SLOW, TOO_MANY = 2, 8
"""Engines, or learner workers, for a core of a machine without a GPU: more are warned of, refused.
A plan for a node of eight GPUs can so be looked at on a laptop."""


def find_gpus() -> list[float]:
    """Memory in GiB of each NVIDIA GPU of this machine; NaN where only its device file tells."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=2)
        return [float(line) / 1024 for line in found.stdout.split("\n") if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return [math.nan] * len(list(Path("/dev").glob("nvidia[0-9]*")))


def resolve_dtype(recipe: Recipe, gpus_gib: list[float]) -> Recipe:
    """The recipe with `model.dtype: auto` made the dtype of this machine's devices, or of those of
    the Ray cluster that it joins."""
    if recipe.model.dtype != "auto":
        return recipe
    dtype = "bfloat16" if gpus_gib or recipe.ray_address else "float32"
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": dtype})})


def check_devices(plan: Plan, recipe: Recipe, gpus_gib: list[float]) -> None:
    """What devices cannot do for the recipe. For every run."""
    if recipe.ray_address:
        with plan.looking_at("devices"):
            check_answers(recipe.ray_address)
        if recipe.model.dtype == "float32":
            plan.warnings.append(f"model.dtype: {HALF_ONLY}, if the cluster has GPUs")
    elif gpus_gib:
        if recipe.model.dtype == "float32":
            plan.problems.append(f"model.dtype: {HALF_ONLY}; give bfloat16, or auto")
    else:
        cores = len(os.sched_getaffinity(0))
        counts = {
            "rollout.engines": recipe.rollout.engines,
            "rollout.tensor_parallel": recipe.rollout.tensor_parallel,
            "learner.workers": recipe.learner.workers,
        }
        for key, count in counts.items():
            if count > SLOW * cores:
                found = plan.problems if count > TOO_MANY * cores else plan.warnings
                found.append(
                    f"{key}: {count} processes on a machine with {cores} cores and no GPU; give "
                    "about as many as there are cores"
                )


def plan_devices(plan: Plan, recipe: Recipe, gpus_gib: list[float]) -> None:
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
            bundles(placement_of(recipe))
    if recipe.ray_address:
        plan.add("devices", "cluster", f"the Ray cluster at {recipe.ray_address} places them")
    elif 0 < len(gpus_gib) < needed:
        plan.warnings.append(f"devices: {needed} GPUs needed, {len(gpus_gib)} found")
