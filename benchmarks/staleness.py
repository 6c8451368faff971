"""How old the trained tokens are: `python -m benchmarks.staleness`, one JSON line a bound.

Runs of the small model with two engines that go on while the learner steps, under
`rl.max_staleness` of 0, 1 and 2: tokens in the loss by the number of policies between the one that
sampled them and the one that is trained.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.small_run import LONGEST_S, SmallRun

AGE = "trained/age_"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bounds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=12)
    options = parser.parse_args()
    for bound in options.bounds:
        with tempfile.TemporaryDirectory() as folder:
            keys = (
                f"rl.max_staleness={bound}",
                f"rl.iterations={options.iterations}",
                "rollout.placement=separate",
                "rollout.engines=2",
                "rollout.dealing=free",
            )
            run = SmallRun(Path(folder), keys)
            code, ages, tokens = run.start().wait(2 * LONGEST_S), Counter[int](), 0
            for row in map(json.loads, run.left.metrics.read_text().splitlines()):
                tokens += row.get("tokens", 0) if row["stage"] == "rl" else 0
                for name, value in row.items():
                    if name.startswith(AGE):
                        ages[int(name.removeprefix(AGE))] += value
            figure = {"bound": bound, "code": code, "tokens_sampled": tokens}
            print(json.dumps(figure | {"trained_by_age": dict(sorted(ages.items()))}), flush=True)


if __name__ == "__main__":
    main()
