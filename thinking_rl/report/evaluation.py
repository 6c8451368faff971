"""What an evaluation on held-out problems measures, and the table of a run's evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from eval.statistics import Accuracy, accuracy, mean
from rewards.reading.extraction import THINK_CLOSE, THINK_OPEN
from thinking_rl.types import Group, Outcome

TABLE_WIDTH = 160


def held_out_result(
    greedy: Sequence[Group], sampled: Sequence[Group], caps: Sequence[int], step_mark: str
) -> dict[str, Any]:
    """What `summary.json` holds of an evaluation, ready for JSON.

    `greedy` and `sampled` each with accuracy, interval and mean length in tokens; `sampled` with
    pass@k, k the samples of a problem. `caps`: accuracy of the sampled responses where one of more
    tokens than the cap counts as wrong. `step_by_step`: share of the sampled responses that think
    step by step.

    Args:
        greedy: graded, one response to each problem.
        sampled: graded, the same problems.
        caps: in tokens.
        step_mark: see `thinks_step_by_step`.
    """
    of_samples = accuracy(_verdicts(sampled))
    samples = max((len(group.trajectories) for group in sampled), default=0)
    result = {
        "problems": len(greedy),
        "samples": samples,
        "greedy": _result(greedy, step_mark),
        "sampled": _result(sampled, step_mark)
        | {f"pass_at_{samples}": of_samples.pass_at.get(samples)},
        "caps": {str(cap): _share(accuracy(_verdicts(sampled, cap))) for cap in caps},
    }
    return result | {"step_by_step": result["sampled"]["step_by_step"]}


def thinks_step_by_step(response: str, step_mark: str) -> bool:
    """Whether `step_mark` stands in the response's thinking; an empty mark: whether it thinks."""
    _, opened, thought = response.partition(THINK_OPEN)
    thought = thought.partition(THINK_CLOSE)[0].strip()
    return bool(opened and thought and step_mark in thought)


def _result(groups: Sequence[Group], step_mark: str) -> dict[str, Any]:
    found = accuracy(_verdicts(groups))
    responses = [response for group in groups for response in group.trajectories]
    scores = [score for group in groups for score in group.scores]
    graded = [score.value for score in scores if score.outcome is not Outcome.NOT_GRADED]
    steps = [thinks_step_by_step(response.text, step_mark) for response in responses]
    return {
        "accuracy": _share(found),
        "interval_95": [found.low, found.high],
        "reward": _known(mean(graded)),
        "length": _known(mean([response.length for response in responses])),
        "step_by_step": _known(mean(steps)),
        "not_graded": len(scores) - len(graded),
    }


def _verdicts(groups: Sequence[Group], cap: int | None = None) -> list[list[bool | None]]:
    """By problem; None where there is no verdict."""

    def verdict(group: Group, index: int) -> bool | None:
        correct = group.scores[index].correct
        too_long = cap is not None and group.trajectories[index].length > cap
        return False if too_long and correct is not None else correct

    return [[verdict(group, i) for i in range(len(group.trajectories))] for group in groups]


def _share(found: Accuracy) -> float | None:
    return _known(found.mean)


def _known(value: float) -> float | None:
    """None, as JSON has no NaN."""
    return None if math.isnan(value) else value


def table_text(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Evaluations as a table, a line each, shares in percent with 95% intervals."""
    headings: dict[str, None] = {}
    rows = []
    for name, result in evaluations.items():
        cells = {"": name, **_cells(result)}
        headings |= dict.fromkeys(cells)
        rows.append(cells)
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for cells in rows:
        table.add_row(*(cells.get(heading, "") for heading in headings))
    console = Console(width=TABLE_WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _cells(result: Mapping[str, Any]) -> dict[str, str]:
    greedy, sampled, k = result["greedy"], result["sampled"], result["samples"]
    return {
        "greedy": _with_interval(greedy),
        "sampled": _with_interval(sampled),
        f"pass@{k}": percent(sampled[f"pass_at_{k}"]),
        "tokens": "?" if sampled["length"] is None else f"{sampled['length']:.1f}",
        "step by step": percent(result["step_by_step"]),
        **{f"{cap} tokens": percent(share) for cap, share in result["caps"].items()},
    }


def _with_interval(one: Mapping[str, Any]) -> str:
    low, high = one["interval_95"]
    return f"{percent(one['accuracy'])} ({percent(low)} to {percent(high)})"


def percent(share: float | None) -> str:
    """`0.664` -> `66.4%`; `?` where it is not known."""
    return "?" if share is None else f"{share:.1%}"
