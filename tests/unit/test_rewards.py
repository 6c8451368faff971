"""The registry, the smaller graders, the length reward and the command line."""

import os
from pathlib import Path

import pytest

from benchmarks import grading
from rewards import registry
from rewards.choice import choice
from rewards.format import format as format_reward
from rewards.grade import read_rows
from rewards.mathvista import mathvista
from rewards.mathvista_strict import mathvista_strict
from rewards.open_answer import open_answer
from rewards.open_answer_strict import open_answer_strict
from rewards.repetition import repetition
from rewards.truncation import readable, settled
from thinking_rl.algorithm.length import length_rewards
from thinking_rl.types import FinishReason, Outcome, Problem, Score, Segment, Trajectory

DATA = os.environ.get("THINKING_RL_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="THINKING_RL_DATA is not set")


# Registry


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_built_in_names_resolve(name):
    registry.check(name)
    assert registry.resolve(name).__name__ == name


def test_other_specs_resolve(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def good(problem, response):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    for spec in ("mine.py:good", f"{tmp_path}/mine.py:good", "benchmarks.hostile:returns_nan"):
        registry.check(spec)
        assert callable(registry.resolve(spec))


def test_a_file_with_a_dataclass_a_pickle_and_a_neighbour_loads(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("BONUS = 0.25\n")
    for name in ("mine_too", "rewards"):  # the second has the name of a package that is loaded
        (tmp_path / f"{name}.py").write_text(
            "from __future__ import annotations\n"
            "import pickle\nfrom dataclasses import dataclass\n"
            "from neighbour_of_mine import BONUS\n"
            "@dataclass\nclass Item:\n    value: float = BONUS\n"
            "def good(problem, response):\n"
            "    return pickle.loads(pickle.dumps(Item())).value\n"
            "def other(problem, response):\n    return Item()\n"
        )
        function = registry.resolve(f"{tmp_path}/{name}.py:good")
        assert function(None, "") == 0.25
        assert registry.resolve(f"{tmp_path}/{name}.py:other").__module__ == function.__module__
    assert registry.resolve("math_answer").__module__ == "rewards.math_answer"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("math_anser", "did you mean math_answer"),
        ("nothing_like_it", "known: choice"),
        ("absent.py:f", "no file"),
        ("mine.py:goood", "did you mean good"),
        ("broken.py:f", "broken.py:1"),
        ("no_such_package.module:f", "no_such_package"),
        ("benchmarks.hostile:return_nan", "did you mean returns_nan"),
        ("mine.py:", "expected package.module:function"),
        (":f", "expected package.module:function"),
    ],
)
def test_bad_specs_are_named(spec, message, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def good(problem, response):\n    return 1.0\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        registry.check(spec)


def test_entry_points_are_found(tmp_path, monkeypatch):
    folder = tmp_path / "extra-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[thinking_rl.rewards]\nshort = extra_rewards:short\n")
    (tmp_path / "extra_rewards.py").write_text("def short(problem, response):\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.check("short")
    assert registry.resolve("short").__name__ == "short"


# Smaller graders

OPTIONS = ("red", "dark red", "green", "all of the above")


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("b", "B"),
        (r"\boxed{C}", "C"),
        (r"\boxed{green}", "C"),
        ("The answer is (C) because (A) is too light.", "C"),
        ("Answer: **D**", "D"),
        ("(A) is wrong, (B) is wrong, so it must be (C).", "C"),
        ("A is too light, B too dark. I choose C", "C"),
        ("A closer look shows dark red.", "B"),
        ("It is red", "A"),
        ("The colour is dark red", "B"),
        ("Both (A) and (B)", None),
        ("I cannot tell from this image.", None),
        ("Sorry, I can't help with that.", None),
        ("◁think▷It is (A)", None),
        ("◁think▷(A)? no◁/think▷The answer is B.", "B"),
        ("The answer is E", None),
        ("Draw the line from A\nso $BD = 4$ and $\\angle B = 90^\\circ - \\angle C", None),
        ("draw(A--B); label({B}^^circle(P))", None),
        ("A, b, c, d", None),
        ("", None),
    ],
)
def test_choice_reads_the_option(response, letter):
    score = choice(Problem("p", "", letter or "A", choices=OPTIONS), response)
    assert score.extracted == letter
    assert score.correct is (letter is not None)


def test_choice_needs_its_answer_among_the_choices():
    with pytest.raises(ValueError, match="none of its 4 choices"):
        choice(Problem("p", "", "blue", choices=OPTIONS), "A")


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("24.32", "The result is 24.32 kJ", True),
        ("24.32", "so it is 24.3", False),
        ("1,500", "= 1500", True),
        ("['$MgS$', 'MgS']", "The compound is MgS.", True),
        ("Hormone", "It is a hormone", True),
        ("Hormone", "enzyme", False),
        ("C", "Therefore the point is C", True),
        ("C", "Circle", False),
        ("12", r"I first had 12. \boxed{13}", False),
        ("12", "◁think▷12", False),
    ],
)
def test_open_answer(answer, response, right):
    assert open_answer(Problem("p", "", answer), response).correct is right


