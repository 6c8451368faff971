"""The model card that goes beside an exported checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from thinking_rl.files.hub import is_hub_id
from thinking_rl.recipe.schema import STAGES, Recipe
from thinking_rl.report.evaluation import table_text
from thinking_rl.report.summary import MILESTONES

HEADINGS = {"start": "At the start"} | {f"after_{s}": f"After {s.upper()}" for s in STAGES}


def model_card(recipe: Recipe, summary: Mapping[str, Any]) -> str:
    """A `README.md` for the hub: front matter, scores with intervals, how it was made, the recipe.

    `summary` is what `write_summary` returned.
    """
    name = recipe.run_dir.rstrip("/").split("/")[-1] or "thinking model"
    front = yaml.safe_dump(_front_matter(recipe), sort_keys=False)
    sections = [
        f"---\n{front}---",
        f"# {name}",
        f"Trained by thinking_rl from `{recipe.model.path}`, in stages: "
        f"{', then '.join(recipe.stages)}. It thinks between `◁think▷` and `◁/think▷` before it "
        "answers.",
        "## Scores",
        _scores(summary["evaluations"]),
        f"Share of right answers on held-out problems ({_names(recipe.data.eval)}), greedy and "
        f"sampled at temperature {recipe.data.eval_temperature:g}. The 95% intervals are over "
        "problems, not over repetitions of the training; tokens and step by step are those of the "
        "sampled responses.",
        *_benchmarks(summary["benchmarks"]),
        "## How it was made",
        _facts(summary),
        "## Recipe",
        f"```yaml\n{yaml.safe_dump(summary['recipe'], sort_keys=False, allow_unicode=True)}```",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(recipe: Recipe) -> dict[str, Any]:
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    if is_hub_id(recipe.model.path):
        front["base_model"] = recipe.model.path
    sources = recipe.data.train if recipe.active_rl else []
    sources = [*sources, *(recipe.active_sft.data if recipe.active_sft else [])]
    datasets = sorted({s.path for s in sources if s.path and is_hub_id(s.path)})
    if datasets:
        front["datasets"] = datasets
    return {**front, "tags": ["kimi-vl", "reasoning", "reinforcement-learning", "thinking_rl"]}


def _scores(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    measured = {HEADINGS[name]: evaluations[name] for name in MILESTONES if name in evaluations}
    return f"```\n{table_text(measured)}\n```" if measured else "Not evaluated."


def _benchmarks(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A section with the last run of each benchmark; nothing where there is none."""
    if not results:
        return []
    last = {name.partition("@")[0]: (name, item) for name, item in results.items()}
    lines = ["| benchmark | responses | official | 95% interval | strict |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, item in last.values():
        low, high = item["interval_95"]
        strict = "not graded" if item["strict"] is None else f"{item['strict']:.1%}"
        lines.append(
            f"| {name} | {item['total']} | {item['accuracy']:.1%} | {low:.1%} to {high:.1%} "
            f"| {strict} |"
        )
    text = "pass@1 by each benchmark's own rules (official) and by the grader of training (strict)."
    return ["## Benchmarks", "\n".join(lines), text]


def _facts(summary: Mapping[str, Any]) -> str:
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in summary["seconds"].items())
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    facts = {
        "Wall time": seconds or "not measured",
        "Seed": summary["seed"],
        "Commit": summary["git_commit"] or "not a checkout",
        "Versions": versions,
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _names(sources: list[Any]) -> str:
    return ", ".join(
        f"{source.format}" + (f" (levels {source.levels})" if source.format == "procedural" else "")
        for source in sources
    )
