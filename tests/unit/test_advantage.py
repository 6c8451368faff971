import math
import random

import numpy as np
import pytest

from thinking_rl.algorithm.advantage import (
    GroupCounts,
    baseline,
    count_groups,
    graded,
    log_mean_exp_baseline,
    mean_baseline,
    set_advantages,
    trainable,
)
from thinking_rl.algorithm.length import LengthShaping
from thinking_rl.recipe.rl import Length
from thinking_rl.types import FinishReason, Group, Problem, Score, Segment, Trajectory

RIGHT = Score(1.0, correct=True)
WRONG = Score(0.0, correct=False)
FAILED = Score(0.0, error="timeout")
STOP, UNFINISHED = FinishReason.STOP, FinishReason.UNFINISHED


def make_group(scores, lengths=None, reasons=None):
    lengths = lengths or [3] * len(scores)
    reasons = reasons or [STOP] * len(scores)
    trajectories = tuple(
        Trajectory("p", (1,), (), (Segment((7,) * n, (-0.5,) * n, 0),), "text", reason)
        for n, reason in zip(lengths, reasons, strict=True)
    )
    return Group(Problem("p", "1 + 1?", "2"), trajectories, tuple(scores))


def advantages_of(*args, length_weight=0.0, **kwargs):
    shaping = LengthShaping(Length(reward_weight=length_weight), max_response_tokens=100)
    (group,) = set_advantages(shaping.apply([make_group(*args, **kwargs)], 0))
    return list(group.advantages)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1, 0], [0.5, -0.5]),
        ([1.0, 0.0, 0.0, 0.0], [0.75, -0.25, -0.25, -0.25]),
        ([10.0, 0.0, 0.0, 0.0], [7.5, -2.5, -2.5, -2.5]),  # no division by the deviation
    ],
)
def test_mean_baseline(rewards, expected):
    advantages = mean_baseline(rewards)
    assert advantages == expected
    assert all(type(advantage) is float for advantage in advantages)


def test_equal_rewards_leave_exactly_nothing():
    """A sum divided by k would fail here: 0.1 + 0.1 + 0.1 is not 3 * 0.1 in floating point."""
    generator = random.Random(0)
    for _ in range(300):
        reward, k = generator.uniform(-2, 2), generator.randrange(1, 65)
        advantages = mean_baseline([reward] * k)
        assert advantages == log_mean_exp_baseline([reward] * k, generator.uniform(0.01, 9))
        assert advantages == [0.0] * k
        assert not np.asarray(advantages, dtype=np.float32).any()


def test_empty_group_is_refused():
    with pytest.raises(ValueError, match="data point"):
        mean_baseline([])
    with pytest.raises(ValueError, match="empty"):
        log_mean_exp_baseline([], 1.0)


@pytest.mark.parametrize(
    ("rewards", "tau", "log_z"),
    [
        ([1.0, 0.0], 1.0, math.log((math.e + 1) / 2)),
        ([1.0, 0.0, 0.0, 0.0], 0.5, 0.5 * math.log((math.e**2 + 3) / 4)),
        ([3.0, 3.0, -1.0], 2.0, 2.0 * math.log((2 * math.e**1.5 + math.e**-0.5) / 3)),
        ([1.0, 0.0], 1e-3, 1.0 - 1e-3 * math.log(2)),  # towards the largest, without overflow
        ([1.0, 0.0], 1e6, 0.5),  # towards the mean
    ],
)
def test_log_mean_exp_baseline(rewards, tau, log_z):
    expected = [reward - log_z for reward in rewards]
    assert log_mean_exp_baseline(rewards, tau) == pytest.approx(expected, abs=1e-6)
    assert baseline(rewards, "log_mean_exp", tau) == log_mean_exp_baseline(rewards, tau)


def test_the_baseline_is_that_of_the_recipe():
    groups = [make_group([RIGHT, WRONG])]
    [group] = set_advantages(groups, "log_mean_exp", 0.5)
    assert list(group.advantages) == log_mean_exp_baseline([1.0, 0.0], 0.5)


def test_failed_gradings_stay_out_of_the_mean():
    assert advantages_of([RIGHT, FAILED, WRONG, WRONG, WRONG]) == [0.75, 0.0, -0.25, -0.25, -0.25]
    # Counted as a wrong answer, the failure would give the right ones an advantage.
    assert advantages_of([RIGHT, FAILED, RIGHT]) == [0.0, 0.0, 0.0]


def test_unfinished_responses_stay_out():
    reasons = [STOP, UNFINISHED, FinishReason.LENGTH]
    group = make_group([RIGHT, RIGHT, WRONG], reasons=reasons)
    assert trainable(group) == graded(group) == [0, 2]
    assert set_advantages([group])[0].advantages == (0.5, 0.0, -0.5)


@pytest.mark.parametrize("scores", [[RIGHT], [RIGHT, FAILED], [FAILED, FAILED], []])
def test_fewer_than_two_graded_is_no_signal(scores):
    (group,) = set_advantages([make_group(scores)])
    assert trainable(group) == []
    assert not group.has_signal
    assert group.advantages == (0.0,) * len(scores)


def test_length_reward_is_weighted_and_added():
    # Length rewards: right and shortest .5, right and longest -.5, wrong in the middle min(0, 0).
    scores, lengths = [RIGHT, RIGHT, WRONG], [10, 30, 20]
    rewards = [1 + 0.4 * 0.5, 1 - 0.4 * 0.5, 0.0]
    expected = [reward - 2 / 3 for reward in rewards]
    assert advantages_of(scores, lengths, length_weight=0.4) == pytest.approx(expected)
    assert advantages_of(scores, lengths) == pytest.approx([1 / 3, 1 / 3, -2 / 3])


def test_wrong_or_unjudged_answers_earn_no_length_bonus():
    unjudged = Score(1.0)
    for score in (WRONG, unjudged):
        shortest, longest = advantages_of([score, score], [10, 30], length_weight=1.0)
        assert (shortest, longest) == (0.25, -0.25)  # rewards 0 and -.5 on top of the score


def test_length_range_is_that_of_the_responses_that_train():
    scores, lengths = [RIGHT, RIGHT, FAILED, RIGHT], [10, 30, 1, 9999]
    reasons = [STOP, STOP, STOP, UNFINISHED]
    assert advantages_of(scores, lengths, reasons, length_weight=1.0) == [0.5, -0.5, 0.0, 0.0]


def test_bad_reward_names_the_problem():
    with pytest.raises(ValueError, match=r"problem 'p' must be finite, got \[nan"):
        set_advantages([make_group([Score(float("nan")), RIGHT])])


def test_count_groups():
    groups = [
        make_group([RIGHT, WRONG]),
        make_group([RIGHT, RIGHT, FAILED]),
        make_group([WRONG, WRONG]),
        make_group([WRONG, WRONG, WRONG]),
        make_group([RIGHT, FAILED]),
        make_group([Score(0.3), Score(0.3)]),
    ]
    counts = count_groups(set_advantages(groups))
    assert counts == GroupCounts(total=6, with_signal=1, all_right=1, all_wrong=2, not_graded=1)

    shaping = LengthShaping(Length(reward_weight=0.1), max_response_tokens=100)
    shaped = shaping.apply([make_group([RIGHT, RIGHT], lengths=[5, 9])], 0)
    counts = count_groups(set_advantages(shaped))
    assert (counts.all_right, counts.with_signal) == (1, 1)
