import json
import math
from collections import Counter
from statistics import mean

import pytest

from thinking_rl.algorithm.sampler import (
    PoolSampler,
    UniformSampler,
    difficulties,
    draw_pool,
    make_sampler,
)
from thinking_rl.recipe.rl import RL
from thinking_rl.types import FinishReason, Group, Problem, Score, Segment, Trajectory


def make_problem(name, level=None, source="", **metadata):
    return Problem(name, "question", "answer", level=level, source=source, metadata=metadata)


def make_group(problem, verdicts, reason=FinishReason.STOP):
    """True: right, False: wrong, None: could not be graded."""
    errors = {True: None, False: None, None: "timeout"}
    trajectory = Trajectory(problem.id, (1,), (), (Segment((2,), (-1.0,), 0),), "text", reason)
    scores = tuple(Score(float(bool(v)), correct=v, error=errors[v]) for v in verdicts)
    return Group(problem, (trajectory,) * len(verdicts), scores)


def ids(problems):
    return [problem.id for problem in problems]


class CountingStream:
    """Numbers its problems, so that order and position show."""

    def __init__(self):
        self.position = 0

    weights = {"": 1.0}  # noqa: RUF012

    def draw(self, n):
        self.position += n
        return [make_problem(str(i)) for i in range(self.position - n, self.position)]

    def stored(self):
        return [make_problem(str(i)) for i in range(100)]

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def test_uniform_sampler_follows_the_stream_and_resumes():
    sampler = UniformSampler(CountingStream())
    assert ids(sampler.draw(3)) == ["0", "1", "2"]
    sampler.record([make_group(make_problem("0"), [True, True])])
    resumed = UniformSampler(CountingStream())
    resumed.load_state_dict(sampler.state_dict())
    assert ids(resumed.draw(2)) == ids(sampler.draw(2)) == ["3", "4"]


def tried(sampler, problems, right, of=10):
    """Each problem answered, so often right."""
    for problem, count in zip(problems, right, strict=True):
        if count is not None:
            sampler.record([make_group(problem, [i < count for i in range(of)])])


def test_single_draws_are_in_proportion_to_the_failure_rate():
    """Chi-square over 100,000 draws: the last problem was never tried, one is solved."""
    problems = [make_problem(str(i)) for i in range(12)]
    right = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, None]
    sampler = PoolSampler(problems, seed=0, floor=0.0)
    tried(sampler, problems, right)
    weights = [1 - (count or 0) / 10 for count in right]
    draws = 100_000
    counts = Counter(sampler.draw(1)[0].id for _ in range(draws))
    assert counts["10"] == 0
    expected = [draws * weight / sum(weights) for weight in weights]
    pairs = [(counts[str(i)], e) for i, e in enumerate(expected) if e]
    assert len(pairs) == 11
    chi_square = sum((count - e) ** 2 / e for count, e in pairs)
    assert chi_square < 29.6  # 10 degrees of freedom, p = 0.001


def inclusion(weights, n):
    """Probabilities that n clocks of these rates ring before all others, which is a draw without
    replacement: of item i, 1 - E[exp(-w_i t)] at the time t of the n-th ring, by the n for which
    the expected number of rings is n (exact for many items)."""
    low, high = 0.0, 1e6
    for _ in range(200):
        t = (low + high) / 2
        total = sum(1 - math.exp(-weight * t) for weight in weights)
        low, high = (t, high) if total < n else (low, t)
    return [1 - math.exp(-weight * t) for weight in weights]


def test_inclusion_in_draws_of_128_of_400():
    """Beside the theory of sampling without replacement; 128 times the share of a single draw, as
    it were with replacement, would be too much for likely ones."""
    problems = [make_problem(str(i)) for i in range(400)]
    right = [i % 11 for i in range(400)]
    sampler = PoolSampler(problems, seed=0)
    tried(sampler, problems, right)
    weights = [max(0.05, 1 - count / 10) for count in right]
    draws = 2000
    counts = Counter(problem.id for _ in range(draws) for problem in sampler.draw(128))
    theory = inclusion(weights, 128)
    by_rate = {
        rate: mean(counts[str(i)] / draws for i in range(400) if right[i] == rate)
        for rate in range(11)
    }
    for rate, share in by_rate.items():
        assert share == pytest.approx(theory[rate], abs=0.006), rate  # 4 sigma
    assert 128 * weights[0] / sum(weights) - by_rate[0] > 0.05


