"""Loading, prompts, scoring of response files, and the command line."""

import io
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluations import MATHVISION_ROWS, mathvision_problems, write_jsonl
from PIL import Image

from eval import reported
from eval.benchmarks.registry import BENCHMARKS, get_benchmark
from eval.score import read_responses
from eval.statistics import wilson_interval
from thinking_rl.types import Problem


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_problems_load_without_their_pictures(tmp_path):
    problems = mathvision_problems(tmp_path)
    assert [problem.id for problem in problems] == ["0", "1", "2"]
    assert problems[1].choices == ("3", "4 cm", "$5$", "6", "7")
    assert problems[1].level == 2
    assert problems[0].images == ()


def test_missing_column_names_the_row(tmp_path):
    path = write_jsonl(tmp_path / "bad.jsonl", [{"id": "1", "answer": "2"}])
    with pytest.raises(ValueError, match=r"bad\.jsonl, row 1: no column question"):
        get_benchmark("mathvision").load(path, pictures=False)


@pytest.mark.parametrize("pictures", [True, False])
def test_mmmu_loads_by_subject_with_images_in_place(tmp_path, pictures):
    row = {
        "id": "validation_Art_Theory_7",
        "question": "Compare <image 2> with <image 1>.",
        "options": "['<image 2>', 'red', \"it's\", 'none']",
        "answer": "B",
        "question_type": "multiple-choice",
        "subfield": "x",
        "image_1": png("red"),
        "image_2": png("blue"),
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "validation-0.parquet")
    (problem,) = get_benchmark("mmmu").load(tmp_path, pictures=pictures)
    assert problem.subject == "Art_Theory"
    assert len(problem.choices) == 4
    assert problem.choices[2] == "it's"
    assert len(problem.images) == (2 if pictures else 0)
    if pictures:
        assert problem.question == "Compare <image2> with <image1>."


def test_nested_options_are_mended(tmp_path):
    nested = "[['a', 'b'], 'c', ['d'], None]"
    row = {"id": "test_History_1", "question": "Which?", "options": nested, "answer": "A"}
    row["subject"] = "History"
    path = write_jsonl(tmp_path / "pro.jsonl", [row])
    (problem,) = get_benchmark("mmmu_pro").load(path, pictures=False)
    assert problem.choices == ("a, b", "c", "d", "None")


def test_rows_that_do_not_fit_are_left_out_and_named(tmp_path, caplog):
    rows = [{**MATHVISION_ROWS[0], "id": str(number)} for number in range(200)]
    rows[7]["answer"] = ""
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    problems = get_benchmark("mathvision").load(path, pictures=False)
    assert [problem.id for problem in problems] == [str(n) for n in range(200) if n != 7]
    assert "1 of 200 rows do not fit" in caplog.text
    assert "row 8: answer: missing" in caplog.text


def test_too_many_rows_that_do_not_fit_are_an_error(tmp_path):
    rows = [{**MATHVISION_ROWS[0], "id": str(number)} for number in range(50)]
    rows[7]["answer"] = ""
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match=r"1 of 50 rows do not fit: .*row 8.*more than 1%"):
        get_benchmark("mathvision").load(path, pictures=False)


def test_mmmu_pro_vision_is_scored_without_pictures(tmp_path):
    row = {"id": "test_Art_1", "options": "['a', 'b']", "answer": "B", "subject": "Art"}
    path = write_jsonl(tmp_path / "vision.jsonl", [row])
    (problem,) = get_benchmark("mmmu_pro_vision").load(path, pictures=False)
    assert problem.choices == ("a", "b")


def test_mmmu_pro_vision_needs_no_question(tmp_path):
    row = {"id": "test_Art_1", "image": png("red"), "options": "['a', 'b']", "answer": "B"}
    pq.write_table(pa.Table.from_pylist([{**row, "subject": "Art"}]), tmp_path / "test-0.parquet")
    benchmark = get_benchmark("mmmu_pro_vision")
    (problem,) = benchmark.load(tmp_path)
    assert (len(problem.images), problem.question, problem.subject) == (1, "", "Art")
    assert "in the image" in benchmark.prompt(problem).question


