"""The command that grades rows, and what looking a grader up loads."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_checking_a_name_loads_nothing_heavy():
    program = (
        "import sys; from rewards.registry import check; check('math_answer')\n"
        "print([name for name in ('torch', 'ray', 'vllm', 'sympy') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert result.stdout.strip() == "[]", result.stderr


def run_grade(rows: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "rewards.grade", *arguments],
        input=rows,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )


def test_grade_command():
    rows = [
        {"id": "a", "response": r"\boxed{1/2}", "answer": "0.5"},
        {"id": 2, "response": r"\boxed{A}", "answer": "B", "choices": ["1", "2"]},
        {"id": "c", "response": r"\boxed{9^{9^{9^9}}}", "answer": "1"},
    ]
    result = run_grade("\n".join(map(json.dumps, rows)), "--grader", "math_answer")
    graded = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0, result.stderr
    assert [row["id"] for row in graded] == ["a", "2", "c"]
    assert [row["outcome"] for row in graded] == ["right", "wrong", "wrong"]
    assert graded[0]["value"] == 1.0
    assert graded[0]["extracted"] == "1/2"
    assert graded[0]["parts"] == {"math_answer": 1.0}
    assert "too large" in graded[2]["note"]


def test_grade_command_reports_errors_without_a_traceback():
    for rows, arguments in (("{\n", ()), ("", ("--grader", "nothing"))):
        result = run_grade(rows, *arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.stderr
