"""With fixed dealing a run that was ended and went on equals one that was not, responses that go on
over iterations included. `python -m benchmarks.resume` ends more of them, at more moments."""

from __future__ import annotations

import signal
from pathlib import Path

from benchmarks.resume import End, end_at, finish, outcome, overrides
from benchmarks.small_run import SmallRun

KILL, CTRL_C = signal.SIGKILL, signal.SIGINT


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = (SmallRun(tmp_path / name, overrides(engines=2)) for name in ("whole", "cut"))
    finish(whole)
    for end in (End("learning", KILL), End("sampling", CTRL_C)):
        said = end_at(cut, end, delay_s=0.1)
        assert said["ended"]
        assert said["processes_left"] == 0
        assert end.how is KILL or said["seconds"] < 10
    finish(cut)
    expected, found = outcome(whole), outcome(cut)
    assert found[1] == expected[1]
    assert found[0] == expected[0]
    trained = [row for row in expected[1] if row["stage"] == "rl"]
    assert {len(row["segments"]) for row in trained} == {1, 2}
    iterations = [row["iteration"] for row in expected[0] if row["stage"] == "rl"]
    assert iterations == [*range(6)]


def test_asked_twice_a_run_ends_at_once(tmp_path: Path) -> None:
    said = end_at(SmallRun(tmp_path, overrides(engines=1)), End("learning", CTRL_C, times=2), 0.0)
    assert said["ended"]
    assert said["processes_left"] == 0
    assert said["seconds"] < 5