def test_math500_and_gsm8k_load(tmp_path):
    row = {"problem": "1+1?", "answer": "2", "unique_id": "test/a/1.json", "level": 3}
    path = write_jsonl(tmp_path / "math.jsonl", [{**row, "subject": "Algebra", "solution": "s"}])
    (problem,) = get_benchmark("math500").load(path)
    assert (problem.id, problem.question, problem.level) == ("test/a/1.json", "1+1?", 3)
    path = write_jsonl(tmp_path / "gsm.jsonl", [{"question": "q", "answer": "s\n#### 1,000"}])
    (problem,) = get_benchmark("gsm8k").load(path)
    assert problem.answer == "1000"


CHOICES = ("red", "blue")


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("style", ["official", "kimi"])
def test_prompts_hold_question_and_choices(name, style):
    metadata = {"answer_type": "text"}
    problem = Problem("1", "Which is it, <image1>?", "A", choices=CHOICES, metadata=metadata)
    asked = get_benchmark(name).prompt(problem, style)
    assert (asked.id, asked.answer, asked.choices) == ("1", "A", CHOICES)
    if name != "mmmu_pro_vision":
        assert asked.question.count("<image1>") == 1
    if name.startswith(("mmmu_pro", "mmmu")) and name != "mmmu_pro_vision":
        assert "blue" in asked.question
    if style == "kimi" and name.startswith(("mmmu", "math500", "gsm8k")):
        assert "\\boxed{" in asked.question


def test_mathvision_leaves_out_choices_that_are_only_letters():
    problem = Problem("1", "Which one?", "A", choices=tuple("ABCDE"))
    assert "(B)" not in get_benchmark("mathvision").prompt(problem).question
    problem = Problem("1", "Which one?", "A", choices=("1", "2", "3", "4", "5"))
    assert "(B) 2" in get_benchmark("mathvision").prompt(problem).question


@pytest.mark.parametrize(
    ("response", "style", "read"),
    [
        ("◁think▷ (A) ◁/think▷ It is (B).", "official", "It is (B)."),
        ("◁think▷ (A) is it, so", "official", ""),
        ("◁think▷x◁/think▷Answer: $\\boxed{B}$", "kimi", "B"),
        ("no marks (B)", "kimi", "no marks (B)"),
    ],
)
def test_only_what_follows_the_thinking_is_judged(response, style, read):
    assert get_benchmark("mmmu").read(response, style) == read


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "9", "response": "x"}], "row 1: id '9' is none of the 3 problems"),
        (
            [{"id": "0", "response": "x"}, {"id": 0, "response": "y"}],
            "row 2: id '0' stands in row 1 already",
        ),
        ([{"id": "0", "response": "x"}], "2 of 3 problems have no response, first ids: 1, 2"),
        ([{"id": "0"}], "row 1: 'response' is missing"),
        ([{"id": "0", "response": None}], "row 1: 'response' is missing"),
        ([["0", "x"]], "row 1: expected an object"),
    ],
)
def test_bad_response_files_name_the_row(tmp_path, rows, message):
    problems = mathvision_problems(tmp_path)
    path = write_jsonl(tmp_path / "responses.jsonl", rows)
    with pytest.raises(ValueError, match=r"responses\.jsonl") as error:
        read_responses(path, problems)
    assert message in str(error.value)


def test_response_file_may_be_partial_or_broken(tmp_path):
    problems = mathvision_problems(tmp_path)
    path = write_jsonl(tmp_path / "responses.jsonl", [{"id": "0", "response": "a\u2028b"}])
    assert read_responses(path, problems, partial=True) == {"0": "a\u2028b"}
    path.write_text('{"id": "0", ', "utf-8")
    with pytest.raises(ValueError, match="row 1: not valid JSON"):
        read_responses(path, problems)
    with pytest.raises(ValueError, match="no such file"):
        read_responses(tmp_path / "nothing.jsonl", problems)


@pytest.mark.parametrize(("right", "total"), [(0, 10), (5, 10), (10, 10), (330, 900)])
def test_wilson_bounds_are_where_the_score_test_just_rejects(right, total):
    """By definition: a bound p off the share has |share - p| = 1.96 sqrt(p (1 - p) / total)."""
    share = right / total
    for bound in wilson_interval(right, total):
        distance = 1.959964 * math.sqrt(bound * (1 - bound) / total)
        assert abs(share - bound) == pytest.approx(distance, abs=1e-7)
    low, high = wilson_interval(right, total)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1


def test_reported_scaling_curve_ends_at_the_reported_score():
    thinking = reported.SCORES["Kimi-VL-A3B-Thinking"]
    for name, curve in reported.SCALING.items():
        assert len(curve) == len(reported.THINKING_BUDGETS)
        assert curve[-1] == thinking[name]
