"""The attack library on built-in problems: no reward for training pays a response that knows no
answer, and the attack finds one that does. Some ten thousand gradings: not for the fast tier."""

import pytest

from rewards import attack
from thinking_rl.types import Problem


@pytest.mark.parametrize("grader", ["math_answer", "open_answer_strict", "mathvista_strict"])
def test_no_template_earns_more_than_chance_on_built_in_problems(grader):
    problems = attack.read_problems("procedural", None, 60)
    results = list(attack.attack(grader, problems))
    assert len(results) >= 150
    assert [result for result in results if result.is_hole] == []
    assert sum(result.not_graded for result in results) == 0


@pytest.mark.parametrize("grader", ["math_answer", "choice", "mathvista_strict"])
def test_no_template_earns_more_than_chance_among_options(grader):
    texts = ("12 cm", "a kite", "45", r"$\frac{1}{2}$", "none of these")
    metadata = {"question_type": "multi_choice"}
    problems = [
        Problem(
            str(n), f"Which of the {n} is it?", "ABCDE"[n % 5], choices=texts, metadata=metadata
        )
        for n in range(60)
    ]
    results = list(attack.attack(grader, problems))
    assert [result for result in results if result.is_hole] == []


def test_an_attack_finds_a_hole():
    """The benchmark's own rules take any number of a list."""
    problems = [Problem(str(n), "How many?", str(n % 9 + 1)) for n in range(60)]
    holes = [result for result in attack.attack("open_answer", problems) if result.is_hole]
    assert "several: comma" in {result.template for result in holes}
