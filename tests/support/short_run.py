"""Short whole runs through the command line, for the tests that need one."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.small_run import living
from thinking_rl.files.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
MARK = "THINKING_RL_TEST_RUN"

RECIPE = """
model: {path: tiny, dtype: float32, image_token_limit: 64}
data:
  train: [{format: procedural, families: [arithmetic], levels: [1, 2]}]
  eval: [{format: procedural, families: [arithmetic], levels: [1, 2]}]
  eval_problems: 6
sft:
  data: [{format: procedural, families: [arithmetic], levels: [1, 2]}]
  steps: 2
  batch_size: 4
  optimizer: {learning_rate: 1.0e-3, final_share: 0.1}
rl:
  iterations: 2
  problems_per_iteration: 4
  samples_per_problem: 4
  responses_per_step: 4
  tau: 0.1
  checkpoint_every: 1
  optimizer: {learning_rate: 1.0e-3}
rollout: {max_response_tokens: 16, max_model_tokens: 128, max_sequences: 16, agreement_responses: 2}
learner: {tokens_per_microbatch: 512, threads: 1}
rewards:
  workers: 1
  truncated: graded
  parts: [{grader: REWARDS:vowels}]
"""

REWARDS = '''
from thinking_rl.types import Score

def vowels(problem, response):
    """A reward that a random model earns now and then."""
    share = sum(letter in "aeiou" for letter in response) / max(1, len(response))
    return Score(share, correct=share > 0.2)

def brief(problem, response):
    """Next to nothing for a random model's responses, whose tokens have ten characters each."""
    return max(0.0, 1 - len(response) / 80)

def constant(problem, response):
    return 0.5

def faulty(problem, response):
    if len(response) % 2:
        raise RuntimeError("out of order")
    return "0.5"
'''


def write_recipe(folder: Path) -> Path:
    """The recipe's file, beside that of its reward."""
    rewards = folder / "own_rewards.py"
    rewards.write_text(REWARDS)
    recipe = folder / "short.yaml"
    recipe.write_text(RECIPE.replace("REWARDS", str(rewards)))
    return recipe


@dataclass
class ShortRun:
    """A run's folder, and the processes that belong to it."""

    folder: Path
    program: tuple[str, ...] = ("-m", "thinking_rl.train")
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def left(self) -> RunFolder:
        """What the run leaves."""
        return RunFolder(self.run_dir)

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        """Start the run; stdout and stderr are pipes."""
        command = [sys.executable, *self.program, str(write_recipe(self.folder))]
        return subprocess.Popen(
            [*command, f"run_dir={self.run_dir}", *overrides],
            cwd=ROOT,
            env=os.environ | {MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *overrides: str, timeout_s: float = 600) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the whole run."""
        process = self.start(*overrides)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            for one in self.processes():
                one.kill()
            raise
        return process.returncode, out, err

    def processes(self) -> list[psutil.Process]:
        """All living processes of the run: they inherit a mark in their environment."""
        return living(MARK, self.mark)

    def left_over(self, patience_s: float = 15) -> list[str]:
        """Command lines of the run's processes that do not end by themselves."""
        _, alive = psutil.wait_procs(self.processes(), timeout=patience_s)
        return [" ".join(process.cmdline()) for process in alive]
