"""What an evaluation measures: accuracy by cap, pass@k, intervals over problems, thinking."""

from __future__ import annotations

import random
import re

import pytest
from graded import answered, response

from eval.statistics import clustered_interval, wilson_interval
from thinking_rl.report.evaluation import held_out_result, table_text, thinks_step_by_step


def test_an_evaluation_has_the_keys_that_reports_promise() -> None:
    greedy = [answered([True], [response("◁think▷1+1=2◁/think▷2", 8)]), answered([False])]
    texts = ["◁think▷1+1=2◁/think▷2", "◁think▷2.◁/think▷2"]
    sampled = [
        answered([True, False], [response(texts[0], 12), response(texts[1], 4)]),
        answered([True, None], [response(texts[1], 4), response("", 64)]),
    ]
    result = held_out_result(greedy, sampled, [4, 12], "=")
    assert (result["problems"], result["samples"]) == (2, 2)
    assert result["greedy"]["accuracy"] == 0.5
    assert result["greedy"]["interval_95"] == list(wilson_interval(1, 2))
    assert result["greedy"]["length"] == 4.5
    assert result["sampled"]["accuracy"] == 0.75  # of what was graded, problem by problem
    assert result["sampled"]["length"] == 21
    assert result["sampled"]["not_graded"] == 1
    assert result["sampled"]["pass_at_2"] == 1.0  # of the problem that was graded whole
    assert result["caps"] == {"4": 0.5, "12": 0.75}
    assert result["step_by_step"] == 0.25
    assert result["greedy"]["step_by_step"] == 0.5


def test_a_response_beyond_the_cap_is_wrong_and_one_without_a_verdict_stays_so() -> None:
    one = answered([True, None, False], [response("", n) for n in (9, 9, 2)])
    caps = held_out_result([one], [one], [8, 9], "")["caps"]
    assert caps == {"8": 0.0, "9": 0.5}


@pytest.mark.parametrize(
    ("text", "mark", "expected"),
    [
        ("◁think▷3+4=7◁/think▷7", "=", True),
        ("◁think▷3 4.◁/think▷\\boxed{7}", "=", False),
        ("◁think▷3 4.◁/think▷3+4=7", "=", False),  # said, not thought
        ("3+4=7", "=", False),
        ("◁think▷3+4=7", "=", True),  # cut
        ("◁think▷ ◁/think▷7", "", False),
        ("◁think▷3 4◁/think▷7", "", True),
        ("", "", False),
    ],
)
def test_who_thinks_step_by_step(text: str, mark: str, expected: bool) -> None:
    assert thinks_step_by_step(text, mark) is expected


def test_nothing_graded_is_not_zero() -> None:
    nothing = held_out_result([answered([None])], [answered([None, None])], [4], "")
    assert nothing["greedy"]["accuracy"] is None
    assert nothing["sampled"]["pass_at_2"] is None
    assert nothing["caps"] == {"4": None}
    assert "?" in table_text({"start": nothing})


@pytest.mark.parametrize("samples", [1, 8])
def test_intervals_hold_the_truth_where_answers_come_in_clusters(samples: int) -> None:
    """Problems of unlike difficulty: 95% of the intervals hold the mean of all problems."""
    rng, held, rounds = random.Random(7), 0, 600
    for _ in range(rounds):
        chances = [rng.betavariate(0.5, 0.5) for _ in range(100)]  # mean 0.5
        shares = [sum(rng.random() < p for _ in range(samples)) / samples for p in chances]
        low, high = clustered_interval(shares)
        held += low <= 0.5 <= high
    assert 0.92 <= held / rounds <= 0.98


@pytest.mark.parametrize("shares", [[], [0.0] * 5, [1.0] * 5, [0.5, 0.5], [0.0, 1.0, 1.0]])
def test_intervals_at_the_edges(shares: list[float]) -> None:
    low, high = clustered_interval(shares)
    assert 0.0 <= low <= high <= 1.0
    if set(shares) <= {0.0, 1.0}:
        assert (low, high) == pytest.approx(wilson_interval(sum(shares), len(shares)))


def test_the_table_has_a_line_for_each_evaluation() -> None:
    one = held_out_result([answered([True])], [answered([True, False])], [12], "")
    lines = table_text({"start": one, "after_rl": one}).splitlines()
    assert re.split("  +", lines[0].strip()) == [
        *("greedy", "sampled", "pass@2", "tokens", "step by step", "12 tokens")
    ]
    assert [line.split()[0] for line in lines[1:]] == ["start", "after_rl"]
