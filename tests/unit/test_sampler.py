import json
from collections import Counter

import pytest

from thinking_rl.algorithm.sampler import PrioritizedSampler, UniformSampler
from thinking_rl.types import FinishReason, Group, Problem, Score, Segment, Trajectory


def make_problem(name, level=None):
    return Problem(name, "question", "answer", level=level)


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

    def draw(self, n):
        self.position += n
        return [make_problem(str(i)) for i in range(self.position - n, self.position)]

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


def test_draws_in_proportion_to_the_failure_rate():
    problems = [make_problem(name) for name in "abcde"]
    sampler = PrioritizedSampler(problems, seed=0)
    for problem, right in zip(problems, (0, 1, 2, 4), strict=False):  # "e" was never tried
        sampler.record([make_group(problem, [i < right for i in range(4)])])
    draws = 20_000
    counts = Counter(sampler.draw(1)[0].id for _ in range(draws))
    total = 1 + 0.75 + 0.5 + 0 + 1
    for name, weight in zip("abcde", (1, 0.75, 0.5, 0, 1), strict=True):
        assert counts[name] / draws == pytest.approx(weight / total, abs=0.01)  # 3 sigma
    assert counts["d"] == 0


def test_solved_problems_fill_a_draw_only_when_no_others_are_left():
    problems = [make_problem(name) for name in "abcd"]
    sampler = PrioritizedSampler(problems, seed=0)
    sampler.record([make_group(problem, [True, True]) for problem in problems[1:]])
    second = Counter()
    for _ in range(300):
        drawn = ids(sampler.draw(2))
        assert drawn[0] == "a"
        second[drawn[1]] += 1
    assert second.keys() == set("bcd")
    assert sorted(ids(sampler.draw(4))) == list("abcd")


def test_success_rate_is_over_verdicts_alone():
    """Neither a failed grading nor an unfinished response counts as right or wrong."""
    problems = [make_problem("a"), make_problem("b")]
    sampler = PrioritizedSampler(problems, seed=0)
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
    sampler = PrioritizedSampler(problems, seed=0, curriculum_draws=120)
    seen = [{p.level for p in sampler.draw(2)} for _ in range(100)]
    assert set().union(*seen[:20]) == {1, None}
    assert set().union(*seen[20:40]) == {1, 3, None}
    assert set().union(*seen[40:60]) == {1, 3, 5, None}
    assert set().union(*seen[60:]) == {1, 3, 5, None}


def test_curriculum_opens_the_next_level_early_to_fill_a_draw():
    problems = [make_problem(f"{level}{i}", level) for level in (1, 2, 3) for i in "abc"]
    sampler = PrioritizedSampler(problems, seed=0, curriculum_draws=10_000)
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

    sampler = PrioritizedSampler(problems, seed=3, curriculum_draws=60)
    run(sampler, 7)
    state = json.loads(json.dumps(sampler.state_dict()))
    expected = run(sampler, 10)
    resumed = PrioritizedSampler(problems, seed=99, curriculum_draws=60)
    resumed.load_state_dict(state)
    assert run(resumed, 10) == expected
    assert json.loads(json.dumps(resumed.state_dict())) == json.loads(
        json.dumps(sampler.state_dict())
    )


def test_bad_lists_are_refused():
    a, b = make_problem("a"), make_problem("b")
    with pytest.raises(ValueError, match="problem id 'a' occurs 2 times"):
        PrioritizedSampler([b, a, a], seed=0)
    with pytest.raises(ValueError, match="needs problems with a `level`"):
        PrioritizedSampler([a, b], seed=0, curriculum_draws=10)
    with pytest.raises(ValueError, match="cannot draw 3 different problems from a list of 2"):
        PrioritizedSampler([a, b], seed=0).draw(3)

    sampler = PrioritizedSampler([a, b], seed=0)
    sampler.record([make_group(b, [True])])
    with pytest.raises(ValueError, match="1 problems that are not in the list"):
        PrioritizedSampler([a], seed=0).load_state_dict(sampler.state_dict())
