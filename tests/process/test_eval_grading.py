"""Evaluations whose answers are graded, which worker processes do."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from evaluations import (
    BENCHMARK,
    MATHVISION_ROWS,
    PROBLEMS,
    TEN,
    StandIn,
    by_seed,
    mathvision_problems,
    write_jsonl,
)
from PIL import Image

from eval import tables
from eval.answers import AnswerFile
from eval.ask import ask
from eval.benchmarks.registry import get_benchmark
from eval.measure import measure
from eval.score import main, report, score
from rollouts.engine import Request
from rollouts.prompts import Sampling
from thinking_rl.model.processing import KimiVLProcessor, load_processor
from thinking_rl.recipe.schema import Rewards
from thinking_rl.run import evaluate
from thinking_rl.run.grading import Grader
from thinking_rl.types import FinishReason, Group, Problem, Segment, Trajectory


@pytest.fixture(scope="module")
def processor(tiny_checkpoint: Path) -> KimiVLProcessor:
    return load_processor(tiny_checkpoint)


def test_an_interrupted_run_goes_on_where_it_stopped(processor, tmp_path: Path) -> None:
    asking = replace(TEN, samples=3)
    whole = ask(BENCHMARK, PROBLEMS, StandIn(processor, by_seed).model(), asking, chunk=4)
    engine = StandIn(processor, by_seed)
    engine.calls_left = 3
    with pytest.raises(KeyboardInterrupt):
        ask(BENCHMARK, PROBLEMS, engine.model(), asking, AnswerFile(tmp_path / "a"), chunk=4)
    kept = (tmp_path / "a").read_text("utf-8")
    assert kept.count("\n") == 12
    (tmp_path / "a").write_text(kept[:-20], "utf-8")  # killed in the middle of a row
    engine.calls_left = 1000
    again = ask(BENCHMARK, PROBLEMS, engine.model(), asking, AnswerFile(tmp_path / "a"), chunk=4)
    assert again == whole
    rows = [json.loads(line) for line in (tmp_path / "a").read_text("utf-8").splitlines()]
    assert len({(row["id"], row["sample"]) for row in rows}) == len(rows) == 30
    assert len(engine.requests) == 31  # one torn row is asked again
    assert len({request.seed for request in engine.requests}) == 30
    assert measure(BENCHMARK, PROBLEMS, again, asking) == measure(
        BENCHMARK, PROBLEMS, whole, asking
    )
    asked = len(engine.requests)
    assert ask(BENCHMARK, PROBLEMS, engine.model(), asking, AnswerFile(tmp_path / "a")) == whole
    assert len(engine.requests) == asked


def test_thinking_beyond_its_budget_is_closed(processor) -> None:
    """Of three responses one thinks on, one has closed its thinking and one has ended."""
    long = "◁think▷" + "well " * 40
    closed = "◁think▷a◁/think▷ so " + "it is " * 40
    texts = {"0 + 1?": long, "1 + 1?": closed, "2 + 1?": "◁think▷b◁/think▷ #### 3"}

    def say(request: Request) -> str:
        prompt = processor.tokenizer.decode(list(request.prompt_ids))
        if request.max_response_tokens == 20:
            return " #### 1"
        return next(text for question, text in texts.items() if question in prompt)

    engine = StandIn(processor, say)
    asking = replace(TEN, thinking_budget=24, answer_tokens=20)
    answers = ask(BENCHMARK, PROBLEMS[:3], engine.model(), asking)
    ids = [processor.tokenizer.text_ids(text) for text in texts.values()]
    closer = processor.tokenizer.text_ids("◁/think▷")
    first, rest = engine.requests[:3], engine.requests[3:]
    assert [request.max_response_tokens for request in first] == [24] * 3
    assert [list(r.prompt_ids) for r in rest] == [
        [*first[0].prompt_ids, *ids[0][:24], *closer],
        [*first[1].prompt_ids, *ids[1][:24]],
    ]
    assert {r.seed for r in rest}.isdisjoint({r.seed for r in first})
    assert [answer.forced_close for answer in answers] == [True, False, False]
    assert answers[0].response.endswith("◁/think▷ #### 1")
    assert answers[0].thinking_tokens == 24 + len(closer)
    assert answers[1].thinking_tokens < 24
    assert answers[2].response == texts["2 + 1?"]
    assert [answer.finish for answer in answers] == ["stop"] * 3
    result = measure(BENCHMARK, PROBLEMS[:3], answers, asking)
    assert (result.official_right, result.strict_right, result.forced_close) == (2, 2, 1)


def test_table_and_plot(processor, tmp_path: Path) -> None:
    benchmark = get_benchmark("mathvision")
    results = []
    for budget in (1024, 4096):
        asking = replace(TEN, samples=2, thinking_budget=budget)
        engine = StandIn(processor, lambda request: "◁think▷a◁/think▷ \\boxed{3}")
        answers = ask(benchmark, PROBLEMS, engine.model(9000), asking)
        results.append(measure(benchmark, PROBLEMS, answers, asking))
    text = tables.table_text(results)
    assert [line.split()[:2] for line in text.splitlines()[1:3]] == [
        ["mathvision", "1024"],
        ["mathvision", "4096"],
    ]
    for word in ("10.0 (1.8 to 40.4)", "@2 10.0", "18.7", "29.0"):
        assert word in text
    tables.plot_budgets(results, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size == (900, 600)


def test_benchmarks_along_a_run(processor) -> None:
    from thinking_rl.run.benchmarks import LoadedBenchmark, run_benchmarks

    reported: list[Any] = []
    engine = StandIn(processor, lambda request: "◁think▷a◁/think▷ #### 3")
    loaded = [LoadedBenchmark(BENCHMARK, PROBLEMS, TEN)]
    run_benchmarks(loaded, engine.model(), 4, lambda *row: reported.append(row))
    [(name, result)] = reported
    assert name == "benchmark/gsm8k@iteration_4"
    assert (result["correct"], result["total"]) == (1, 10)
    assert result["strict"] == pytest.approx(0.1)


@pytest.mark.parametrize(("truncated", "right"), [("masked", 1), ("wrong", 1), ("graded", 2)])
def test_no_evaluation_leaves_out_a_response_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truncated: Any, right: int
) -> None:
    """Of four responses one is right and whole, one right and cut off."""

    def said(text: str, reason: FinishReason) -> Trajectory:
        return Trajectory("p", (1,), (), (Segment((7,), (-0.5,), 0),), text, reason)

    answers = [("5", FinishReason.STOP), ("5", FinishReason.LENGTH), ("6", FinishReason.STOP)]
    answers.append(("6", FinishReason.REPETITION))
    group = Group(Problem("p", "2 + 3?", "5"), tuple(said(*answer) for answer in answers))
    monkeypatch.setattr(evaluate, "collect", lambda *_: [group])
    reported: list[Any] = []
    grader = Grader(Rewards(truncated=truncated, workers=1), tmp_path / "not_graded", print)
    session = Mock(grader=grader, sampling=Sampling(1, 100, 1.0))
    settings = {"eval_samples": 4, "eval_temperature": 0.8, "eval_caps": [], "eval_step_mark": ""}
    session.recipe.data = Mock(**settings)
    session.reporter.evaluation = lambda *row: reported.append(row)
    evaluate.evaluate(session, "now")
    grader.close()
    [(_, result)] = reported
    for one in (result["greedy"], result["sampled"]):
        assert (one["accuracy"], one["not_graded"]) == (right / 4, 0)


def test_both_verdicts(tmp_path):
    problems = mathvision_problems(tmp_path)
    responses = {"0": "\\boxed{60}", "1": "\\boxed{4}", "2": "\\boxed{0.333}"}
    rows = score(get_benchmark("mathvision"), problems, responses, workers=1)
    assert [(row.official, row.strict) for row in rows] == [
        (True, True),
        (False, True),  # the official rules know no units
        (True, False),  # but take two decimals for enough
    ]
    text = report(get_benchmark("mathvision"), problems, responses, rows)
    assert "66.67% (2 of 3; 95% interval 20.77 to 93.85)" in text
    assert "disagree on 2" in text
    assert "by level" in text


def test_parse_failures_are_counted_and_guessed_only_on_request():
    problems = [
        Problem(f"validation_Art_{n}", "?", "A", choices=("x", "y", "z")) for n in range(20)
    ]
    responses = {problem.id: "no idea" for problem in problems}
    benchmark = get_benchmark("mmmu")
    plain = score(benchmark, problems, responses, workers=1)
    assert all(row.parse_failed and not row.official for row in plain)
    guessed = score(benchmark, problems, responses, guess_seed=42, workers=1)
    generator = random.Random(42)
    assert [row.extracted for row in guessed] == [generator.choice("ABC") for _ in problems]
    assert all(row.parse_failed for row in guessed)


def test_command_line(tmp_path, capsys):
    data = write_jsonl(tmp_path / "problems.jsonl", MATHVISION_ROWS)
    answers = [{"id": str(n), "response": f"\\boxed{{{n}}} \ud800"} for n in range(3)]
    responses = write_jsonl(tmp_path / "responses.jsonl", answers)
    out = tmp_path / "new" / "verdicts.jsonl"
    arguments = ["mathvision", str(responses), "--data", str(data), "--out", str(out)]
    assert main([*arguments, "--workers", "1"]) == 0
    assert "mathvision: 3 responses" in capsys.readouterr().out
    written = [json.loads(line) for line in out.read_text().splitlines()]
    keys = {"id", "official", "strict", "extracted", "parse_failed"}
    assert [set(row) for row in written] == [keys] * 3

    assert main(["mathvisoin", str(responses)]) == 2
    assert "did you mean 'mathvision'" in capsys.readouterr().err
    assert main(["mathvision", str(responses), "--data", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_a_full_disk_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, responses = tmp_path / "test.jsonl", tmp_path / "responses.jsonl"
    data.write_text('{"question": "1 + 1?", "answer": "It is 2.\\n#### 2"}\n')
    responses.write_text('{"id": "0", "response": "2"}\n')
    arguments = ["gsm8k", str(responses), "--data", str(data), "--workers=1"]
    assert main([*arguments, "--out=/dev/full"]) == 2
    assert "error: /dev/full: the verdicts could not be written" in capsys.readouterr().err
