"""With fixed dealing a run that was ended and went on equals one that was not, responses that go on
over iterations included; in the warm-up too. `python -m benchmarks.resume` ends more of them."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from benchmarks.resume import compare, outcome


@pytest.mark.parametrize(
    ("engines", "how", "moments"),
    [
        (2, signal.SIGKILL, ("publishing", "saving")),
        (1, signal.SIGINT, ("sampling",)),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, engines: int, how: signal.Signals, moments: tuple[str, ...]
) -> None:
    whole, cut, ends = compare(tmp_path, engines, how, moments, random.Random(engines))
    for end in ends:
        assert end["ended"]
        assert end["seconds"] < 10
    expected, found = outcome(whole), outcome(cut)
    assert found[1] == expected[1]
    assert found[0] == expected[0]
    trained = [row for row in expected[1] if row["stage"] == "rl"]
    assert {len(row["segments"]) for row in trained} == {1, 2}
    iterations = [row["iteration"] for row in expected[0] if row["stage"] == "rl"]
    assert iterations == [*range(6)]
