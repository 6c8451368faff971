"""Long chains of thought: `python -m thinking_rl.data.warmup RECIPE [key=value ...] --out DIR`.

A teacher, the recipe's model or an endpoint, answers the problems of `data.train`; what is verified
is kept, as a set that `sft.data` takes. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.command import count, exit_code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m thinking_rl.data.warmup", description=__doc__)
    add = made.add_argument
    add("recipe", help="its data.train is answered, graded by its rewards")
    add("overrides", nargs="*", metavar="key=value", help="as for a run")
    add("--out", type=Path, required=True, help="folder to write")
    add("--endpoint", default="", help="ask there, such as http://localhost:8000/v1")
    add("--teacher", default="", help="the endpoint's name of its model")
    add("--key-variable", default="", help="environment variable that holds the endpoint's key")
    add(
        "--parallel",
        type=count,
        default=8,
        help="requests to the endpoint at once (default: 8)",
    )
    add("--problems", type=count, help="draw so many; needed where a source has no end")
    add("--attempts", type=count, default=4, help="responses to each problem (default: 4)")
    add(
        "--per-problem",
        type=count,
        default=1,
        help="most chains kept of a problem (default: 1)",
    )
    add("--temperature", type=float, default=1.0)
    add("--prompts", choices=("behaviours", "none"), default="behaviours", help="none: no request")
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
        from thinking_rl.curation.warm_up import warm_up_set  # heavy, and --help is not

        warm_up_set(options)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
