"""Ray and the devices: which actor runs where."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from thinking_rl.layout import Layout, bundles
from thinking_rl.stopping import check_stop

PLACEMENT_TIMEOUT_S = 300.0
POLL_S = 1.0
"""How often a wait looks whether the user has asked to stop."""

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
    learners: list[dict[str, Any]]
    on_cpu: bool
    threads: int
    """CPU threads of each engine, and of each learner worker that is not told otherwise"""


@contextmanager
def cluster(layout: Layout) -> Iterator[Cluster]:
    """Start Ray (or join the cluster given), reserve devices, and end it all afterwards.

    With GPUs, `shared` puts engine i and learner i on the same GPU, each with half of it in Ray's
    books; `separate` gives each its own. Without GPUs all share the cores.

    Raises:
        ValueError: the cluster has not enough GPUs for the recipe.
    """
    # Ray runs its workers at low priority, which is for machines that do something else as well.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        address=layout.ray_address,
        include_dashboard=False if layout.ray_address is None else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="thinking_rl",
    )
    group = None
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if gpus == 0:
            yield _on_cpu(layout)
            return
        reserved = bundles(layout)
        needed = sum(int(bundle["GPU"]) for bundle in reserved)
        if needed > gpus:
            raise ValueError(
                f"{needed} GPUs are needed ({layout.engines} engines, {layout.learners} learner "
                f"workers, placement {'shared' if layout.shared else 'separate'}), the cluster "
                f"has {gpus}"
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
        yield _on_gpus(layout, group)
    finally:
        if group is not None:
            remove_placement_group(group)
        ray.shutdown()


def _on_gpus(layout: Layout, group: Any) -> Cluster:
    def options(bundle: int, share: float) -> dict[str, Any]:
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
        return {"num_gpus": share, "num_cpus": 1, "scheduling_strategy": strategy}

    first = 0 if layout.shared else layout.engines
    engine_share = 0.5 if layout.shared else layout.tensor_parallel
    return Cluster(
        engines=[options(i, engine_share) for i in range(layout.engines)],
        learners=[options(first + i, 0.5 if layout.shared else 1) for i in range(layout.learners)],
        on_cpu=False,
        threads=max(1, (os.cpu_count() or 1) // (2 * max(1, layout.learners))),
    )


def _on_cpu(layout: Layout) -> Cluster:
    cores = len(os.sched_getaffinity(0))

    def options(count: int) -> list[dict[str, Any]]:
        threads = str(max(1, cores // max(1, count)))
        # Threads of a waiting process must not spin on cores that another one needs.
        environment = {
            "OMP_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            **KEEP_FREED_MEMORY,
        }
        return [{"num_cpus": 0, "runtime_env": {"env_vars": environment}}] * count

    return Cluster(
        engines=options(layout.engines),
        learners=options(layout.learners),
        on_cpu=True,
        threads=max(1, cores // max(layout.engines, layout.learners)),
    )


@dataclass(frozen=True)
class Workers:
    """What actors of one kind are called in errors, and what is raised for them."""

    name: str
    error: type[RuntimeError]
    passed_on: tuple[type[Exception], ...] = (ValueError,)
    """Errors of the user's making: raised as they are."""

    def wait(
        self, calls: Sequence[ray.ObjectRef], timeout_s: float, what: str, setting: str
    ) -> list:
        """Results of one call on each actor, in order.

        Args:
            what: the actors do, to follow "could not".
            setting: of the recipe, that gives them more time.

        Raises:
            Exception: one of `passed_on`, as the actor raised it; `error`, which names the actor,
                where it failed otherwise, died, or did not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        waiting = list(calls)
        while waiting:  # whoever fails first is heard first: the others may be waiting for it
            left = deadline - time.monotonic()
            done, waiting = ray.wait(waiting, num_returns=1, timeout=min(max(left, 0.1), POLL_S))
            check_stop()
            if not done and left <= 0:
                late = ", ".join(str(calls.index(call)) for call in waiting)
                raise self.error(
                    f"{self.name} {late} did not {what} within {timeout_s:.0f} s; raise {setting} "
                    "if the machine is only slow"
                )
            for call in done:
                self._check(call, calls.index(call), what)
        return ray.get(list(calls))

    def _check(self, call: ray.ObjectRef, number: int, what: str) -> None:
        try:
            ray.get(call)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, self.passed_on):
                raise cause from None
            raise self.error(
                f"{self.name} {number} could not {what}: {type(cause).__name__}: {cause}"
            ) from error
        except RayActorError as error:
            reason = str(error).strip().splitlines()
            raise self.error(
                f"{self.name} {number} died and could not {what}: {reason[-1]}"
            ) from None
