"""Ray and the devices: which actor runs where."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from thinking_rl.cluster.logs import LOG_VARIABLE
from thinking_rl.cluster.placement import Placement, bundles, check_answers
from thinking_rl.cluster.stopping import listen_again

PLACEMENT_TIMEOUT_S = 300.0
START_TRIES = 3

KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
"""For the C library: on a CPU every layer makes and frees megabytes, and fetching fresh pages from
the system each time took a third of a training step."""


@dataclass(frozen=True)
class Cluster:
    """Ray options of every actor of a run."""

    engines: list[dict[str, Any]]
    """Of each engine."""
    learners: list[dict[str, Any]]
    """Of each learner worker, in the order of their ranks."""
    on_cpu: bool
    """Whether the cluster has no GPU, so that all actors share the cores."""
    threads: int
    """CPU threads of each engine, and of each learner worker that is not told otherwise."""


@contextmanager
def cluster(placement: Placement, log: Path | None = None) -> Iterator[Cluster]:
    """Start Ray (or join the cluster given), reserve devices, and end it all afterwards.

    With GPUs, `shared` puts engine i and learner i on the same GPU, each with half of it in Ray's
    books; `separate` gives each its own. Without GPUs all share the cores.

    Args:
        log: file that the actors' output is appended to (see `speak_into_log`).

    Raises:
        ValueError: the cluster has not enough GPUs for the recipe.
    """
    # Ray runs its workers at low priority, which is for machines that do something else as well.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if placement.ray_address:
        check_answers(placement.ray_address)
    context = start_ray(placement.ray_address)
    listen_again()
    group = None
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if gpus == 0:
            yield _on_cpu(placement, log)
            return
        reserved = bundles(placement)
        needed = sum(int(bundle["GPU"]) for bundle in reserved)
        if needed > gpus:
            how = "shared" if placement.shared else "separate"
            raise ValueError(
                f"{needed} GPUs are needed ({placement.engines} engines, {placement.learners} "
                f"learner workers, placement {how}), the cluster has {gpus}"
            )
        group = placement_group(reserved, strategy="PACK")
        try:
            ray.get(group.ready(), timeout=PLACEMENT_TIMEOUT_S)
        except GetTimeoutError:
            raise RuntimeError(
                f"the cluster did not give {reserved} within {PLACEMENT_TIMEOUT_S:.0f} s; free at "
                f"the moment: {ray.available_resources()}. Something else may hold its GPUs or "
                "CPUs: see `ray status`"
            ) from None
        yield _on_gpus(placement, group, log)
    finally:
        if group is not None:
            remove_placement_group(group)
        ray.shutdown()
        if placement.ray_address is None:  # nobody else uses it
            shutil.rmtree(context.address_info["session_dir"], ignore_errors=True)


def start_ray(address: str | None) -> Any:
    """Ray's context. A machine has 30 s to start Ray, which one that does much else may not keep:
    it is tried again."""
    for number in range(1, START_TRIES + 1):
        try:
            return ray.init(
                address=address or "local",
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="thinking_rl",
            )
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            if number == START_TRIES or "timed out during startup" not in str(error):
                raise
    return None


def _on_gpus(placement: Placement, group: Any, log: Path | None) -> Cluster:
    def options(bundle: int, share: float) -> dict[str, Any]:
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
        environment = {"runtime_env": {"env_vars": _log_variable(log)}}
        return {"num_gpus": share, "num_cpus": 1, "scheduling_strategy": strategy, **environment}

    first = 0 if placement.shared else placement.engines
    learner_share = 0.5 if placement.shared else 1
    engine_share = 0.5 if placement.shared else placement.tensor_parallel
    return Cluster(
        engines=[options(i, engine_share) for i in range(placement.engines)],
        learners=[options(first + i, learner_share) for i in range(placement.learners)],
        on_cpu=False,
        threads=max(1, (os.cpu_count() or 1) // (2 * max(1, placement.learners))),
    )


def _on_cpu(placement: Placement, log: Path | None) -> Cluster:
    cores = len(os.sched_getaffinity(0))

    def options(count: int) -> list[dict[str, Any]]:
        threads = str(max(1, cores // max(1, count)))
        # Threads of a waiting process must not spin on cores that another one needs.
        environment = {
            "OMP_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            **KEEP_FREED_MEMORY,
            **_log_variable(log),
        }
        return [{"num_cpus": 0, "runtime_env": {"env_vars": environment}}] * count

    return Cluster(
        engines=options(placement.engines),
        learners=options(placement.learners),
        on_cpu=True,
        threads=max(1, cores // max(placement.engines, placement.learners)),
    )


def _log_variable(log: Path | None) -> dict[str, str]:
    return {LOG_VARIABLE: str(log)} if log else {}
