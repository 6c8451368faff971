"""The benchmarks' own rules, on small rows and on recorded verdicts."""

import json
import os
import random
import time
from pathlib import Path

import pytest
import sympy
from latex2sympy2_extended import latex2sympy

from eval.benchmarks import gsm8k, math500, mathvision, mathvista, mmmu, mmmu_pro
from eval.benchmarks.latex_number import latex_number
from thinking_rl.types import Problem

SAMPLE = 300


def recorded(name: str) -> Path:
    """A file of recorded verdicts; skips the test where it is not at hand."""
    root = os.environ.get("THINKING_RL_DATA")
    if not root:
        pytest.skip("THINKING_RL_DATA, the folder of recorded data, is not set")
    path = Path(root) / name
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return path


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def problem(answer: str, *choices: str, **metadata: object) -> Problem:
    return Problem("1", "How many?", answer, choices=choices, metadata=metadata)


# Numbers in LaTeX


@pytest.mark.parametrize(
    "latex",
    [
        "7",
        "-3.25",
        "\\frac{1}{2}",
        "\\frac{3}{4}+\\frac{1}{4}",
        "2\\sqrt{3}",
        "\\sqrt[3]{8}",
        "4\\pi(3-2\\sqrt{2})",
        "1:4",
        "2^{10}",
        "5!",
        "3 \\cdot 4 \\div 6",
        "\\sin(1)+\\cos(0)",
        "-2^2",
        "\\binom{5}{2}",
        "e^2",
    ],
)
def test_latex_number_agrees_with_sympy(latex):
    expected = float(sympy.N(latex2sympy(latex, normalization_config=None)))
    assert latex_number(latex) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("latex", "value"),
    [
        ("\\frac{1}{2}}cm.", 0.5),
        ("1,234", 1234),
        ("1\\frac{1}{2}", 0.5),
        ("50\\%", 0.5),
        ("2^3^2", 64),
        ("5cm", None),
        ("36^{\\circ}", None),
        ("\\ln 2", None),
        ("|3|", None),
        ("1,2", None),
        ("1/0", None),
        ("", None),
        ("x", None),
        ("12°", None),
    ],
)
def test_latex_number_keeps_the_official_quirks(latex, value):
    assert latex_number(latex) == value


@pytest.mark.parametrize(
    "latex",
    [
        "9^{9^{9^{9}}}",
        "99999999999!",
        "\\binom{1000000}{500000}",
        "(" * 100_000,
        "9" * 100_000,
        "2^{9999}*" * 1000 + "1",
        "__import__('os').system('true')",
    ],
)
def test_latex_number_always_returns(latex):
    assert latex_number(latex) is None


# MATH-Vision


@pytest.mark.parametrize(
    ("response", "extracted"),
    [
        ("So \\boxed{60}.", "60"),
        ("First \\boxed{1}, then \\boxed{\\text{(B)}}", "b"),
        ("It must be (C).", "c"),
        ("B\nbecause", "b"),
        ("The answer is 12. Done", "12"),
        ("we get x = 5 \\approx 4", "4"),
        ("\\boxed{36^\\circ}", "36"),
        ("\\boxed{1/2}", "\\frac{1}{2}"),
        ("\\boxed{0.5}", "\\frac{1}{2}"),
        ("\\boxed{\\sqrt3}", "\\sqrt{3}"),
        ("", None),
    ],
)
def test_mathvision_extracts(response, extracted):
    assert mathvision.extract(response, problem("A")) == extracted


@pytest.mark.parametrize(
    ("response", "expected", "correct"),
    [
        ("\\boxed{B}", problem("B", "1", "2"), True),
        ("\\boxed{2}", problem("B", "1", "$2$"), True),
        ("\\boxed{1}", problem("B", "1", "$2$"), False),
        ("\\boxed{36}", problem("A", "$36^{\\circ}$"), False),  # official quirk
        ("\\boxed{0.333}", problem("\\frac{1}{3}"), True),  # two places
        ("\\boxed{(0.5, 1)}", problem("(1/2, 1)"), True),
    ],
)
def test_mathvision_verdicts(response, expected, correct):
    assert mathvision.official(response, expected).correct is correct


