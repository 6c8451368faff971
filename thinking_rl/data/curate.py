"""Problems worth training on: `python -m thinking_rl.data.curate RECIPE [key=value ...] --out DIR`.

Measures the problems of `data.train` with the recipe's model, drops what is guessable, repeated,
hackable or trivial, and writes the rest. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from thinking_rl.cluster.stopping import stop_signals

EXIT_ERROR, EXIT_USER_ERROR, EXIT_STOPPED = 1, 2, 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m thinking_rl.data.curate", description=__doc__)
    add = made.add_argument
    add("recipe", help="its data.train is curated, by its model, sampled as its rollout says")
    add("overrides", nargs="*", metavar="key=value", help="as for a run")
    add("--out", type=Path, required=True, help="folder to write")
    add("--problems", type=int, help="draw so many; needed where a source has no end")
    add("--samples", type=int, default=10, help="responses to each problem (default: 10)")
    add("--temperature", type=float, default=1.0, help="of all samples (default: 1.0)")
    add("--attempts", type=int, default=8, help="guesses with empty thinking; 0: no filter")
    add("--answer-tokens", type=int, default=64, help="longest guess (default: 64)")
    add("--answer-start", default="", help="what a guess begins with, such as '\\boxed{'")
    add("--hack-alpha", type=float, default=0.05, help="1: any hit drops, as in Kimi k1.5")
    add("--drop-types", default="choice,true_false,proof", help="question types; '' drops none")
    add("--lowest", type=float, default=0.0, help="pass rate that stays (default: 0)")
    add("--highest", type=float, default=0.99, help="pass rate that stays (default: 0.99)")
    add("--largest-domain", type=float, default=1.0, help="most of one domain, as a share")
    add("--chunk", type=int, default=256, help="responses between two writes (default: 256)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Curate. 2: a mistake of the user's, said in one line. 1: it failed. 130: stopped."""
    options = parser().parse_intermixed_args(argv)
    with stop_signals():
        try:
            from thinking_rl.curation.problems import curate  # heavy, and --help is not

            curate(options)
        except (ValueError, OSError) as error:
            return _fail(f"error: {error}", EXIT_USER_ERROR)
        except RuntimeError as error:
            return _fail(f"error: {type(error).__name__}: {error}", EXIT_ERROR)
        except KeyboardInterrupt:
            return _fail("stopped; the same command goes on from here", EXIT_STOPPED)
    return 0


def _fail(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
