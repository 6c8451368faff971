"""Which responses are trained on, and in which step."""

from __future__ import annotations

from collections import Counter

import pytest
from groups import make_group

from thinking_rl.algorithm.advantage import set_advantages
from thinking_rl.algorithm.minibatches import minibatches, trained
from thinking_rl.report.iteration import batch_metrics
from thinking_rl.types import Conversation

NAMES = [f"p{number}" for number in range(7)]


def useful(count: int = 7) -> list[list[Conversation]]:
    groups = set_advantages([make_group(name, "R2", "W3") for name in NAMES[:count]])
    return trained(groups, version=1, oldest=0)


def test_groups_without_signal_are_left_out_or_kept() -> None:
    groups = set_advantages(
        [
            make_group("all right", "R2", "R2"),
            make_group("mixed", "R2", "W2", "F9"),
            make_group("lost", "F2", "F2"),
            make_group("one graded", "R2", "F2"),
            make_group("goes on", "R2", "W2", "G9"),
            make_group("all wrong", "W2", "W2"),
        ]
    )

    def names(**options: bool) -> list[tuple[str, int]]:
        found = trained(groups, version=1, oldest=0, **options)
        return [(one[0].problem_id, len(one)) for one in found]

    assert names() == [("mixed", 2), ("goes on", 2)]
    kept = [("all right", 2), ("mixed", 2), ("goes on", 2), ("all wrong", 2)]
    assert names(without_signal=True) == kept
    [right, *_] = trained(groups, version=1, oldest=0, without_signal=True)
    assert [one.advantage for one in right] == [0.0, 0.0]


def test_responses_of_older_policies_alone_are_left_out() -> None:
    groups = set_advantages([make_group("p", "R2", "W3")])  # the last token is of policy 1
    assert [sum(one.loss_mask) for one in trained(groups, 1, 1)[0]] == [1, 1]
    assert trained(groups, 2, 2) == []


@pytest.mark.parametrize(
    ("responses", "steps", "left"),
    [(2, 7, 0), (4, 3, 2), (5, 2, 4), (14, 1, 0), (15, 0, 14)],
)
def test_every_step_has_as_many_responses(responses: int, steps: int, left: int) -> None:
    groups = useful()
    batch = minibatches(groups, responses, "seed")
    assert [len(part) for part in batch] == [responses] * steps
    metrics = batch_metrics(groups, batch, planned=4)
    assert metrics == {"responses_skipped": left, "steps_skipped": max(0, 4 - steps)}
    taken = Counter((one.problem_id, one.advantage) for part in batch for one in part)
    assert set(taken.values()) <= {1}


def test_the_draw_is_by_seed_and_keeps_groups_together() -> None:
    def order(seed: str) -> list[str]:
        return [one.problem_id for part in minibatches(useful(), 14, seed) for one in part]

    assert order("a") == order("a")
    assert order("a") != order("b")
    assert order("a")[::2] == order("a")[1::2]
    assert sorted(order("a")[::2]) == NAMES
    firsts = Counter(order(str(seed))[0] for seed in range(700))
    assert all(60 < firsts[name] < 140 for name in NAMES)  # 100 expected, 4.3 sigma
