"""Does a run that was ended and went on equal one that was not? `python -m benchmarks.resume`.

Runs of the small model with fixed dealing, whose responses go on over iterations: one that nothing
ends, and one that is ended in the midst of sampling, learning, publishing, saving and evaluating,
and resumed each time. One JSON line for each: whether `metrics.jsonl` and `responses.jsonl` are the
same in everything but timings.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.small_run import LONGEST_S, SmallRun

MOMENTS = ("sampling", "learning", "publishing", "saving", "evaluating")
TIMINGS = ("time", "seconds", "idle_seconds", "tokens_per_s")


def rows(file: Path) -> list[dict]:
    """Of a jsonl file, without what depends on the clock."""
    return [
        {
            name: value
            for name, value in json.loads(line).items()
            if name.split("/")[0] not in TIMINGS and not name.endswith("_s")
        }
        for line in file.read_text().splitlines()
    ]


def outcome(run: SmallRun) -> tuple[list[dict], list[dict]]:
    """What it measured, and its responses."""
    return rows(run.left.metrics), rows(run.left.responses)


def end_at(
    run: SmallRun,
    moment: str,
    number: int,
    how: signal.Signals,
    delay_s: float,
    times: int = 1,
) -> dict:
    """Start or resume a run, and end it so long after the moment has begun the number-th time.
    SIGKILL takes all its processes at once; another signal is the command's, `times` in a row."""
    process = run.start()
    run.wait(process, moment, number)
    time.sleep(delay_s)
    if process.poll() is not None:
        return {"moment": moment, "ended": False}
    begun = time.monotonic()
    for _ in range(times):
        process.send_signal(how)
        time.sleep(0.1)
    if how is signal.SIGKILL:
        for one in run.processes():
            one.kill()
    process.wait(60)
    _, left = psutil.wait_procs(run.processes(), timeout=30)
    took = round(time.monotonic() - begun, 1)
    return {"moment": moment, "ended": True, "seconds": took, "processes_left": len(left)}


def finish(run: SmallRun) -> None:
    """Let a run come to its end."""
    if code := run.start().wait(LONGEST_S):
        raise RuntimeError(f"the run ended with {code}; see {run.left.log}")


def compare(
    folder: Path,
    engines: int,
    how: signal.Signals,
    moments: Sequence[str],
    draw: random.Random,
    whole: SmallRun | None = None,
) -> tuple[SmallRun, SmallRun, list[dict]]:
    """An uninterrupted run (or the one given), one that was ended at the moments, and how that
    went."""
    overrides = (f"rollout.engines={engines}", "rollout.dealing=fixed")
    if whole is None:
        whole = SmallRun(folder / "whole", overrides)
        finish(whole)
    cut = SmallRun(folder / f"cut-{how.name}", overrides)
    # A run that goes on publishes once more before it samples.
    ends = [
        end_at(cut, moment, 1 + (moment == "publishing"), how, draw.uniform(0, 0.3))
        for moment in moments
    ]
    finish(cut)
    return whole, cut, ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--signals", nargs="+", default=["SIGKILL", "SIGINT"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, whole = random.Random(options.seed), None
    for engines in options.engines:
        whole = None
        with tempfile.TemporaryDirectory() as place:
            for name in options.signals:
                moments = draw.sample(MOMENTS, len(MOMENTS))
                how = signal.Signals[name]
                whole, cut, ends = compare(Path(place), engines, how, moments, draw, whole)
                expected, found = outcome(whole), outcome(cut)
                trained = [row for row in expected[1] if row["stage"] == "rl"]
                figures = {
                    "engines": engines,
                    "signal": name,
                    "ends": ends,
                    "metrics_equal": found[0] == expected[0],
                    "responses_equal": found[1] == expected[1],
                    "rows": [len(one) for one in expected],
                    "responses_of_several_segments": sum(len(r["segments"]) > 1 for r in trained),
                }
                print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