def test_history_decays():
    problem, other = make_problem("a"), make_problem("b")
    sampler = PoolSampler([problem, other], seed=0, decay=0.5)
    tried(sampler, [problem], [0])
    tried(sampler, [problem], [10])
    tried(sampler, [problem], [10])  # s = (10 + 5) / (10 + 5 + 2.5)
    state = sampler.state_dict()
    assert state["right"]["a"] / state["answers"]["a"] == pytest.approx(6 / 7)
    draws = Counter(ids(sampler.draw(1))[0] for _ in range(20_000))
    assert draws["a"] / draws["b"] == pytest.approx(1 / 7, abs=0.015)


def test_without_a_preference_all_weigh_alike():
    problems = [make_problem(name) for name in "abcd"]
    sampler = PoolSampler(problems, seed=0, decay=None)
    tried(sampler, problems, [0, 5, 10, None])
    counts = Counter(ids(sampler.draw(1))[0] for _ in range(8000))
    assert all(abs(counts[name] - 2000) < 160 for name in "abcd")  # 4 sigma


def test_sources_are_mixed_by_weight():
    """Whatever their sizes and success rates; one that is too small gives all that it has."""
    problems = [make_problem(f"x{i}", source="x") for i in range(90)]
    problems += [make_problem(f"y{i}", source="y") for i in range(30)]
    sampler = PoolSampler(problems, seed=0, weights={"x": 1.0, "y": 3.0})
    tried(sampler, problems, [0] * 90 + [9] * 30)
    counts = Counter(p.source for _ in range(1000) for p in sampler.draw(8))
    assert counts["y"] / 8000 == pytest.approx(0.75, abs=0.02)
    assert Counter(p.source for p in sampler.draw(100))["y"] == 30
    first = Counter(sampler.draw(8)[0].source for _ in range(1000))  # shuffled
    assert first["y"] / 1000 == pytest.approx(0.75, abs=0.06)


def test_a_curriculum_follows_measured_pass_rates():
    """Where all have one; else levels. The mean difficulty rises."""
    problems = [make_problem(str(i), level=5 - i % 5, pass_rate=i / 100) for i in range(100)]
    assert difficulties(problems)["99"] == pytest.approx(0.01)
    assert difficulties([*problems, make_problem("new", level=2)])["99"] == 1.0
    sampler = PoolSampler(problems, seed=0, decay=None, curriculum_draws=400)
    known = difficulties(problems)
    means = [mean(known[p.id] for p in sampler.draw(10)) for _ in range(60)]
    tenths = [mean(means[i : i + 10]) for i in range(0, 60, 10)]
    assert tenths[:5] == sorted(tenths[:5])
    assert tenths[0] < 0.2
    assert tenths[4] == pytest.approx(0.5, abs=0.1)


def rl(**sampler):
    return RL.model_validate(
        {
            "iterations": 10,
            "problems_per_iteration": 4,
            "tau": 0.1,
            "optimizer": {"learning_rate": 0.1},
            "sampler": sampler,
        }
    )


def test_the_recipe_chooses_the_sampler():
    assert isinstance(make_sampler(CountingStream(), rl(), 0), UniformSampler)
    pool = make_sampler(CountingStream(), rl(pool_problems=7), 0)
    assert sorted(ids(pool.draw(7))) == list("0123456")
    stored = make_sampler(CountingStream(), rl(kind="prioritised"), 0)
    assert len(set(ids(stored.draw(100)))) == 100
    tried(stored, [make_problem("3")], [10])
    state = stored.state_dict()
    assert state["answers"] == {"3": 10.0}
    with pytest.raises(ValueError, match="`level` or a `pass_rate`"):
        make_sampler(CountingStream(), rl(kind="curriculum", curriculum_iterations=5), 0)


