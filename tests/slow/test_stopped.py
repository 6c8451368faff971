"""How a run ends that is told to: 130, its last checkpoint, no process and no Ray session left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from short_run import ShortRun

PATIENCE_S = 500
SESSIONS = Path("/tmp/ray")


def steps(run: ShortRun, stage: str) -> int:
    """Steps of a stage that the run has made so far."""
    metrics = run.run_dir / "metrics.jsonl"
    return metrics.read_text().count(f'"stage": "{stage}"') if metrics.exists() else 0


def sessions_of(run: ShortRun) -> set[Path]:
    """The folders that the run's raylet writes to."""
    found = set()
    for process in run.processes():
        line = " ".join(process.cmdline())
        found |= {Path(p) for p in line.replace("=", " ").split() if "session_20" in p}
    names = {part for path in found for part in path.parts if part.startswith("session_20")}
    return {SESSIONS / name for name in names}


def wait(run: ShortRun, process, is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not get so far"
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("stage", "overrides", "last"),
    [
        ("sft", ["sft.steps=100000"], "stopped"),
        ("rl", ["stages=[rl]", "rl.iterations=1000"], "stopped; resume=true goes on after RL"),
    ],
)
def test_sigterm_ends_a_stage_as_ctrl_c_does(
    tmp_path: Path, stage: str, overrides: list[str], last: str
) -> None:
    run = ShortRun(tmp_path)
    process = run.start("data.eval_problems=2", "data.eval_samples=1", *overrides)
    wait(run, process, lambda: steps(run, stage) >= 3)
    sessions = sessions_of(run)
    assert sessions
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith(last)
    assert "***" not in err, "a native stack trace"
    assert run.left_over() == []
    assert not any(session.exists() for session in sessions)


def test_a_second_run_in_the_folder_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    run = ShortRun(tmp_path)
    process = run.start("stages=[rl]", "rl.iterations=1000", "data.eval_problems=2")
    wait(run, process, lambda: steps(run, "rl") >= 1)
    before = sorted(os.listdir(run.run_dir))
    code, _, err = run.run("stages=[rl]", "overwrite=true", timeout_s=120)
    assert code == 2
    assert f"another process ({process.pid}) writes into it" in err.splitlines()[-1]
    assert set(before) <= set(os.listdir(run.run_dir))
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert run.left_over() == []
