"""RL raises the reward that it is given: a random model learns to be brief."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from short_run import ShortRun

SETTINGS = (
    "stages=[rl]",
    "rl.iterations=8",
    "rl.problems_per_iteration=8",
    "rl.samples_per_problem=8",
    "rl.tau=0.01",
    "rl.optimizer.learning_rate=3e-3",
    "rl.checkpoint_every=0",
    "data.eval_problems=2",
)


def test_the_reward_rises(tmp_path: Path) -> None:
    """The mean over 64 responses has a standard error of 0.02 at most."""
    run = ShortRun(tmp_path)
    grader = f"rewards.parts.0.grader={tmp_path}/own_rewards.py:brief"
    code, _, err = run.run(*SETTINGS, grader)
    assert code == 0, err
    rows = map(json.loads, (run.run_dir / "metrics.jsonl").read_text().splitlines())
    rewards = [row["reward"] for row in rows if row["stage"] == "rl"]
    assert len(rewards) == 8
    assert statistics.mean(rewards[-2:]) > statistics.mean(rewards[:2]) + 0.15, rewards
