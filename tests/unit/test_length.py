"""What length adds to rewards, on groups made by hand."""

from __future__ import annotations

import json

import pytest
from groups import make_group

from thinking_rl.algorithm.advantage import set_advantages
from thinking_rl.algorithm.length import LengthShaping, overlong_penalties, quantile
from thinking_rl.recipe.rl import Length
from thinking_rl.report.iteration import shaping_metrics
from thinking_rl.types import Group, Score

LIMIT = 100
REWARD = {"reward_weight": 1.0}
TOGGLE = {"toggle_every": 2}
OVERLONG = {"overlong_tokens": 20}


@pytest.mark.parametrize(
    ("settings", "responses", "name", "expected"),
    [
        # Kimi k1.5's length reward.
        (REWARD, "R10 R20 R30", "length_reward", [0.5, 0, -0.5]),
        (REWARD, "R10 W20 R30", "length_reward", [0.5, 0, -0.5]),
        (REWARD, "W10 W20 W30", "length_reward", [0, 0, -0.5]),  # all wrong
        (REWARD, "W10 R30", "length_reward", [0, -0.5]),  # a short wrong one earns nothing
        (REWARD, "R20 W20 R20", "length_reward", [0, 0, 0]),  # ties
        (REWARD, "R10 R10 W30", "length_reward", [0.5, 0.5, -0.5]),  # ties at one end
        (REWARD, "R10 C90 R50", "length_reward", [0.5, -0.5, 0]),  # cut off counts as longest
        (REWARD, "R10 F99 R30", "length_reward", [0.5, 0, -0.5]),  # not graded: not compared
        (REWARD, "R10 G99 R30", "length_reward", [0.5, 0, -0.5]),  # goes on: not compared
        (REWARD, "U10 U30", "length_reward", [0, -0.5]),  # nobody says that it is right
        (REWARD, "R10 F20", "length_reward", [0, 0]),  # one alone is compared to nothing
        ({"reward_weight": 0.2}, "R10 R30", "length_reward", [0.1, -0.1]),
        # Toggle: the budget is the median of the right ones' lengths.
        (TOGGLE, "R10 R20 R60 W90", "toggle", [0, 0, -1, 0]),
        (TOGGLE, "R20 R20 R20", "toggle", [0, 0, 0]),  # ties: none is longer
        (TOGGLE, "W10 W90", "toggle", [0, 0]),  # all wrong: no budget
        (TOGGLE, "R10 R30 W5 W5 W5", "toggle", [0, 0, 0, 0, 0]),  # too hard to be constrained
        (TOGGLE, "R10 R30 W5 C99", "toggle", [0, -1, 0, 0]),  # accuracy at the threshold
        ({**TOGGLE, "toggle_quantile": 1.0}, "R10 R99 W1", "toggle", [0, 0, 0]),
        ({**TOGGLE, "toggle_accuracy": 1.0}, "R10 R99 W1", "toggle", [0, 0, 0]),
        # Soft penalty over the last 20 of 100 tokens.
        (OVERLONG, "R80 R85 W90 C100", "overlong", [0, -0.25, -0.5, -1]),
        (OVERLONG, "W10 W80", "overlong", [0, 0]),
        (OVERLONG, "R90 F100 G95 R10", "overlong", [-0.5, 0, 0, 0]),
    ],
)
def test_groups_by_hand(
    settings: dict[str, float], responses: str, name: str, expected: list[float]
) -> None:
    shaping = LengthShaping(Length.model_validate(settings), LIMIT)
    [group] = shaping.apply([make_group("p", *responses.split())], 0)
    assert [one[name] for one in group.shaping] == pytest.approx(expected)
    assert {key for one in group.shaping for key in one} == {name}


def test_parts_add_up_and_have_columns_of_their_own() -> None:
    settings = Length.model_validate({**REWARD, **TOGGLE, **OVERLONG})
    groups = LengthShaping(settings, LIMIT).apply([make_group("p", "R10", "R90", "W50", "F99")], 0)
    [group] = set_advantages(groups)
    rewards = [1 + 0.5, 1 - 0.5 - 1 - 0.5, 0.0]
    assert [group.reward(i) for i in range(3)] == pytest.approx(rewards)
    mean = sum(rewards) / 3
    assert group.advantages == pytest.approx([*(one - mean for one in rewards), 0])
    assert shaping_metrics(groups) == pytest.approx(
        {"shaping/length_reward": 0, "shaping/toggle": -1 / 3, "shaping/overlong": -0.5 / 3}
    )


def test_nothing_is_added_by_default() -> None:
    [group] = LengthShaping(Length(), LIMIT).apply([make_group("p", "R10", "C100")], 0)
    assert (group.reward(0), group.reward(1)) == (1.0, 0.0)
    assert shaping_metrics([group]) == {}


def test_the_length_reward_starts_late() -> None:
    shaping = LengthShaping(Length(reward_weight=0.2, start_iteration=3), LIMIT)
    earned = [
        shaping.apply([make_group("p", "R10", "R30")], iteration)[0].shaping[0]["length_reward"]
        for iteration in range(5)
    ]
    assert earned == [0, 0, 0, 0.1, 0.1]


def test_toggle_alternates_and_keeps_the_first_budget() -> None:
    """Also over a checkpoint. Later, longer answers do not raise the budget of 20."""
    shaping = LengthShaping(Length(toggle_every=2, start_iteration=1), LIMIT)
    later = make_group("p", "R20", "R21", "R90")
    shaping.apply([make_group("p", "W99", "W99")], 0)
    shaping.apply([make_group("p", "R10", "R30"), make_group("other", "R90", "R91")], 0)
    taken = []
    for iteration in range(1, 7):
        [group] = shaping.apply([later], iteration)
        taken.append([one["toggle"] for one in group.shaping])
        state = json.loads(json.dumps(shaping.state_dict()))
        shaping = LengthShaping(Length(toggle_every=2, start_iteration=1), LIMIT)
        shaping.load_state_dict(state)
    constrained, free = [0, -1, -1], [0, 0, 0]
    assert taken == [constrained, constrained, free, free, constrained, constrained]


def test_toggle_takes_no_penalty_back() -> None:
    group = make_group("p", "R10", "R90")
    group = Group(group.problem, group.trajectories, (Score(1.0, True), Score(-0.5, True)))
    [shaped] = LengthShaping(Length(toggle_every=1), LIMIT).apply([group], 0)
    assert shaped.reward(1) == -0.5


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5], 0.3, 5),
        ([10, 20], 0.5, 15),
        ([3, 1, 2], 0, 1),
        ([3, 1, 2], 1, 3),
        ([1, 2, 4], 0.75, 3),
    ],
)
def test_quantile(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == pytest.approx(expected)


def test_beyond_the_limit_the_penalty_stays() -> None:
    assert overlong_penalties([120], 100, 20) == [-1.0]
