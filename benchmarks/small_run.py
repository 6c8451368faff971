"""Whole runs of the small model that take seconds, for the benchmarks that kill them.

`python -m benchmarks.small_run FILE RECIPE [key=value ...]` is `python -m thinking_rl.train`, and
writes into FILE what the run does: a line when a phase begins, and one with `/` when it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import psutil

from thinking_rl.files.run_folder import RunFolder
from thinking_rl.types import Problem, Score

ROOT = Path(__file__).parents[1]
PHASES = {
    "sampling": ("rollouts.stream", "Stream", "collect"),
    "grading": ("thinking_rl.run.grading", "Grader", "grade"),
    "learning": ("thinking_rl.learner.group", "Learner", "train"),
    "waking": ("rollouts.pool", "RolloutPool", "wake"),
    "sending": ("rollouts.pool", "RolloutPool", "publish"),
    "publishing": ("thinking_rl.publication.publish", "Publisher", "publish"),
    "saving": ("thinking_rl.learner.group", "Learner", "save"),
    "evaluating": ("thinking_rl.rl", None, "evaluate_once"),
}
"""What does it: module, class, function."""
LONGEST_S = 300.0
MARK = "THINKING_RL_SMALL_RUN"
RECIPE = f"""
stages: [rl]
model: {{path: tiny, dtype: float32, image_token_limit: 64}}
data:
  train: [{{format: procedural, families: [arithmetic], levels: [1, 2]}}]
  eval: [{{format: procedural, families: [arithmetic], levels: [1, 2]}}]
  eval_problems: 4
rl:
  iterations: 6
  problems_per_iteration: 4
  samples_per_problem: 4
  responses_per_step: 8
  tau: 0.1
  checkpoint_every: 1
  evaluate_every: 2
  optimizer: {{learning_rate: 1.0e-3, final_share: 0.1}}
rollout:
  max_response_tokens: 24
  max_model_tokens: 128
  max_sequences: 16
  agreement_responses: 2
  phase_tokens: 8
  max_age: 1
learner: {{tokens_per_microbatch: 512, threads: 1}}
rewards:
  workers: 1
  truncated: graded
  parts: [{{grader: "{__file__}:vowels"}}]
"""


def vowels(problem: Problem, response: str) -> Score:
    """A reward that a random model earns now and then."""
    share = sum(letter in "aeiou" for letter in response) / max(1, len(response))
    return Score(share, correct=share > 0.2)


@dataclass
class SmallRun:
    """A run's folder, and the processes that belong to it."""

    folder: Path
    """The run's own, and its recipe, lie in it."""
    overrides: tuple[str, ...] = ()
    """Of the recipe."""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    """In the environment of all its processes."""

    @property
    def left(self) -> RunFolder:
        """What the run leaves."""
        return RunFolder(self.folder.resolve() / "run")

    @property
    def phases(self) -> Path:
        """What it does since it was started."""
        return self.folder.resolve() / "phases"

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, or let it go on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        recipe = self.folder.resolve() / "small.yaml"
        recipe.write_text(RECIPE)
        self.phases.write_text("")
        command = [sys.executable, "-m", "benchmarks.small_run", str(self.phases), str(recipe)]
        return subprocess.Popen(
            [*command, f"run_dir={self.left.path}", "resume=true", *self.overrides],
            cwd=ROOT,
            env=os.environ | {MARK: self.mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def count(self, phase: str) -> int:
        """How often a phase has begun since the start."""
        return self.phases.read_text().splitlines().count(phase)

    def wait(self, process: subprocess.Popen[bytes], phase: str, number: int) -> bool:
        """Wait until a phase begins the number-th time since the start; whether it did.

        Raises:
            RuntimeError: it did not, and the run did not end either.
        """
        begun = time.monotonic()
        while self.count(phase) < number and process.poll() is None:
            if time.monotonic() - begun > LONGEST_S:
                raise RuntimeError(f"the run did not come to {phase} within {LONGEST_S:.0f} s")
            time.sleep(0.01)
        return process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """All that live."""
        return living(MARK, self.mark)


def living(name: str, value: str) -> list[psutil.Process]:
    """The living processes that have inherited a variable with this value."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != "zombie":
                found.append(process)
        except psutil.Error:
            continue
    return found


def mark(phase: str, file: Path) -> None:
    """Let a phase say when it begins and ends."""
    module, owner, name = PHASES[phase]
    place = getattr(import_module(module), owner) if owner else import_module(module)
    original = getattr(place, name)

    def say(text: str) -> None:
        with file.open("a") as lines:
            lines.write(f"{text}\n")

    def marked(*given: object, **named: object) -> object:
        say(phase)
        try:
            return original(*given, **named)
        finally:
            say(f"/{phase}")

    setattr(place, name, marked)


def main(arguments: list[str]) -> int:
    for phase in PHASES:
        mark(phase, Path(arguments[0]))
    from thinking_rl import train

    return train.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
