"""The devices that a run asks for, and those that this machine has."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

from thinking_rl.cluster.placement import bundles, placement_of
from thinking_rl.plan.findings import Plan
from thinking_rl.recipe.schema import Recipe


def find_gpus() -> list[float]:
    """Memory in GiB of each NVIDIA GPU of this machine; NaN where only its device file tells."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=2)
        return [float(line) / 1024 for line in found.stdout.split("\n") if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return [math.nan] * len(list(Path("/dev").glob("nvidia[0-9]*")))


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