@pytest.mark.parametrize(
    ("answer", "kind", "precision", "response", "right"),
    [
        ("5", "integer", None, "The answer is 5", True),
        ("5", "integer", None, "The answer is 5.0 dots.", True),
        ("5", "integer", None, r"\boxed{6}", False),
        ("1200", "integer", None, "The answer is 1,200", True),
        ("1.2", "float", 1, r"\boxed{1.24}", True),
        ("1.2", "float", 1, r"\boxed{1.26}", False),
        ("0.21", "float", 2, "The answer is 0.214 N/C", True),
        ("[2014, 2016]", "list", None, "The answer is [2014,2016]", True),
        ("[2014, 2016]", "list", None, "The answer is [2016, 2014]", False),
        ("5", "integer", None, "Sorry, I can't help.", False),
        ("6", "integer", None, "Half of them have 5 or fewer and half have 6 or more.", False),
        ("2016", "integer", None, "It is highest in 2012. It fell to 75% until 2016.", False),
        ("8", "integer", None, "The mode is 8. So 18 of the 36 got a score of 8.", True),
    ],
)
def test_mathvista_free_form(answer, kind, precision, response, right):
    metadata = {"question_type": "free_form", "answer_type": kind, "precision": precision}
    assert mathvista(Problem("p", "", answer, metadata=metadata), response).correct is right


def test_mathvista_choice():
    metadata = {"question_type": "multi_choice", "answer_type": "text"}
    problem = Problem("p", "", "Yes", choices=("Yes", "No"), metadata=metadata)
    said = ("A", "Yes", "the answer is (A)", "no", "(B)", "I do not know")
    assert [mathvista(problem, text).correct for text in said] == [True] * 3 + [False] * 3


def test_an_option_quoted_whole_is_that_option():
    metadata = {"question_type": "multi_choice", "answer_type": "text"}
    options = ("(c)", "(d)", "(a)", "(b)", "(e)")
    problem = Problem("p", "", "(b)", choices=options, metadata=metadata)
    said = ("(b)", "The answer is (b).", "D", "(D)", "(d)", "B", "(B)")
    assert [mathvista(problem, text).correct for text in said] == [True] * 4 + [False] * 3


HEDGED = ("[4, 5, 6]", "4, 5 or 6", "It is 4 or 5.", "not 5", "1 2 3 4 5 6", "5 or more")


@pytest.mark.parametrize("response", HEDGED)
def test_strict_twins_take_no_lists(response):
    assert not open_answer_strict(Problem("p", "", "5"), response).correct
    metadata = {"question_type": "free_form", "answer_type": "integer"}
    assert not mathvista_strict(Problem("p", "", "5", metadata=metadata), response).correct


def test_strict_twins_take_the_answer_itself():
    assert open_answer_strict(Problem("p", "", "['MgS', '$MgS$']"), "The answer is MgS.").correct
    assert (
        open_answer_strict(Problem("p", "", "24.32"), "The result is 24.3201 kJ").correct is False
    )
    assert open_answer_strict(Problem("p", "", "24.32"), r"\boxed{24.324}").correct
    assert open_answer(Problem("p", "", "Hormone"), "no hormone").correct
    assert not open_answer_strict(Problem("p", "", "Hormone"), "no hormone").correct
    metadata = {"question_type": "free_form", "answer_type": "float", "precision": 1}
    assert mathvista_strict(Problem("p", "", "1.2", metadata=metadata), r"\boxed{1.24}").correct
    assert not mathvista_strict(Problem("p", "", "1.2", metadata=metadata), r"\boxed{1.26}").correct
    metadata = {"question_type": "free_form", "answer_type": "list"}
    problem = Problem("p", "", "[1, 2]", metadata=metadata)
    assert mathvista_strict(problem, "The answer is [1,2]").correct
    assert not mathvista_strict(problem, "The answer is [2, 1] [1, 2]").correct


def test_strict_open_answer_is_no_list_of_parts():
    options = ("$1: 2$", "$2: 3$", "$2: 1$", "$3: 2$", "$1: 1$")
    listed = "\n".join(f"({n}) {text}" for n, text in zip("ABCDE", options, strict=True))
    problem = Problem("p", "", "E", choices=options)
    assert not open_answer_strict(problem, listed).correct
    assert open_answer_strict(problem, "The answer is (E).").correct
    assert not open_answer_strict(Problem("p", "", "[0, 1]"), "0").correct
    assert open_answer_strict(Problem("p", "", "[0, 1]"), r"\boxed{[0, 1]}").correct
    assert not open_answer_strict(Problem("p", "", "0.004"), "0").correct
    assert not open_answer_strict(Problem("p", "", "1.6e-19"), r"\boxed{0.00}").correct


# Truncated responses


def cut(text, reason=FinishReason.LENGTH):
    return Trajectory("p", (1,), (), (Segment((7,), (-0.5,), 0),), text, reason)


CLOSED, OPEN, BARE = "◁think▷a◁/think▷5", "◁think▷a 5", "5"


