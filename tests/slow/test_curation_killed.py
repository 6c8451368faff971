"""Curation and warm-up sets that are killed half-way leave what one go leaves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from short_run import write_recipe

from benchmarks.curation import run


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
    recipe = [str(write_recipe(tmp_path)), f"model.path={tiny_checkpoint}"]
    numbers = ["--problems", "8", "--chunk", "16"]
    numbers += ["--prompts", "none"] if name == "warmup" else ["--hack-alpha", "0"]
    command = [sys.executable, "-m", f"thinking_rl.data.{name}", *recipe, *numbers, "--out"]
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
