"""The picture that a run leaves: reward, length and accuracy along training, and accuracy against
the longest response allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinking_rl.recipe.schema import RL_STAGE, SFT_STAGE

START, AFTER_SFT, AFTER_RL = "start", f"after_{SFT_STAGE}", f"after_{RL_STAGE}"
PERCENT = 100


def draw_run(
    rows: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Mapping[str, Any]], path: Path
) -> None:
    """Draw a run to a PNG file.

    Args:
        rows: of `metrics.jsonl`; the RL stage's iterations are drawn.
        evaluations: on held-out problems, by name.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [row for row in rows if row["stage"] == RL_STAGE]
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(13, 3.8), dpi=120)
    _draw_rewards(left, steps, evaluations)
    _draw_curve(middle, steps, "length", "tokens")
    middle.set_title("Length of the responses in RL")
    _draw_caps(right, evaluations)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _draw_rewards(
    axes: Any, steps: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Mapping[str, Any]]
) -> None:
    """Reward and accuracy of what RL samples, with the held-out evaluations before and after."""
    _draw_curve(axes, steps, "reward", "reward", color="C7", linestyle=":", linewidth=3)
    _draw_curve(axes, steps, "accuracy", "accuracy of the samples")
    last = steps[-1]["iteration"] + 1 if steps else 1
    before = AFTER_SFT if AFTER_SFT in evaluations else START
    for how, marker in (("greedy", "s"), ("sampled", "o")):
        for number, (name, place) in enumerate(((before, 0), (AFTER_RL, last))):
            if (one := evaluations.get(name, {}).get(how)) and one["accuracy"] is not None:
                label = None if number else f"held out, {how}"
                axes.plot(place, one["accuracy"], marker, color="C3", label=label, alpha=0.8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("reward, share of right answers")
    axes.set_title("Reward and accuracy in RL")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7)


def _draw_curve(
    axes: Any, steps: Sequence[Mapping[str, Any]], name: str, label: str, **style: Any
) -> None:
    points = [(row["iteration"] + 1, row[name]) for row in steps if row.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("iteration")
    axes.set_ylabel(label)


def _draw_caps(axes: Any, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
    for name, result in evaluations.items():
        if result["caps"] and None not in result["caps"].values():
            caps = [int(cap) for cap in result["caps"]]
            shares = [PERCENT * share for share in result["caps"].values()]
            axes.plot(caps, shares, marker="o", label=name.replace("_", " "))
    axes.set_ylim(0, PERCENT)
    axes.set_xlabel("most tokens of a response")
    axes.set_ylabel("right, in time (%)")
    axes.set_title("Accuracy under a cap, held out, sampled")
    if axes.lines:
        axes.legend(fontsize=7)
