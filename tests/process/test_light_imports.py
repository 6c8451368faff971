"""What a fresh process imports: help and dry runs answer before torch would have loaded, and the
algorithm needs little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "ray", "vllm", "transformers", "datasets", "pyarrow"}


def imported(*arguments: str) -> set[str]:
    """The packages that `python ARGUMENTS` imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line)
    return {name.partition(".")[0] for name in names}


def test_the_list_shows_what_is_imported() -> None:
    assert "torch" in imported("-c", "import torch")


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        (
            "thinking_rl.algorithm.advantage, thinking_rl.algorithm.sampler",
            HEAVY | {"numpy", "pydantic"},
        ),
        ("thinking_rl.algorithm.loss", {"transformers", "pydantic", "ray", "vllm"}),
    ],
)
def test_modules_that_need_little(modules: str, unwanted: set[str]) -> None:
    assert imported("-c", f"import {modules}").isdisjoint(unwanted)


def test_sources_are_checked_without_heavy_imports(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"question": "1 + 1?", "answer": "2"}) + "\n")
    code = (
        "from thinking_rl.data import check_source;"
        "from thinking_rl.recipe.schema import Source;"
        f"check_source(Source(format='plain', path={str(path)!r}));"
        "check_source(Source(format='procedural'))"
    )
    assert imported("-c", code).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval.run", "--help"],
        ["thinking_rl.train", "--help"],
        ["thinking_rl.data.curate", "--help"],
        ["thinking_rl.data.warmup", "--help"],
        ["thinking_rl.train", "recipes/quickstart.yaml", "--dry-run"],
        ["thinking_rl.train", "recipes/mathvision_smoke.yaml", "--dry-run", "data_dir=DATA"],
        ["thinking_rl.train", "recipes/kimi_vl_a3b_thinking.yaml", "--dry-run", "data_dir=DATA"],
    ],
)
def test_help_and_dry_runs_are_light(arguments: list[str], data_dir: Path) -> None:
    if "--dry-run" in arguments:
        arguments = [*arguments, "run_dir=DATA/run"]
    named = [argument.replace("DATA", str(data_dir)) for argument in arguments]
    assert imported("-m", *named).isdisjoint(HEAVY)
