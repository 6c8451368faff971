"""How far our official verdicts agree with recorded ones; one JSON line a figure.

Usage: THINKING_RL_DATA=FOLDER python benchmarks/official_verdicts.py
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import sympy

from eval.benchmarks import mathvision, mathvista, mmmu
from eval.benchmarks.registry import get_benchmark
from eval.score import strict_verdicts
from thinking_rl.types import Problem

MATHVISION_FILES = ("Gemini-Pro-CoT", "InternLM-XComposer2-VL-CoT", "LLaVA-v1.5-13B")


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a jsonl file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def say(figure: str, **values: Any) -> None:
    """Print one figure."""
    print(json.dumps({"figure": figure, **values}), flush=True)


def mathvision_file(root: Path, name: str, problems: dict[str, Problem]) -> None:
    """Agreement with the recorded verdicts of one file, then strict against official."""
    recorded = rows(root / f"mathvision/recorded/{name}.jsonl")
    start = time.perf_counter()
    verdicts = [mathvision.official(row["response"], problems[row["id"]]) for row in recorded]
    seconds = time.perf_counter() - start
    pairs = list(zip(recorded, verdicts, strict=True))
    right = sum(verdict.correct for verdict in verdicts)
    say(
        f"mathvision official, {name}",
        rows=len(recorded),
        agree=sum(verdict.correct == row["correct"] for row, verdict in pairs),
        same_extraction=sum((v.extracted or "") == row["model_answer"] for row, v in pairs),
        accuracy=round(100 * right / len(recorded), 2),
        recorded_accuracy=round(100 * sum(row["correct"] for row in recorded) / len(recorded), 2),
        disagreements=[row["id"] for row, verdict in pairs if verdict.correct != row["correct"]],
        seconds=round(seconds, 2),
    )
    items = [(problems[row["id"]], row["response"]) for row in recorded]
    start = time.perf_counter()
    strict = strict_verdicts(get_benchmark("mathvision"), items)
    official = {row["id"]: verdict.correct for row, verdict in pairs}
    graded = {key: value for key, value in strict.items() if value is not None}
    say(
        f"mathvision strict, {name}",
        accuracy=round(100 * sum(graded.values()) / len(graded), 2),
        not_graded=len(strict) - len(graded),
        only_official=sum(official[key] and not value for key, value in graded.items()),
        only_strict=sum(value and not official[key] for key, value in graded.items()),
        seconds=round(time.perf_counter() - start, 2),
    )


def mathvision_with_library(root: Path, problems: dict[str, Problem]) -> None:
    """Agreement if latex2sympy2_extended read the LaTeX, rather than our reader of the original's
    grammar."""
    from latex2sympy2_extended import latex2sympy

    @cache
    def library_number(latex: str) -> float | None:
        try:
            return float(sympy.N(latex2sympy(latex)))
        except Exception:  # whatever the parser or the conversion raises means: no value
            return None

    ours, mathvision.latex_number = mathvision.latex_number, library_number
    start, agree, total = time.perf_counter(), 0, 0
    for name in MATHVISION_FILES:
        for row in rows(root / f"mathvision/recorded/{name}.jsonl"):
            verdict = mathvision.official(row["response"], problems[row["id"]])
            agree += verdict.correct == row["correct"]
            total += 1
    mathvision.latex_number = ours
    seconds = round(time.perf_counter() - start, 2)
    say("mathvision official with latex2sympy2_extended", rows=total, agree=agree, seconds=seconds)


def mmmu_file(root: Path) -> None:
    """Agreement where the official parser parses, and the seeded guesses."""
    recorded = rows(root / "mmmu/recorded_llava1.5_13b.jsonl")
    guess = random.Random(42)
    same, right, guesses = 0, 0, []
    for row in recorded:
        choices = tuple(row.get("index2ans", {}).values())
        problem = Problem(row["id"], "", str(row["answer"]), choices=choices)
        verdict = mmmu.official(row["response"], problem, guess)
        right += verdict.correct
        if choices:
            is_same = verdict.extracted == row["parsed_pred"]
        else:
            is_same = set(mmmu.parse_open(row["response"])) == set(row["parsed_pred"])
        is_same &= verdict.correct == (row["judge"] == "Correct")
        if verdict.parse_failed:
            guesses.append(is_same)
        else:
            same += is_same
    say(
        "mmmu official",
        rows=len(recorded),
        parsed=len(recorded) - len(guesses),
        parsed_alike=same,
        guessed=len(guesses),
        guessed_alike=sum(guesses),
        right_with_guesses=right,
    )


def mathvista_file(root: Path) -> None:
    """Agreement from the recorded extraction, and from the response by rules alone."""
    recorded = rows(root / "mathvista/recorded_bard.jsonl")
    counts = dict.fromkeys(("true_false", "prediction", "rules_alone", "rules_right"), 0)
    different = []
    for row in recorded:
        problem = Problem(
            row["pid"],
            row["question"],
            row["answer"],
            choices=tuple(row["choices"] or ()),
            metadata={key: row[key] for key in ("answer_type", "precision")},
        )
        verdict = mathvista.judge(row["extraction"], problem)
        counts["true_false"] += verdict.correct == row["true_false"]
        counts["prediction"] += verdict.extracted == row["prediction"]
        if verdict.extracted != row["prediction"]:
            different.append([row["pid"], row["extraction"], verdict.extracted, row["prediction"]])
        alone = mathvista.official(row["response"], problem)
        counts["rules_alone"] += alone.correct == row["true_false"]
        counts["rules_right"] += alone.correct
    recorded_right = sum(row["true_false"] for row in recorded)
    say("mathvista official", rows=len(recorded), **counts, recorded_right=recorded_right)
    say("mathvista predictions that differ", pid_extraction_ours_recorded=different)


def main() -> int:
    """All figures."""
    folder = os.environ.get("THINKING_RL_DATA")
    if not folder or not Path(folder).is_dir():
        print("set THINKING_RL_DATA to the folder of recorded data", file=sys.stderr)
        return 2
    root = Path(folder)
    questions = root / "mathvision/all_questions.jsonl"
    loaded = get_benchmark("mathvision").load(questions, pictures=False)
    problems = {problem.id: problem for problem in loaded}
    for name in MATHVISION_FILES:
        mathvision_file(root, name, problems)
    mathvision_with_library(root, problems)
    mmmu_file(root)
    mathvista_file(root)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
