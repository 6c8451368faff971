"""What RL adds to the first run, beside a control: `python -m benchmarks.first_run --out FOLDER`.

For each seed the recipe's warm-up is run. From its checkpoint RL goes on as the recipe says, and
the control goes on with the warm-up, for as many steps as take the time that RL took, at the
learning rate at which the warm-up ended. Both are evaluated on the same held-out problems. Prints
one JSON line a figure and the table as markdown; runs that are there are read, not repeated.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import figure
from thinking_rl.files.json_files import read_json
from thinking_rl.files.run_folder import RunFolder

RECIPE = "recipes/quickstart.yaml"
FEW = ("data.eval_problems=20", "data.eval_samples=8")
"""Of the warm-up's own evaluations: the other two runs repeat the one after it on all problems."""
POINTS = 100


def run(folder: RunFolder, *overrides: str) -> dict[str, Any]:
    """The summary of a run of the recipe, which is made where it is not there."""
    if not folder.summary.is_file():
        command = [sys.executable, "-m", "thinking_rl.train", RECIPE, f"run_dir={folder.path}"]
        subprocess.run([*command, *overrides], check=True)
    return read_json(folder.summary)


def evaluations(out: Path, seed: int) -> dict[str, Mapping[str, Any]]:
    """A seed's evaluations, by what they are called in the table."""
    folder = RunFolder.at(out / f"seed{seed}-warm-up")
    warm_up = run(folder, f"seed={seed}", "stages=[sft]", *FEW)
    start = (f"seed={seed}", f"model.path={folder.stage_weights('sft')}")
    rl = run(RunFolder.at(out / f"seed{seed}-rl"), *start, "stages=[rl]")
    longer = control_overrides(warm_up["recipe"]["sft"], warm_up["seconds"], rl["seconds"])
    control = run(RunFolder.at(out / f"seed{seed}-control"), *start, *longer)
    return {
        "before": warm_up["evaluations"]["start"],
        "after SFT": rl["evaluations"]["start"],
        "control": control["evaluations"]["after_sft"],
        "after RL": rl["evaluations"]["after_rl"],
    }


def control_overrides(
    sft: Mapping[str, Any], of_warm_up: Mapping[str, float], of_rl: Mapping[str, float]
) -> list[str]:
    """The warm-up again, at its last learning rate, for the seconds of RL."""
    steps = math.ceil(of_rl["rl"] / (of_warm_up["sft"] / sft["steps"]))
    rate = sft["optimizer"]["learning_rate"] * sft["optimizer"]["final_share"]
    return [
        "stages=[sft]",
        f"sft.steps={steps}",
        f"sft.optimizer.learning_rate={rate}",
        "sft.optimizer.final_share=1.0",
        "sft.optimizer.warmup_steps=0",
    ]


def row(seed: int, name: str, result: Mapping[str, Any]) -> str:
    """A line of the table."""
    greedy, sampled = result["greedy"], result["sampled"]
    cells = [
        str(seed),
        f"{name}, {result['problems']:,} problems",
        with_interval(greedy),
        with_interval(sampled),
        f"{sampled['pass_at_8']:.1%}",
        f"{greedy['length']:.1f}, {sampled['length']:.1f}",
        f"{greedy['step_by_step']:.1%}, {sampled['step_by_step']:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def with_interval(one: Mapping[str, Any]) -> str:
    low, high = one["interval_95"]
    return f"{one['accuracy']:.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        found = evaluations(options.out, seed)
        greedy = POINTS * found["after SFT"]["greedy"]["accuracy"]
        for name in ("control", "after RL"):
            value = POINTS * found[name]["sampled"]["accuracy"]
            problems = found[name]["problems"]
            title = f"temperature 1 {name}, against greedy after SFT"
            figure(title, value, "% right", greedy, problems, seed=seed)
        rows += [row(seed, name, result) for name, result in found.items()]
    print("| seed | | greedy | temperature 1 | pass@8 | tokens, both | step by step, both |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
