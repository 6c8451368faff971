"""Problems worth training on: `python -m thinking_rl.data.curate RECIPE [key=value ...] --out DIR`.

Measures the problems of `data.train` with the recipe's model, drops what is guessable, repeated,
hackable or trivial, and writes the rest. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.command import count, exit_code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m thinking_rl.data.curate", description=__doc__)
    add = made.add_argument
    add("recipe", help="its data.train is curated, by its model, sampled as its rollout says")
    add("overrides", nargs="*", metavar="key=value", help="as for a run")
    add("--out", type=Path, required=True, help="folder to write")
    add("--problems", type=count, help="draw so many; needed where a source has no end")
    add("--samples", type=count, default=10, help="responses to each problem (default: 10)")
    add("--temperature", type=float, default=1.0, help="of all samples (default: 1.0)")
    add("--attempts", type=int, default=8, help="guesses with empty thinking; 0: no filter")
    add("--answer-tokens", type=count, default=64, help="longest guess (default: 64)")
    add("--answer-start", default="", help="what a guess begins with, such as '\\boxed{'")
    add("--hack-alpha", type=float, default=0.05, help="1: any hit drops, as in Kimi k1.5")
    add("--drop-types", default="choice,true_false,proof", help="question types; '' drops none")
    add("--lowest", type=float, default=0.0, help="pass rate that stays (default: 0)")
    add("--highest", type=float, default=0.99, help="pass rate that stays (default: 0.99)")
    add("--largest-domain", type=float, default=1.0, help="most of one domain, as a share")
    add(
        "--chunk",
        type=count,
        default=256,
        help="responses between two writes (default: 256)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns what `exit_code` says."""
    options = parser().parse_intermixed_args(argv)

    def work() -> None:
        from thinking_rl.curation.problems import curate  # heavy, and --help is not

        curate(options)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
