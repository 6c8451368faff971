"""Curation and warm-up sets that are killed half-way leave what one go leaves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.curation import run

RECIPE = """
model: {path: CHECKPOINT, dtype: float32, image_token_limit: 64}
data:
  train: [{format: procedural, families: [arithmetic], levels: [2, 3]}]
  eval: [{format: procedural, families: [arithmetic], levels: [2, 3]}]
  eval_problems: 6
stages: [rl]
rl:
  iterations: 1
  problems_per_iteration: 4
  tau: 0.1
  optimizer: {learning_rate: 1.0e-3}
rollout: {max_response_tokens: 16, max_model_tokens: 128, max_sequences: 16}
learner: {tokens_per_microbatch: 512}
rewards:
  workers: 1
  truncated: graded
  parts: [{grader: REWARDS:vowels}]
"""
REWARDS = '''
def vowels(problem, response):
    """A reward that a random model earns now and then."""
    return sum(letter in "aeiou" for letter in response) > 0.2 * max(1, len(response))
'''


@pytest.mark.parametrize(
    ("name", "rows", "result"),
    [
        ("curate", "samples.jsonl", "problems.parquet"),
        ("warmup", "chains.jsonl", "warmup.parquet"),
    ],
)
def test_killed_and_run_again(
    tiny_checkpoint: Path, tmp_path: Path, name: str, rows: str, result: str
) -> None:
    rewards = tmp_path / "own_rewards.py"
    rewards.write_text(REWARDS)
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.replace("REWARDS", str(rewards)).replace("CHECKPOINT", str(tiny_checkpoint))
    recipe.write_text(text)
    numbers = ["--problems", "8", "--chunk", "16"]
    numbers += ["--prompts", "none"] if name == "warmup" else ["--hack-alpha", "0"]
    command = [sys.executable, "-m", f"thinking_rl.data.{name}", str(recipe), *numbers, "--out"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run([*command, str(whole)])
    run([*command, str(killed)], killed / "responses" / rows, 1)
    assert not (killed / result).exists(), "it ended before it was killed"
    with (killed / "responses" / rows).open("ab") as file:
        file.write(b'[{"id": "torn')
    run([*command, str(killed)])
    for file in (result, f"responses/{rows}", "summary.json"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes(), file
    assert (whole / "responses" / rows).read_bytes().count(b"\n") >= 2
