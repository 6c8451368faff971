"""What a run does when its processes are killed: `python -m benchmarks.chaos RUN_DIR`.

A run of the small model with two engines; engines are killed, or stopped by SIGSTOP, while they
start and while they serve, the learner at any moment; a run that ends is resumed. One JSON line a
strike: seconds until it was noticed, and until the engine served again. At the end the ids of all
responses are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
OVERRIDES = (
    "stages=[rl]",
    "data.eval_problems=8",
    "data.eval_samples=1",
    "rl.problems_per_iteration=8",
    "rl.checkpoint_every=1",
    "rollout.engines=2",
    "rollout.dealing=free",
    "rollout.phase_tokens=32",
    "rollout.max_sequences=32",
)
STATES = ("serving", "serving, stopped", "starting", "learner")
NOTICED = re.compile(r"rollout worker \d+ .*it is started again")
SERVES = re.compile(r"rollout worker \d+ serves again")
PATIENCE_S = 300.0


class Run:
    """A run, what it says, and its processes."""

    def __init__(self, run_dir: Path, iterations: int) -> None:
        self.run_dir, self.log = run_dir, run_dir / "run.log"
        recipe = str(ROOT / "recipes" / "quickstart.yaml")
        more = (f"run_dir={run_dir}", f"rl.iterations={iterations}", "resume=true")
        self.command = [sys.executable, "-m", "thinking_rl.train", recipe, *OVERRIDES, *more]
        self.start()

    def start(self) -> None:
        """Start it, or resume it."""
        output = subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=output, stderr=output)

    def count(self, pattern: str | re.Pattern[str]) -> int:
        """How often the log says something."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return len(re.findall(pattern, text))

    def actors(self, kind: str) -> list[psutil.Process]:
        """Living actors of a kind; the youngest last."""
        found = []
        for one in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if kind in " ".join(one.cmdline()):
                    found.append((one.create_time(), one.pid, one))
            except psutil.Error:
                continue
        return [one for _, _, one in sorted(found)]

    def wait(self, pattern: str | re.Pattern[str], more_than: int) -> float | None:
        """Seconds until the log says it once more; None: it ended, or did not say so."""
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE_S and self.process.poll() is None:
            if self.count(pattern) > more_than:
                return round(time.monotonic() - begun, 1)
            time.sleep(0.1)
        return None


def strike(run: Run, state: str, draw: random.Random) -> dict[str, object]:
    """Kill a process that is in this state, and watch."""
    iterations = run.count(r" rl \d+/")
    run.wait(r" rl \d+/", iterations)  # it is at work
    time.sleep(draw.uniform(0, 3))
    if state == "learner":
        return strike_learner(run)
    noticed, serves = run.count(NOTICED), run.count(SERVES)
    victim = draw.choice(run.actors("EngineActor"))
    if state == "starting":  # the one that comes for a killed one
        victim.kill()
        run.wait(NOTICED, noticed)
        starts = run.count("rollout worker started")
        run.wait("rollout worker started", starts)
        victim, noticed = run.actors("EngineActor")[-1], noticed + 1
    os.kill(victim.pid, signal.SIGSTOP if "stopped" in state else signal.SIGKILL)
    seconds = {"noticed_s": run.wait(NOTICED, noticed)}
    seconds["serves_again_after_s"] = run.wait(SERVES, serves)
    return {"state": state, **seconds, "went_on": run.process.poll() is None}


def strike_learner(run: Run) -> dict[str, object]:
    """The run ends with a checkpoint, and is resumed."""
    begun = time.monotonic()
    run.actors("RankActor")[-1].kill()
    code = run.process.wait(PATIENCE_S)
    ended, iterations = time.monotonic() - begun, run.count(r" rl \d+/")
    run.start()
    again = run.wait(r" rl \d+/", iterations)
    return {
        "state": "learner",
        "noticed_s": round(ended, 1),
        "code": code,
        "goes_on_after_s": again,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--strikes", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=1000)
    options = parser.parse_args()
    draw, run = random.Random(0), Run(options.run_dir.resolve(), options.iterations)
    begun = time.monotonic()
    for number in range(options.strikes):
        print(json.dumps(strike(run, STATES[number % len(STATES)], draw)), flush=True)
    took = time.monotonic() - begun
    run.process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    run.process.wait(60)
    stopped = round(time.monotonic() - begun, 1)
    rows = [json.loads(line) for line in (run.run_dir / "responses.jsonl").open()]
    ids = Counter((row["id"], row["sample"]) for row in rows if row["stage"] == "rl")
    metrics = [json.loads(line) for line in (run.run_dir / "metrics.jsonl").open()]
    useful = sum(row["seconds"] for row in metrics if row["stage"] == "rl")
    outcome = {
        "responses": sum(ids.values()),
        "twice": sum(count > 1 for count in ids.values()),
        "groups_of_another_size": sum(
            count != 8 for count in Counter(name for name, _ in ids).values()
        ),
        "useful_share": round(useful / took, 3),
        "stopped_in_s": stopped,
    }
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
