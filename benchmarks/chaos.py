"""What a run does when its processes are killed: `python -m benchmarks.chaos FOLDER`.

A run of the small model with two engines that take what they have room for. Again and again one of
its processes is killed, or stopped by SIGSTOP, in a state that has a name; a run that ends is
resumed. One JSON line a strike: seconds until it was noticed, and until the engine served again (or
the run went on). At the end responses are counted: none may be missing, none there twice; and the
share of the time that was useful: that of the iterations, each as long as their median.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil

from benchmarks.small_run import LONGEST_S, SmallRun
from thinking_rl.run.state import find_position

OVERRIDES = (
    "rl.iterations=100000",
    "rl.evaluate_every=5",
    "rollout.engines=2",
    "rollout.dealing=free",
    "rollout.silence_s=15",
)
ENGINE, LEARNER, GRADER = "EngineActor", "RankActor", "rewards.processes.worker"
NOTICED = re.compile(r"rollout worker \d+ .*it is started again")
SERVES = re.compile(r"rollout worker \d+ serves again")
GRADED = re.compile(r"not graded, such as")


@dataclass(frozen=True)
class Strike:
    """What is done to a process."""

    state: str
    """Of the process."""
    phase: str
    """Of the run, in which it is in that state."""
    kind: str = ENGINE
    """Of the process."""
    how: signal.Signals = signal.SIGKILL
    """What it is sent."""
    latest_s: float = 0.0
    """It comes at a random moment up to so long after the phase has begun."""


STRIKES = (
    Strike("serving", "sampling", latest_s=0.3),
    Strike("serving, stopped", "sampling", how=signal.SIGSTOP),
    Strike("idle while responses are graded", "grading"),
    Strike("idle while the learner steps", "learning", latest_s=0.2),
    Strike("waking", "waking"),
    Strike("given weights", "sending"),
    Strike("given weights, stopped", "sending", how=signal.SIGSTOP),
    Strike("starting again", "sampling"),
    Strike("learner in a step", "learning", LEARNER, latest_s=0.2),
    Strike("grader", "grading", GRADER),
)


class Victim:
    """A run, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.run = SmallRun(folder, OVERRIDES)
        self.process = self.run.start()

    def said(self, pattern: re.Pattern[str]) -> int:
        """How often the log says something."""
        log = self.run.left.log
        return len(pattern.findall(log.read_text(errors="replace"))) if log.exists() else 0

    def wait(self, pattern: re.Pattern[str], more_than: int) -> float | None:
        """Seconds until the log says it once more; None: it ended, or did not say so."""
        begun = time.monotonic()
        while time.monotonic() - begun < LONGEST_S and self.process.poll() is None:
            if self.said(pattern) > more_than:
                return round(time.monotonic() - begun, 1)
            time.sleep(0.02)
        return None

    def next(self, phase: str) -> None:
        """Wait until a phase begins."""
        self.run.wait(self.process, phase, self.run.count(phase) + 1)

    def processes(self, kind: str) -> list[psutil.Process]:
        """Living ones of a kind; the youngest last."""
        found = []
        for one in self.run.processes():
            try:
                if kind in " ".join(one.cmdline()):
                    found.append((one.create_time(), one.pid, one))
            except psutil.Error:
                continue
        return [one for _, _, one in sorted(found)]


def strike(victim: Victim, one: Strike, draw: random.Random) -> dict[str, Any]:
    """Do it, and watch; a run that has ended is resumed first."""
    if victim.process.poll() is not None:
        victim.process = victim.run.start()
    victim.next("sampling")  # it is at work
    targets = victim.processes(one.kind)
    noticed, serves = victim.said(NOTICED), victim.said(SERVES)
    victim.next(one.phase)
    time.sleep(draw.uniform(0, one.latest_s))
    target = draw.choice(targets)
    if one.state == "starting again":  # the one that comes for a killed one
        target.kill()
        victim.wait(NOTICED, noticed)
        noticed, old = noticed + 1, {process.pid for process in targets}
        while not (new := [p for p in victim.processes(ENGINE) if p.pid not in old]):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 3))
        target = new[-1]
    os.kill(target.pid, one.how)
    if one.kind == LEARNER:
        return strike_learner(victim, one)
    if one.kind == GRADER:
        begun = time.monotonic()
        while len(victim.processes(GRADER)) < len(targets) or target.is_running():
            time.sleep(0.02)
        return {"state": one.state, "back_after_s": round(time.monotonic() - begun, 1)}
    found = {"state": one.state, "noticed_s": victim.wait(NOTICED, noticed)}
    found["serves_again_after_s"] = victim.wait(SERVES, serves)
    return found | {"went_on": victim.process.poll() is None}


def strike_learner(victim: Victim, one: Strike) -> dict[str, Any]:
    """The run ends with a checkpoint, and is resumed."""
    begun = time.monotonic()
    code = victim.process.wait(LONGEST_S)
    ended = round(time.monotonic() - begun, 1)
    position = find_position(victim.run.left)
    victim.process = victim.run.start()
    victim.run.wait(victim.process, "learning", 1)
    again = round(time.monotonic() - begun, 1)
    return {
        "state": one.state,
        "noticed_s": ended,
        "code": code,
        "resumed": str(position),
        "goes_on_after_s": again,
    }


def stop(victim: Victim) -> float:
    """Seconds that it takes after Ctrl-C."""
    begun = time.monotonic()
    victim.process.send_signal(signal.SIGINT)
    try:
        victim.process.wait(60)
    except subprocess.TimeoutExpired:
        victim.process.kill()
    psutil.wait_procs(victim.run.processes(), timeout=30)
    return round(time.monotonic() - begun, 1)


def count(victim: Victim) -> dict[str, Any]:
    """What became of every response that the last checkpoint knows of."""
    position = find_position(victim.run.left)
    assert position
    recorded = victim.run.left.responses.read_bytes()[: position.state["responses"]["bytes"]]
    rows = [row for row in map(json.loads, recorded.splitlines()) if row["stage"] == "rl"]
    ids = Counter((row["id"], row["sample"]) for row in rows)
    groups = Counter(row["id"] for row in rows)
    open_groups = position.state["stream"]["buffer"]["groups"]
    drawn = sum(position.state["sampler"]["stream"]["given"].values())
    return {
        "iterations": position.iteration,
        "responses": len(rows),
        "there_twice": sum(number > 1 for number in ids.values()),
        "groups_of_another_size": sum(number != 4 for number in groups.values()),
        "problems_drawn": drawn,
        "missing": drawn - len(groups) - len(open_groups),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--strikes", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=20.0, help="no strike begins later")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, victim = random.Random(options.seed), Victim(options.folder)
    victim.next("sampling")
    begun = time.monotonic()
    for one in islice(cycle(STRIKES), options.strikes):
        if time.monotonic() - begun < 60 * options.minutes:
            print(json.dumps(strike(victim, one, draw)), flush=True)
    took = time.monotonic() - begun
    stopped = stop(victim)
    rows = map(json.loads, victim.run.left.metrics.read_text().splitlines())
    paces = [row["seconds"] for row in rows if row["stage"] == "rl"]
    shares = {
        "stopped_in_s": stopped,
        "seconds": round(took),
        "useful": round(len(paces) * statistics.median(paces) / took, 3),
    }
    print(json.dumps(count(victim) | shares))


if __name__ == "__main__":
    main()
