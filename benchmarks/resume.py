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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class End:
    """How a run is ended."""

    moment: str
    """The phase that it is in."""
    how: signal.Signals
    """SIGKILL takes all its processes at once; another signal is the command's."""
    times: int = 1
    """The signal is sent so often in a row."""


def end_at(run: SmallRun, end: End, delay_s: float) -> dict[str, Any]:
    """Start or resume a run, and end it so long after the moment has begun."""
    process = run.start()
    # A run that goes on publishes once more before it samples.
    run.wait(process, end.moment, 2 if end.moment == "publishing" else 1)
    time.sleep(delay_s)
    if process.poll() is not None:
        return {"moment": end.moment, "ended": False}
    begun = time.monotonic()
    for _ in range(end.times):
        process.send_signal(end.how)
        time.sleep(0.1)
    if end.how is signal.SIGKILL:
        for one in run.processes():
            one.kill()
    process.wait(60)
    _, left = psutil.wait_procs(run.processes(), timeout=30)
    seconds = round(time.monotonic() - begun, 1)
    return {"moment": end.moment, "ended": True, "seconds": seconds, "processes_left": len(left)}


def finish(run: SmallRun) -> None:
    """Let a run come to its end."""
    if code := run.start().wait(LONGEST_S):
        raise RuntimeError(f"the run ended with {code}; see {run.left.log}")


def overrides(engines: int) -> tuple[str, ...]:
    """Of the recipe: the engines' requests are dealt by number."""
    return (f"rollout.engines={engines}", "rollout.dealing=fixed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--signals", nargs="+", default=["SIGKILL", "SIGINT"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    for engines in options.engines:
        with tempfile.TemporaryDirectory() as place:
            whole = SmallRun(Path(place) / "whole", overrides(engines))
            finish(whole)
            expected = outcome(whole)
            trained = [row for row in expected[1] if row["stage"] == "rl"]
            for name in options.signals:
                how = signal.Signals[name]
                cut = SmallRun(Path(place) / name, overrides(engines))
                ends = [
                    end_at(cut, End(moment, how), draw.uniform(0, 0.3))
                    for moment in draw.sample(MOMENTS, len(MOMENTS))
                ]
                finish(cut)
                found = outcome(cut)
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
