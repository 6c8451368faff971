"""Streams: mixing, epochs, resuming, and what is kept apart for evaluation."""

import json
from collections import Counter
from pathlib import Path

import pytest

from thinking_rl.data import example_stream, fixed_problems, problem_stream
from thinking_rl.recipe.schema import Source

DIGITS = Source(format="procedural", families=["arithmetic"], levels=[1, 2, 3])


def numbers(path: Path, count: int, **options) -> Source:
    rows = [{"question": f"{n}?", "answer": n, "response": f"r{n}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(format="plain", path=str(path), **options)


def test_sources_are_mixed_by_weight(tmp_path: Path):
    sources = [
        numbers(tmp_path / "a.jsonl", 50, weight=1),
        numbers(tmp_path / "b.jsonl", 7, weight=3),
        DIGITS.model_copy(update={"weight": 4.0}),
    ]
    drawn = Counter(problem.source for problem in problem_stream(sources, seed=3).draw(4000))
    for name, share in [("a", 1 / 8), ("b", 3 / 8), ("procedural", 1 / 2)]:
        assert drawn[name] / 4000 == pytest.approx(share, abs=0.03)


def test_every_epoch_gives_each_row_once_in_another_order(tmp_path: Path):
    stream = problem_stream([numbers(tmp_path / "a.jsonl", 20)], seed=0)
    first, second = ([problem.answer for problem in stream.draw(20)] for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(map(str, range(20)))
    assert len({tuple(first), tuple(second), tuple(sorted(first))}) == 3


def test_the_seed_fixes_the_stream(tmp_path: Path):
    sources = [numbers(tmp_path / "a.jsonl", 9), DIGITS]
    assert problem_stream(sources, 1).draw(30) == problem_stream(sources, 1).draw(30)
    assert problem_stream(sources, 1).draw(30) != problem_stream(sources, 2).draw(30)


@pytest.mark.parametrize("make", [problem_stream, example_stream])
def test_a_resumed_stream_goes_on_where_it_was(tmp_path: Path, make):
    sources = [numbers(tmp_path / "a.jsonl", 9), DIGITS]
    stream = make(sources, 5)
    stream.draw(25)
    state = json.loads(json.dumps(stream.state_dict()))
    expected = stream.draw(25)
    resumed = make(sources, 5)
    resumed.load_state_dict(state)
    assert resumed.draw(25) == expected
    with pytest.raises(ValueError, match="saved data position is of seed 5"):
        make(sources, 6).load_state_dict(state)
    with pytest.raises(ValueError, match="sources a, procedural, but the recipe has"):
        make(sources[:1], 5).load_state_dict(state)


def test_ids_are_unique_in_the_mix(tmp_path: Path):
    (tmp_path / "x").mkdir()
    sources = [
        numbers(tmp_path / "a.jsonl", 9),
        numbers(tmp_path / "x/a.jsonl", 9),
        DIGITS,
        DIGITS,
    ]
    problems = problem_stream(sources, 0).draw(300)
    assert {problem.source for problem in problems} == {"a", "a#2", "procedural", "procedural#2"}
    by_id = {}
    for problem in problems:
        assert by_id.setdefault(problem.id, problem) == problem


def test_examples_carry_their_own_response(tmp_path: Path):
    drawn = example_stream([numbers(tmp_path / "a.jsonl", 9), DIGITS], 0).draw(40)
    assert {example.problem.source for example in drawn} == {"a", "procedural"}
    for example in drawn:
        if example.problem.source == "a":
            assert example.response == f"r{example.problem.answer}"
        else:
            assert example.response.endswith(f"◁/think▷\\boxed{{{example.problem.answer}}}")


def test_fixed_problems_are_shared_out_and_never_repeat_a_row(tmp_path: Path):
    small, large = numbers(tmp_path / "a.jsonl", 5), numbers(tmp_path / "b.jsonl", 90, weight=2)
    problems = fixed_problems([small, large], 60, seed=0)
    assert Counter(problem.source for problem in problems) == {"a": 5, "b": 40}
    assert len({problem.id for problem in problems}) == 45
    assert problems == fixed_problems([small, large], 60, seed=0)
    assert problems != fixed_problems([small, large], 60, seed=1)


@pytest.mark.parametrize("levels", [[1], [1, 2, 3], [2, 5]])
def test_held_out_pictures_are_never_trained_on(levels: list[int]):
    source = Source(format="procedural", families=["arithmetic"], levels=levels)
    held_out = fixed_problems([source], 60, seed=0)
    pictures = {problem.images for problem in held_out}
    assert len(held_out) == len(pictures), "a picture comes twice"
    assert len(held_out) == (1 if levels == [1] else 60)
    asked = {problem.images for problem in problem_stream([source], seed=0).draw(3000)}
    shown = {one.problem.images for one in example_stream([source], seed=0).draw(3000)}
    assert not pictures & asked
    assert not pictures & shown
    assert not asked & shown, "RL asks what the warm-up showed"


def test_held_out_over_all_families():
    source = Source(format="procedural")
    held_out = {problem.images for problem in fixed_problems([source], 100, seed=0)}
    assert len(held_out) == 100
    trained = {problem.images for problem in problem_stream([source], seed=0).draw(2000)}
    assert not trained & held_out