def test_a_pool_needs_different_problems():
    class Short(CountingStream):
        def draw(self, n):
            self.position += n
            return [make_problem(str(self.position % 3))]

    assert len(draw_pool(Short(), 3)) == 3
    with pytest.raises(ValueError, match=r"pool_problems is 4, but .* gave only 3"):
        draw_pool(Short(), 4)


def test_without_a_floor_solved_problems_only_fill_up_a_draw():
    problems = [make_problem(name) for name in "abcd"]
    sampler = PoolSampler(problems, seed=0, floor=0.0)
    sampler.record([make_group(problem, [True, True]) for problem in problems[1:]])
    second = Counter()
    for _ in range(300):
        drawn = ids(sampler.draw(2))
        assert "a" in drawn
        second[next(name for name in drawn if name != "a")] += 1
    assert second.keys() == set("bcd")
    assert sorted(ids(sampler.draw(4))) == list("abcd")


def test_success_rate_is_over_verdicts_alone():
    """Neither a failed grading nor an unfinished response counts as right or wrong."""
    problems = [make_problem("a"), make_problem("b")]
    sampler = PoolSampler(problems, seed=0)
    sampler.record(
        [
            make_group(problems[0], [True, None, None]),
            make_group(problems[0], [False], FinishReason.UNFINISHED),
            make_group(problems[1], [True, False]),
            make_group(problems[1], [True, True]),
        ]
    )
    state = sampler.state_dict()
    assert state["right"] == {"a": 1, "b": 3}
    assert state["answers"] == {"a": 1, "b": 4}


def test_curriculum_opens_levels_one_after_the_other():
    problems = [make_problem(f"{level}{i}", level) for level in (5, 1, 3) for i in "abcd"]
    problems.append(make_problem("unlabelled"))
    sampler = PoolSampler(problems, seed=0, curriculum_draws=120)
    seen = [{p.level for p in sampler.draw(2)} for _ in range(100)]
    assert set().union(*seen[:20]) == {1, None}
    assert set().union(*seen[20:40]) == {1, 3, None}
    assert set().union(*seen[40:60]) == {1, 3, 5, None}
    assert set().union(*seen[60:]) == {1, 3, 5, None}


def test_curriculum_opens_the_next_level_early_to_fill_a_draw():
    problems = [make_problem(f"{level}{i}", level) for level in (1, 2, 3) for i in "abc"]
    sampler = PoolSampler(problems, seed=0, curriculum_draws=10_000)
    assert {p.level for p in sampler.draw(3)} == {1}
    assert {p.level for p in sampler.draw(6)} == {1, 2}
    assert len(set(ids(sampler.draw(9)))) == 9


def test_state_round_trip_is_exact():
    problems = [make_problem(f"{level}{i}", level) for level in (1, 2) for i in range(20)]

    def run(sampler, iterations):
        drawn = []
        for _ in range(iterations):
            batch = sampler.draw(5)
            sampler.record(make_group(p, [p.level == 1, True, False]) for p in batch)
            drawn.append(ids(batch))
        return drawn

    sampler = PoolSampler(problems, seed=3, curriculum_draws=60)
    run(sampler, 7)
    state = json.loads(json.dumps(sampler.state_dict()))
    expected = run(sampler, 10)
    resumed = PoolSampler(problems, seed=99, curriculum_draws=60)
    resumed.load_state_dict(state)
    assert run(resumed, 10) == expected
    assert json.loads(json.dumps(resumed.state_dict())) == json.loads(
        json.dumps(sampler.state_dict())
    )


def test_bad_lists_are_refused():
    a, b = make_problem("a"), make_problem("b")
    with pytest.raises(ValueError, match="problem id 'a' occurs 2 times"):
        PoolSampler([b, a, a], seed=0)
    with pytest.raises(ValueError, match="needs problems with a `level` or a `pass_rate`"):
        PoolSampler([a, b], seed=0, curriculum_draws=10)
    with pytest.raises(ValueError, match="cannot draw 3 different problems from a pool of 2"):
        PoolSampler([a, b], seed=0).draw(3)

    sampler = PoolSampler([a, b], seed=0)
    sampler.record([make_group(b, [True])])
    with pytest.raises(ValueError, match="1 problems that are not in the pool"):
        PoolSampler([a], seed=0).load_state_dict(sampler.state_dict())
