"""Which devices a run asks for. No ray here: a dry run asks too."""

from __future__ import annotations

from dataclasses import dataclass

from thinking_rl.recipe.schema import Recipe


@dataclass(frozen=True)
class Layout:
    """How many actors there are, and what they share. The words are those of the recipe."""

    engines: int = 1
    tensor_parallel: int = 1
    learners: int = 0
    shared: bool = False
    ray_address: str | None = None


def layout_of(recipe: Recipe) -> Layout:
    """The actors of a run."""
    return Layout(
        engines=recipe.rollout.engines,
        tensor_parallel=recipe.rollout.tensor_parallel,
        learners=recipe.learner.workers,
        shared=recipe.rollout.placement == "shared",
        ray_address=recipe.ray_address,
    )


def bundles(layout: Layout) -> list[dict[str, float]]:
    """GPUs and CPUs to reserve together, for engines first, then learner workers; where they
    share, for each pair.

    Raises:
        ValueError: engines and learner workers cannot be paired.
    """
    if layout.shared:
        engines, parallel = layout.engines, layout.tensor_parallel
        if engines != layout.learners or parallel != 1:
            raise ValueError(
                "rollout.placement: shared puts one engine and one learner worker on each GPU: "
                f"rollout.engines ({engines}) must equal learner.workers "
                f"({layout.learners}) and rollout.tensor_parallel ({parallel}) be 1"
            )
        return [{"GPU": 1, "CPU": 2}] * layout.learners
    engine: dict[str, float] = {"GPU": layout.tensor_parallel, "CPU": 1}
    learner: dict[str, float] = {"GPU": 1, "CPU": 1}
    return [engine] * layout.engines + [learner] * layout.learners
