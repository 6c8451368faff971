"""Results for people: a table beside reported scores, and accuracy against thinking budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eval.measure import Measures
from eval.reported import SCALING, SCORES, THINKING_BUDGETS
from eval.statistics import Accuracy

THINKING, THINKING_2506 = "Kimi-VL-A3B-Thinking", "Kimi-VL-A3B-Thinking-2506"
WIDTH = 200
NOTE = (
    "Shares in percent with 95% intervals; thinking and length are means in tokens.\n"
    "Reported: Kimi-VL report, pass@1 on the full split (mmmu_pro: mean of its two halves) under\n"
    "prompts that it does not state; a rough guide."
)


def table_text(results: Sequence[Measures]) -> str:
    """The results, one line each; the same results give the same text."""
    headings = ("benchmark", "budget", "problems", "samples", "official", "strict", "pass@k")
    headings += ("thinking", "length", "no answer", "not graded", "cut", "forced")
    headings += ("Thinking, reported", "2506, reported")
    rows = [_cells(one) for one in results]
    kept = [column for column in range(len(headings)) if any(row[column] for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="")
    for column in kept:
        table.add_column(headings[column], justify="left" if column == 0 else "right")
    for row in rows:
        table.add_row(*(row[column] for column in kept))
    console = Console(width=WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([*lines, "", NOTE]) + "\n"


def _cells(one: Measures) -> list[str]:
    k = max(one.official.pass_at, default=1)
    return [
        one.benchmark,
        str(one.thinking_budget or ""),
        str(one.problems),
        str(one.samples),
        _share(one.official),
        _share(one.strict),
        f"@{k} {100 * one.official.pass_at[k]:.1f}" if k > 1 else "",
        f"{one.mean_thinking_tokens:,.0f}",
        f"{one.mean_tokens:,.0f}",
        str(one.parse_failed),
        str(one.not_graded),
        str(one.cut),
        str(one.forced_close) if one.thinking_budget else "",
        _reported(one.benchmark, one.thinking_budget),
        "" if one.thinking_budget else f"{SCORES[THINKING_2506].get(one.benchmark, '')}",
    ]


def _share(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.mean:.1f} ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})"


def _reported(benchmark: str, budget: int | None) -> str:
    if budget is None:
        return str(SCORES[THINKING].get(benchmark, ""))
    if benchmark in SCALING and budget in THINKING_BUDGETS:
        return str(SCALING[benchmark][THINKING_BUDGETS.index(budget)])
    return ""


def plot_budgets(results: Sequence[Measures], path: Path) -> None:
    """Official accuracy against thinking budget as a PNG, with the reported curves dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), dpi=150)
    for number, name in enumerate(dict.fromkeys(one.benchmark for one in results)):
        points = sorted(
            (one.thinking_budget, one.official)
            for one in results
            if one.benchmark == name and one.thinking_budget is not None
        )
        means = [100 * accuracy.mean for _, accuracy in points]
        below = [
            mean - 100 * accuracy.low for mean, (_, accuracy) in zip(means, points, strict=True)
        ]
        above = [
            100 * accuracy.high - mean for mean, (_, accuracy) in zip(means, points, strict=True)
        ]
        budgets, color = [budget for budget, _ in points], f"C{number}"
        axes.errorbar(
            budgets, means, [below, above], marker="o", capsize=3, color=color, label=name
        )
        if name in SCALING:
            label = f"{name}, reported {THINKING}"
            axes.plot(THINKING_BUDGETS, SCALING[name], "--", color=color, alpha=0.6, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("thinking budget (tokens)")
    axes.set_ylabel("pass@1, official rules (%)")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