@pytest.mark.parametrize("name", ["Gemini-Pro-CoT", "InternLM-XComposer2-VL-CoT", "LLaVA-v1.5-13B"])
def test_mathvision_agrees_with_the_recorded_verdicts(name):
    problems = {
        row["id"]: Problem(row["id"], row["question"], row["answer"], choices=tuple(row["options"]))
        for row in rows(recorded("mathvision/all_questions.jsonl"))
    }
    sample = random.Random(0).sample(rows(recorded(f"mathvision/recorded/{name}.jsonl")), SAMPLE)
    different = []
    for row in sample:
        verdict = mathvision.official(row["response"], problems[row["id"]])
        if (verdict.correct, verdict.extracted or "") != (row["correct"], row["model_answer"]):
            different.append(row["id"])
    assert not different


# MMMU


FOUR = ("red", "green apple", "blue", "white")


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("(A) or rather (C)", "C"),
        ("B", "B"),
        ("Not A but D .", "D"),
        ("It is surely the Green Apple on the left", "B"),
        ("green apple", None),  # five words or fewer: not looked for
        ("A) red", None),
        ("", None),
    ],
)
def test_mmmu_letters(response, letter):
    verdict = mmmu.official(response, problem("A", *FOUR))
    assert verdict.extracted == letter
    assert verdict.parse_failed is (letter is None)


def test_mmmu_guesses_only_on_request_and_then_reproducibly():
    asked = [
        mmmu.official("?", problem("A", *FOUR), guess=generator).extracted
        for generator in [random.Random(42)]
        for _ in range(8)
    ]
    expected = random.Random(42)
    assert asked == [expected.choice("ABCD") for _ in range(8)]
    guessed = mmmu.official("?", problem("A", *FOUR), guess=random.Random(42))
    assert guessed.parse_failed
    assert mmmu.official("?", problem("A", *FOUR)).extracted is None


@pytest.mark.parametrize(
    ("response", "answer", "correct"),
    [
        ("The answer is 24.31 volts", "24.31", True),
        ("about 1,000", "1000", True),
        ("x = 3\ny = 4.001", "4", True),
        ("Transformation.", "transformation", True),
        ("so it is MgS", "['$MgS$', 'MgS']", True),
        ("a cat", "c", True),  # official quirk: the start of a word
        ("bacon", "c", False),
        ("5", "6", False),
    ],
)
def test_mmmu_open_answers(response, answer, correct):
    assert mmmu.official(response, problem(answer)).correct is correct


def test_mmmu_agrees_with_the_recorded_verdicts():
    guess = random.Random(42)
    right, guessed = 0, 0
    for row in rows(recorded("mmmu/recorded_llava1.5_13b.jsonl")):
        choices = tuple(row.get("index2ans", {}).values())
        one = Problem(row["id"], "", str(row["answer"]), choices=choices)
        verdict = mmmu.official(row["response"], one, guess)
        parsed = verdict.extracted if choices else mmmu.parse_open(row["response"])
        assert (parsed if choices else set(parsed or ())) == (
            row["parsed_pred"] if choices else set(row["parsed_pred"])
        ), row["id"]
        assert verdict.correct == (row["judge"] == "Correct"), row["id"]
        right += verdict.correct
        guessed += verdict.parse_failed
    assert (right, guessed) == (330, 2)


# MMMU-Pro


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("Think (A).\nAnswer: B", "B"),
        ("Answer: B or C, (D)", "D"),
        ("the first, B. Then", "B"),
        ("none", None),
    ],
)
def test_mmmu_pro_letters(response, letter):
    assert mmmu_pro.official(response, problem("B", *FOUR)).extracted == letter


# MathVista


