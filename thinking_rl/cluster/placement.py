"""Which devices a run asks for. No ray here: a dry run asks too."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from thinking_rl.recipe.schema import Recipe

ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Placement:
    """How many actors there are, and what they share. The words are those of the recipe."""

    engines: int = 1
    """vLLM engines."""
    tensor_parallel: int = 1
    """GPUs that each engine's weights are split over."""
    learners: int = 0
    """Learner workers; 0 where nothing is trained."""
    shared: bool = False
    """Whether engine i and learner worker i take turns on one GPU."""
    ray_address: str | None = None
    """Of a running Ray cluster to join; None: Ray is started."""


def placement_of(recipe: Recipe) -> Placement:
    """The actors of a run."""
    return Placement(
        engines=recipe.rollout.engines,
        tensor_parallel=recipe.rollout.tensor_parallel,
        learners=recipe.learner.workers,
        shared=recipe.rollout.placement == "shared",
        ray_address=recipe.ray_address,
    )


def check_answers(address: str) -> None:
    """See that something listens at a Ray cluster's address, `HOST:PORT`, or `auto`.

    Raises:
        ValueError: the address has another form, or nothing answers there.
    """
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"ray_address: expected HOST:PORT, such as node1:6379, not {address!r}")
    try:
        socket.create_connection((host, int(port)), ANSWER_TIMEOUT_S).close()
    except OSError as error:
        raise ValueError(
            f"ray_address: no Ray cluster answers at {address} ({error}); start one there with "
            "`ray start --head`, or leave ray_address out"
        ) from None


def bundles(placement: Placement) -> list[dict[str, float]]:
    """GPUs and CPUs to reserve together, for engines first, then learner workers; where they
    share, for each pair.

    Raises:
        ValueError: engines and learner workers cannot be paired.
    """
    if placement.shared:
        engines, parallel = placement.engines, placement.tensor_parallel
        if engines != placement.learners or parallel != 1:
            raise ValueError(
                "rollout.placement: shared puts one engine and one learner worker on each GPU: "
                f"rollout.engines ({engines}) must equal learner.workers "
                f"({placement.learners}) and rollout.tensor_parallel ({parallel}) be 1"
            )
        return [{"GPU": 1, "CPU": 2}] * placement.learners
    engine: dict[str, float] = {"GPU": placement.tensor_parallel, "CPU": 1}
    learner: dict[str, float] = {"GPU": 1, "CPU": 1}
    return [engine] * placement.engines + [learner] * placement.learners
