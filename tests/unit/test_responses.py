"""`responses.jsonl` holds every response once, and enough to grade each again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewards.grade import read_rows
from rewards.math_answer import math_answer
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.report.responses import ResponseLog
from thinking_rl.types import FinishReason, Group, Problem, Score, Segment, Trajectory

SHOWN = Problem(
    id="geo-1",
    question="Which <image1>?",
    answer="B",
    images=(b"a picture",),
    choices=("3 cm", "4 cm"),
    source="geometry",
    subject="lengths",
    level=3,
    metadata={"unit": "cm", "path": Path("somewhere")},
)
PLAIN = Problem("sum-1", "12 + 30?", "42")


def answer(text: str, problem: Problem = PLAIN, finish: FinishReason = FinishReason.STOP):
    segments = (Segment((5, 6), (-0.25, -1.5), 3), Segment((7,), (-0.123456789,), 4))
    hashes = ("hash of the picture",) * len(problem.images)
    return Trajectory(problem.id, (1, 2), hashes, segments, text, finish)


def group(problem: Problem, *texts: str, graded: bool = True) -> Group:
    """Responses to a problem, as a run has graded them."""
    trajectories = tuple(answer(text, problem) for text in texts)
    if not graded:
        return Group(problem, trajectories)
    scores = tuple(math_answer(problem, text) for text in texts)
    return Group(problem, trajectories, scores, tuple(0.5 - n for n in range(len(texts))))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def log(folder: RunFolder) -> Iterator[ResponseLog]:
    log = ResponseLog(folder, 1.0)
    yield log
    log.close()


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.responses.read_text("utf-8").splitlines()]


def test_every_response_is_kept_once(folder: RunFolder, log: ResponseLog) -> None:
    log.write("rl", 0, [group(PLAIN, "42", "41", "none"), group(SHOWN, "B")])
    log.write("evaluation", "after_rl", [group(PLAIN, "42")])
    kept = rows(folder)  # before it is closed
    assert [(row["stage"], row["at"], row["id"], row["sample"]) for row in kept] == [
        ("rl", 0, "sum-1", 0),
        ("rl", 0, "sum-1", 1),
        ("rl", 0, "sum-1", 2),
        ("rl", 0, "geo-1", 0),
        ("evaluation", "after_rl", "sum-1", 0),
    ]
    assert [row["response"] for row in kept] == ["42", "41", "none", "B", "42"]
    assert [row["value"] for row in kept] == [1.0, 0.0, 0.0, 1.0, 1.0]
    assert [row["advantage"] for row in kept] == [0.5, -0.5, -1.5, 0.5, 0.5]
    assert log.left_out == 0


def test_a_row_says_all_of_a_response(folder: RunFolder, log: ResponseLog) -> None:
    score = Score(math.nan, None, "4", parts={"math": 0.0, "form": 1.0}, error="timeout")
    one = answer("◁think▷é\ud800\n◁/think▷B", SHOWN, FinishReason.LENGTH)
    log.write("rl", 7, [Group(SHOWN, (one,), (score,), (0.25,))])
    assert rows(folder) == [
        {
            "stage": "rl",
            "at": 7,
            "id": "geo-1",
            "question": "Which <image1>?",
            "answer": "B",
            "choices": ["3 cm", "4 cm"],
            "source": "geometry",
            "subject": "lengths",
            "level": 3,
            "metadata": {"unit": "cm", "path": repr(Path("somewhere"))},
            "sample": 0,
            "response": "◁think▷é\ud800\n◁/think▷B",
            "finish": "length",
            "length": 3,
            "image_hashes": ["hash of the picture"],
            "segments": [
                {"policy_version": 3, "token_ids": [5, 6], "logprobs": [-0.25, -1.5]},
                {"policy_version": 4, "token_ids": [7], "logprobs": [-0.12346]},
            ],
            "value": None,
            "correct": None,
            "outcome": "not_graded",
            "extracted": "4",
            "parts": {"math": 0.0, "form": 1.0},
            "error": "timeout",
            "note": None,
            "advantage": 0.25,
        }
    ]


def test_what_is_not_graded_yet_has_no_score(folder: RunFolder, log: ResponseLog) -> None:
    log.write("rl", 0, [group(PLAIN, "42", graded=False)])
    [row] = rows(folder)
    assert not {"value", "correct", "outcome"} & set(row)
    assert row["advantage"] is None


def test_beyond_its_size_rows_are_counted(folder: RunFolder, log: ResponseLog) -> None:
    one = group(PLAIN, "42")
    log.write("rl", 0, [one])
    log.close()
    size = folder.responses.stat().st_size
    folder.responses.unlink()
    small = ResponseLog(folder, (2 * size + size // 2) / 2**30)
    for iteration in range(5):
        small.write("rl", iteration, [one])
    assert [row["at"] for row in rows(folder)] == [0, 1]
    assert folder.responses.stat().st_size == 2 * size
    assert small.left_out == 3
    small.close()
    none = ResponseLog(RunFolder(folder.path / "none"), 0)
    none.write("rl", 0, [one])
    assert none.left_out == 1
    none.close()


def test_a_run_that_goes_on_drops_what_it_samples_again(
    folder: RunFolder, log: ResponseLog
) -> None:
    log.write("rl", 0, [group(PLAIN, "42", "41")])
    state = json.loads(json.dumps(log.state_dict()))
    before = folder.responses.read_bytes()
    log.write("rl", 1, [group(PLAIN, "lost")])
    log.close()
    again = ResponseLog(folder, 1.0)
    again.load_state_dict(state)
    assert folder.responses.read_bytes() == before
    again.write("rl", 1, [group(PLAIN, "sampled again")])
    assert [(row["at"], row["response"]) for row in rows(folder)] == [
        (0, "42"),
        (0, "41"),
        (1, "sampled again"),
    ]
    assert again.state_dict()["bytes"] == folder.responses.stat().st_size
    again.close()
    left_out = ResponseLog(folder, 1.0)
    left_out.load_state_dict({"bytes": 0, "left_out": 12})
    assert (folder.responses.read_bytes(), left_out.left_out) == (b"", 12)
    left_out.close()


def test_a_file_that_was_taken_away_is_begun_anew(folder: RunFolder) -> None:
    log = ResponseLog(folder, 1.0)
    log.load_state_dict({"bytes": 10_000, "left_out": 0})
    log.write("rl", 1, [group(PLAIN, "42")])
    assert [row["at"] for row in rows(folder)] == [1]  # and no hole of zeros before it
    log.close()


def test_a_row_is_graded_again_as_it_was(folder: RunFolder, log: ResponseLog) -> None:
    groups = [
        group(PLAIN, "◁think▷a◁/think▷ \\boxed{42}", "◁think▷42", "\\boxed{41}", ""),
        group(SHOWN, "◁think▷4◁/think▷ (B)", "◁think▷3◁/think▷ A", "4 cm"),
    ]
    log.write("rl", 0, groups)
    read = read_rows(folder.responses.read_text("utf-8").splitlines())
    assert len(read) == 7
    given = [score for one in groups for score in one.scores]
    assert {score.value for score in given} == {0.0, 1.0}
    for (problem, response), row, score in zip(read, rows(folder), given, strict=True):
        again = math_answer(problem, response)
        assert (again.value, again.correct) == (row["value"], row["correct"])
        assert (score.value, score.correct) == (row["value"], row["correct"])
