"""The README's commands, code and recipes, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from short_run import ROOT, ShortRun

README = (ROOT / "README.md").read_text()
TEXT = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
"""Without the fenced blocks."""
BLOCKS = [
    textwrap.dedent(block).strip()
    for block in re.findall(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+", TEXT)
]
"""What is indented: commands, recipes, a reward."""
COMMANDS = {
    " ".join(command.split())
    for command in re.findall(
        r"(?:(?<=`)|(?<= {4}))(?:python -m|make|ray start) [^#`\n]+", TEXT.replace("\\\n", " ")
    )
}
VIEW = "python -m thinking_rl.view runs/quickstart"
FULL = "recipes/kimi_vl_a3b_thinking.yaml data_dir=/data"
SHORT = (
    "sft.steps=1 sft.batch_size=4 rl.iterations=1 rl.problems_per_iteration=4 data.eval_samples=2 "
    "data.eval_problems=4 rl.samples_per_problem=2 rl.responses_per_step=8 rollout.max_sequences=16"
)
SHORTENED = {
    "make quickstart": (f'OVERRIDES="{SHORT} run_dir=$RUN"', "after_rl"),
    "make fast": ("--just-print", "-m pytest"),
    "make test": ("--just-print", "-m pytest"),
    "make docs": ("--just-print", "mkdocs build"),
    f"python -m thinking_rl.train {FULL} --dry-run": ("", "16,407,656,048"),
    f"python -m thinking_rl.train {FULL}": ("--dry-run", "8 workers"),
    f"python -m thinking_rl.train {FULL} ray_address=auto learner.workers=16 rollout.engines=16": (
        "--dry-run",
        "the Ray cluster at auto",
    ),
    f"python -m thinking_rl.doctor {FULL}": ("", "10 known answers graded"),
    "python -m thinking_rl.train recipes/mathvision_smoke.yaml data_dir=/path/to/data": (
        "--dry-run",
        "testmini",
    ),
    "python -m thinking_rl.data.curate": ("--help", "usage"),
    "python -m thinking_rl.data.warmup": ("--help", "usage"),
    "python -m eval.score": ("--help", "usage"),
    "python -m eval.run CHECKPOINT --benchmarks mathvision,mmmu": ("--help", "usage"),
}
"""What is added to a command here, and what it then says; the tests and the site are CI's own."""
ELSEWHERE = {
    VIEW: "below",
    "ray start --head": "of two machines",
    "ray start --address=HEAD:6379": "of two machines",
}
NVIDIA_SMI = "#!/bin/sh\n" + "echo 81920\n" * 16
"""Says that there are 16 GPUs."""


def run(command: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a shell would, with our packages; wherever it stands."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def arguments(command: str, data_dir: Path) -> list[str]:
    """Of a command of the README: with this Python and this installation, and other data."""
    command = re.sub(r"data_dir=\S+", f"data_dir={data_dir}", command)
    words = shlex.split(command.replace("$RUN", str(data_dir / "run")))
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    installed = [f"--old-file={sys.prefix}/.installed-{kind}" for kind in ("cpu", "gpu")]
    return [words[0], *installed, f"VENV={sys.prefix}", *words[1:]]


@pytest.fixture
def gpus(tmp_path: Path) -> str:
    """A PATH on which 16 GPUs are found, without one."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(NVIDIA_SMI)
    tool.chmod(0o755)
    return f"{tool.parent}{os.pathsep}{os.environ['PATH']}"


def test_no_command_is_forgotten() -> None:
    assert set(SHORTENED) | set(ELSEWHERE) == COMMANDS


@pytest.mark.parametrize("command", SHORTENED)
def test_command(command: str, data_dir: Path, gpus: str) -> None:
    added, says = SHORTENED[command]
    path = {"PATH": gpus} if f"thinking_rl.train {FULL}" in command else {}
    done = run(arguments(f"{command} {added}", data_dir), ROOT, **path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert says in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def beside_a_run(finished_run: ShortRun, tmp_path: Path) -> Path:
    """A folder where a run lies that the README calls runs/quickstart."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(finished_run.run_dir)
    return tmp_path


def test_the_page_is_served(beside_a_run: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, *VIEW.split()[1:]],
        cwd=beside_a_run,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url
        with urllib.request.urlopen(url.group(), timeout=30) as page:
            assert b"<title>" in page.read()
    finally:
        process.kill()


def test_the_ways_to_read_the_export_answer_alike(beside_a_run: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    theirs, engine = (code for code in blocks if "runs/quickstart/export" in code)
    generated, piped = printed(theirs, beside_a_run)
    assert generated
    assert generated == piped
    assert printed(engine, beside_a_run) == [generated]


def printed(code: str, cwd: Path) -> list[str]:
    """What a block prints, one entry for each `print`: texts of odd characters as one line each."""
    ascii_alone = "import builtins; print = lambda one: builtins.print(ascii(one))\n"
    done = run([sys.executable, "-c", ascii_alone + code], cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if line.startswith(("'", '"'))]


def test_the_reward_grades(tmp_path: Path) -> None:
    [code] = [block for block in BLOCKS if block.startswith("# my_rewards.py")]
    (tmp_path / "my_rewards.py").write_text(code)
    rows = [{"id": n, "response": "x" * n, "answer": "5"} for n in (199, 200)]
    done = subprocess.run(
        [sys.executable, "-m", "rewards.grade", "--grader", "my_rewards.py:concise"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input="".join(json.dumps(row) + "\n" for row in rows),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [json.loads(line)["value"] for line in done.stdout.splitlines()] == [1.0, 0.0]


@pytest.mark.parametrize("section", ["rewards", "data"])
def test_the_part_of_a_recipe_is_taken(section: str, data_dir: Path) -> None:
    [code] = [block for block in BLOCKS if block.startswith(f"{section}:\n")]
    recipe = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    recipe[section] |= yaml.safe_load(code.replace("/data/", f"{data_dir}/"))[section]
    (data_dir / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    [reward] = [block for block in BLOCKS if block.startswith("# my_rewards.py")]
    (data_dir / "my_rewards.py").write_text(reward)
    Dataset.from_dict({"prompt": ["2 + 3?"], "solution": ["5"]}).to_parquet(
        str(data_dir / "mine.parquet")
    )
    done = run([sys.executable, "-m", "thinking_rl.train", "recipe.yaml", "--dry-run"], data_dir)
    assert done.returncode == 0, done.stderr