@pytest.mark.parametrize(
    ("truncated", "thinking", "text", "reason", "outcome"),
    [
        ("wrong", "closed_if_opened", CLOSED, FinishReason.LENGTH, Outcome.WRONG),
        ("wrong", "closed_if_opened", CLOSED, FinishReason.REPETITION, Outcome.WRONG),
        ("wrong", "closed_if_opened", CLOSED, FinishReason.STOP, Outcome.RIGHT),
        ("masked", "closed_if_opened", CLOSED, FinishReason.LENGTH, Outcome.NOT_GRADED),
        ("masked", "closed_if_opened", CLOSED, FinishReason.STOP, Outcome.RIGHT),
        ("graded", "closed_if_opened", CLOSED, FinishReason.LENGTH, Outcome.RIGHT),
        ("graded", "closed_if_opened", OPEN, FinishReason.LENGTH, Outcome.WRONG),
        ("graded", "ignored", OPEN, FinishReason.LENGTH, Outcome.RIGHT),
        ("wrong", "closed_if_opened", BARE, FinishReason.STOP, Outcome.RIGHT),
        ("wrong", "required", BARE, FinishReason.STOP, Outcome.WRONG),
        ("wrong", "required", CLOSED, FinishReason.STOP, Outcome.RIGHT),
    ],
)
def test_truncated_responses(truncated, thinking, text, reason, outcome):
    score = settled(cut(text, reason), Score(1.0, True, "5"), truncated, thinking)
    assert score.outcome is outcome
    assert score.value == (1.0 if outcome is Outcome.RIGHT else 0.0)


def test_a_cut_response_keeps_its_penalties_and_its_failure():
    trajectory = cut(CLOSED)
    assert settled(trajectory, Score(-0.3), "wrong", "required").value == -0.3
    failed = Score(0.0, error="timeout")
    assert settled(trajectory, failed, "wrong", "required") is failed


def test_thinking_that_is_ignored_is_read():
    assert readable(OPEN, "ignored") == "a 5"
    assert readable(OPEN, "required") == OPEN
    assert readable(CLOSED, "ignored") == CLOSED


@pytest.mark.parametrize(
    ("response", "value"),
    [
        (r"◁think▷so◁/think▷It is \boxed{3}.", 1.0),
        (r"so◁/think▷It is \boxed{3}.", 1.0),
        (r"◁think▷so It is \boxed{3}.", 0.0),
        (r"It is \boxed{3}.", 0.0),
        (r"◁think▷so◁/think▷It is 3.", 0.0),
        (r"◁think▷so◁/think▷\boxed{3} or \boxed{4}.", 0.0),
        (r"◁think▷a◁/think▷b◁/think▷\boxed{3}", 0.0),
        (r"◁think▷a◁think▷b◁/think▷\boxed{3}", 0.0),
        (r"◁think▷so◁/think▷\boxed{3", 0.0),
    ],
)
def test_format(response, value):
    assert format_reward(Problem("p", "", ""), response) == value


def test_repetition():
    problem = Problem("p", "", "")
    words = [str(number) for number in range(108)]
    assert repetition(problem, "a b") == 0.0
    assert repetition(problem, " ".join(words)) == 0.0
    assert repetition(problem, " ".join(["again"] * 107)) == pytest.approx(-0.99)


@pytest.mark.parametrize(
    ("lengths", "correct", "expected"),
    [
        ([10, 20, 30], [True, True, True], [0.5, 0.0, -0.5]),
        ([10, 20, 30], [False, False, False], [0.0, 0.0, -0.5]),
        ([10, 15, 30], [True, False, True], [0.5, 0.0, -0.5]),
        ([7, 7], [True, False], [0.0, 0.0]),
        ([5], [True], [0.0]),
        ([], [], []),
    ],
)
def test_length_rewards(lengths, correct, expected):
    assert length_rewards(lengths, correct) == pytest.approx(expected)


def test_length_rewards_need_a_verdict_each():
    with pytest.raises(ValueError, match="2 lengths for 1"):
        length_rewards([1, 2], [True])


# The command line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: "),
        ("[]", "line 2: expected an object"),
        ('{"id": 1, "answer": "x"}', "line 2: no 'response'"),
        ('{"id": 1, "answer": 3, "response": "x"}', "line 2: 'answer' must be text, found int"),
        ('{"id": 1, "answer": "3", "response": "x", "choices": "AB"}', "line 2: 'choices'"),
    ],
)
def test_bad_rows_are_named(line, message):
    with pytest.raises(ValueError, match=message):
        read_rows(['{"id": 1, "answer": "x", "response": "y"}', line])


# Recorded answers


@needs_data
def test_every_recorded_answer_is_graded_and_most_like_the_official_rules():
    assert DATA is not None
    figures = grading.recorded(Path(DATA))
    assert figures["not_graded"] == 0
    fewest = {
        "Gemini-Pro-CoT": 3010,  # units, degrees, letters with their text
        "gsm8k train": 7473,
        "gsm8k test": 1319,
        "choice": 846,  # one response lists all options
        "open_answer": 53,
        "mathvista extraction": 989,  # the others are options guessed from unlike texts
    }
    agree = figures["agree"]
    assert {name: agree[name] for name, least in fewest.items() if agree[name] < least} == {}
