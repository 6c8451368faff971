import random

import pytest

from thinking_rl.files.kimi_vl_a3b import RELEASED_TEXT
from thinking_rl.learner.cost import Cost, cost_of
from thinking_rl.learner.rows import Size, needs, pack_by_cost, sizes_of, step_cost
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.types import Conversation

COST = Cost(crossover=30_000)


def lognormal(count, seed=0, mean=6000, cap=32768):
    draw = random.Random(seed)
    return [max(16, min(cap, int(draw.lognormvariate(0, 0.9) * mean / 1.5))) for _ in range(count)]


def families(count, prompt, responses, seed=0):
    lengths = lognormal(count * responses, seed)
    return [Size(i, prompt + n, prompt, i // responses) for i, n in enumerate(lengths)]


def alone(lengths):
    return [Size(i, n, family=i) for i, n in enumerate(lengths)]


def test_cost_of_the_released_sizes():
    """2.58e9 parameters a token against 27 layers of 16 heads of width 192."""
    assert KimiVLConfig(text_config=RELEASED_TEXT).text_config.vocab_size == 163840
    cost = cost_of(KimiVLConfig().text_config)
    assert cost.crossover == pytest.approx(2.579e9 / (27 * 16 * 192), rel=0.01)
    assert cost.of(1000) == pytest.approx(1000 + 1000**2 / cost.crossover)
    # A sequence costs the same whether it is cut or not.
    assert cost.of(700) + cost.of(300, before=700) == pytest.approx(cost.of(1000))


def test_sizes_of_conversations():
    a = Conversation((1, 2, 3, 4), (False, False, True, True), ("x",))
    b = Conversation((1, 2, 9), (False, False, True), ("x",))
    c = Conversation((1, 2, 9), (False, False, True))
    shared = sizes_of([a, c, b], prompt_once=True)
    assert [(s.family, s.prompt, s.length) for s in shared] == [(0, 1, 4), (1, 1, 3), (0, 1, 3)]
    separate = sizes_of([a, c, b], prompt_once=False)
    assert [(s.family, s.prompt) for s in separate] == [(0, 0), (1, 0), (2, 0)]


def test_a_family_in_a_row_has_its_prompt_once():
    two = [Size(0, 110, 100, 7), Size(1, 120, 100, 7)]
    tokens, cost = needs(two, COST)
    assert tokens == 100 + 10 + 20
    assert cost == pytest.approx(COST.of(100) + COST.of(10, 100) + COST.of(20, 100))
    assert needs(two[:1], COST) == (110, COST.of(110))


SIZES = {
    "alone": alone(lognormal(256)),
    "families": families(32, 1000, 8),
    "few": alone([5, 7]),
    "longer than a row": alone([60_000, 200, 300, 50_000]),
    "none": [],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_all_are_packed_once_and_fit(sizes, world_size):
    rows = pack_by_cost(sizes, 40_960, world_size, COST)
    assert len(rows) % world_size == 0
    assert sorted(one.index for row in rows for one in row) == list(range(len(sizes)))
    for row in rows:
        assert len(row) < 2 or needs(row, COST)[0] <= 40_960
        assert row == sorted(row, key=lambda one: (one.family, one.index))
    costs = [needs(row, COST)[1] for row in rows]
    assert costs == sorted(costs, reverse=True)
    assert len(rows) < len(sizes) + world_size + 1


def test_ranks_cost_alike_and_a_long_response_stands_alone():
    lengths = [*lognormal(254), 32768, 32768]
    rows = pack_by_cost(alone(lengths), 40_960, 8, COST)
    total = sum(needs(row, COST)[1] for row in rows)
    assert total / (8 * step_cost(rows, 8, COST)) > 0.95
    assert [[one.length for one in row] for row in rows[:2]] == [[32768], [32768]]


def test_families_are_cut_where_that_is_cheaper():
    """One family on two ranks: each gets half of it, and the prompt."""
    sizes = [Size(i, 1100, 100, 0) for i in range(8)]
    assert [len(row) for row in pack_by_cost(sizes, 40_960, 1, COST)] == [8]
    assert [len(row) for row in pack_by_cost(sizes, 40_960, 2, COST)] == [4, 4]
    # Two families on two ranks stay whole.
    both = sizes + [Size(8 + i, 1100, 100, 1) for i in range(8)]
    rows = pack_by_cost(both, 40_960, 2, COST)
    assert [{one.family for one in row} for row in rows] in ([{0}, {1}], [{1}, {0}])