@pytest.mark.parametrize(
    ("extraction", "expected", "prediction"),
    [
        ("(B) 7", problem("7", "5", "7"), "7"),
        ("b", problem("a", "a", "bb"), "a"),  # no letter in lower case: the nearest choice
        ("sevn", problem("seven", "six", "seven"), "seven"),
        ("3.7", problem("3", answer_type="integer"), "3"),
        ("many", problem("3", answer_type="integer"), None),
        ("1.25", problem("1.2", answer_type="float", precision=1.0), "1.2"),
        ("inf", problem("3", answer_type="integer"), None),
        ("[1, 2]", problem("[1, 2]", answer_type="list"), "[1, 2]"),
    ],
)
def test_mathvista_normalises(extraction, expected, prediction):
    assert mathvista.normalise(extraction, expected) == prediction


@pytest.mark.parametrize(
    ("response", "expected", "extraction"),
    [
        ("5", problem("5", answer_type="integer"), "5"),
        ("From 3 and 4 follows \\boxed{12}. There were 99", problem("12"), "12"),
        ("So the answer is 1,200 apples.", problem("1200", answer_type="integer"), "1200"),
        ("The answer is (B), not (A)?", problem("y", "x", "y"), "A"),
        ("I see that it is y", problem("y", "x y z", "y"), "y"),
        ("The years [2001, 2003].", problem("[]", answer_type="list"), "[2001, 2003]"),
        ("Sorry.", problem("5", answer_type="integer"), None),
    ],
)
def test_mathvista_extracts(response, expected, extraction):
    assert mathvista.extract(response, expected) == extraction


def test_mathvista_agrees_with_the_recorded_verdicts():
    older_rule = 0
    for row in rows(recorded("mathvista/recorded_bard.jsonl")):
        metadata = {key: row[key] for key in ("answer_type", "precision")}
        choices = tuple(row["choices"] or ())
        one = Problem(row["pid"], row["question"], row["answer"], (), choices, metadata=metadata)
        verdict = mathvista.judge(row["extraction"], one)
        assert verdict.correct == row["true_false"], row["pid"]
        older_rule += verdict.extracted != row["prediction"]
    assert older_rule <= 3


# GSM8K and MATH-500


@pytest.mark.parametrize(
    ("response", "extracted"),
    [
        ("work\n#### 1,234", "1234"),
        ("so \\boxed{\\$1,234}", "1234"),
        ("so 1234", None),
        ("\\boxed{x}", None),
    ],
)
def test_gsm8k_extracts(response, extracted):
    verdict = gsm8k.official(response, problem("1234"))
    assert (verdict.extracted, verdict.correct) == (extracted, extracted is not None)
    assert verdict.parse_failed is (extracted is None)


@pytest.mark.parametrize(
    ("response", "answer", "correct"),
    [
        ("\\boxed{\\dfrac12}", "\\frac{1}{2}", True),
        ("\\boxed{x=5}", "5", True),
        ("\\boxed{10\\text{ cm}}", "10", True),
        ("\\boxed{\\sqrt 2}", "\\sqrt{2}", False),  # official quirk: braces the space
        ("\\boxed{\\left(1, 2\\right)}", "(1,2)", True),
        ("\\boxed{0.50}", "\\frac{1}{2}", False),  # text alone is compared
        ("5", "5", False),
    ],
)
def test_math500_verdicts(response, answer, correct):
    assert math500.official(response, problem(answer)).correct is correct


@pytest.mark.parametrize(
    "piece",
    [
        "1",
        "1,",
        "(A) ",
        "\\boxed{",
        "}",
        'The answer is "',
        "answer is ",
        "-",
        "[",
        "=\n",
        "^",
        " ",
    ],
)
@pytest.mark.parametrize(
    "rules",
    [mathvision, mmmu, mmmu_pro, mathvista, gsm8k, math500],
    ids=lambda rules: rules.__name__,
)
def test_work_on_endless_responses_grows_with_their_length(rules, piece):
    """Sixteen times the length is about sixteen times the work; if it were quadratic, 256 times."""
    lengths = (10_000, 160_000)
    short, long = (cpu_seconds(rules, piece * (length // len(piece))) for length in lengths)
    assert long < 64 * short


def cpu_seconds(rules, response):
    """Of this process alone, the least of three times."""
    times = []
    for _ in range(3):
        start = time.process_time()
        for one in (problem("3", answer_type="integer"), problem("B", *FOUR)):
            rules.official(response, one)
        times.append(time.process_time() - start)
    return min(times)
