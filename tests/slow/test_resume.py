"""With fixed dealing a run that was killed and resumed equals one that was not, responses that go
on over iterations included."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
from short_run import ShortRun

TIMINGS = ("time", "seconds", "tokens_per_s")
RECIPE = (
    "stages=[rl]",
    "rl.iterations=5",
    "rl.evaluate_every=2",
    "rollout.dealing=fixed",
    "rollout.phase_tokens=6",
    "rollout.max_age=1",
)


def rows(file: Path) -> list[dict]:
    """Of a jsonl file, without what depends on the clock."""
    return [
        {
            name: value
            for name, value in json.loads(line).items()
            if name.split("/")[0] not in TIMINGS and not name.endswith("_s")
        }
        for line in file.read_text().splitlines()
    ]


def outcome(run: ShortRun) -> tuple[list[dict], list[dict]]:
    return rows(run.run_dir / "metrics.jsonl"), rows(run.run_dir / "responses.jsonl")


@pytest.mark.parametrize("engines", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, engines: int, how: int) -> None:
    recipe = (*RECIPE, f"rollout.engines={engines}")
    (tmp_path / "whole").mkdir()
    whole = ShortRun(tmp_path / "whole")
    code, _, err = whole.run(*recipe)
    assert code == 0, err
    draw = random.Random(engines)
    (tmp_path / "cut").mkdir()
    cut = ShortRun(tmp_path / "cut")
    killed = 0
    while killed < 3:
        process = cut.start(*recipe, "resume=true")
        before = len(started(cut))
        while len(started(cut)) == before and process.poll() is None:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 4))
        if process.poll() is not None:
            break
        killed += 1
        process.send_signal(how)
        if how == signal.SIGKILL:
            for one in cut.processes():
                one.kill()
        process.communicate(timeout=60)
        assert cut.left_over() == []
    code, _, err = cut.run(*recipe, "resume=true")
    assert code == 0 or "holds a finished run" in err, err
    assert killed
    expected, found = outcome(whole), outcome(cut)
    assert found[1] == expected[1]
    assert found[0] == expected[0]
    lengths = [row["length"] for row in expected[1] if row["stage"] == "rl"]
    segments = [len(row["segments"]) for row in expected[1] if row["stage"] == "rl"]
    assert max(segments) > 1
    assert max(lengths) > 6


def started(run: ShortRun) -> list[str]:
    """Lines of the log that say that weights or engines are at work."""
    log = run.run_dir / "run.log"
    text = log.read_text(errors="replace") if log.exists() else ""
    return [line for line in text.splitlines() if "learner rank started" in line]
