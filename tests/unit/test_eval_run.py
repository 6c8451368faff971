"""Running benchmarks: what is asked, what is kept, what an interruption costs, what is measured."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import BENCHMARK, PROBLEMS, TEN, StandIn, by_seed

from eval.answers import AnswerFile, keep_settings
from eval.ask import ask, check_prompts, thinking_length
from eval.benchmarks.registry import BENCHMARKS, get_benchmark
from eval.run import main, parse_arguments
from eval.statistics import accuracy, pass_at_k
from thinking_rl.files.lock import sole_writer
from thinking_rl.model.processing import KimiVLProcessor, load_processor
from thinking_rl.types import Problem


@pytest.fixture(scope="module")
def processor(tiny_checkpoint: Path) -> KimiVLProcessor:
    return load_processor(tiny_checkpoint)


def test_answers_do_not_depend_on_chunks(processor) -> None:
    one, two = (
        ask(BENCHMARK, PROBLEMS, StandIn(processor, by_seed).model(), TEN, chunk=chunk)
        for chunk in (1, 7)
    )
    assert one == two
    other = ask(BENCHMARK, PROBLEMS, StandIn(processor, by_seed).model(), replace(TEN, seed=1))
    assert [answer.response for answer in other] != [answer.response for answer in one]


def test_the_prompt_is_the_benchmarks_own(processor) -> None:
    benchmark = get_benchmark("mathvision")
    problem = Problem("1", "Which?", "B", choices=("3", "4"))
    engine = StandIn(processor, by_seed)
    ask(benchmark, [problem], engine.model(), TEN)
    prompt = processor.tokenizer.decode(list(engine.requests[0].prompt_ids))
    assert benchmark.prompt(problem).question in prompt
    assert prompt.count("(B) 4") == 1


def test_a_row_that_is_no_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"id": "1"}\n')
    with pytest.raises(ValueError, match=r"a, row 1: no answer"):
        AnswerFile(tmp_path / "a")


SETTINGS = {"seed": 0, "dtype": "float32", "data": {"gsm8k": {"place": "x", "split": None}}}


def test_other_settings_are_refused(tmp_path: Path) -> None:
    keep_settings(tmp_path, {**SETTINGS, "seed": 5})
    keep_settings(tmp_path, SETTINGS)  # as long as there is no answer
    (tmp_path / "responses").mkdir()
    (tmp_path / "responses/gsm8k.jsonl").touch()
    keep_settings(tmp_path, {**SETTINGS, "data": {"mmmu": {"place": None, "split": None}}})
    assert list(json.loads((tmp_path / "settings.json").read_text())["data"]) == ["gsm8k", "mmmu"]
    with pytest.raises(ValueError, match=r"seed was 0 and is now 1.*another --out"):
        keep_settings(tmp_path, {**SETTINGS, "seed": 1})
    with pytest.raises(ValueError, match="data of gsm8k was"):
        keep_settings(tmp_path, {**SETTINGS, "data": {"gsm8k": {"place": "y", "split": None}}})


def test_only_one_process_writes(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path),
        pytest.raises(ValueError, match="another process"),
        sole_writer(tmp_path),
    ):
        pass


@pytest.mark.parametrize(("samples", "right"), [(1, 0), (1, 1), (5, 0), (5, 2), (6, 5), (4, 4)])
def test_pass_at_k_is_the_mean_over_all_choices_of_k(samples: int, right: int) -> None:
    answers = [index < right for index in range(samples)]
    for k in range(1, samples + 1):
        tries = [any(chosen) for chosen in itertools.combinations(answers, k)]
        assert pass_at_k(samples, right, k) == pytest.approx(sum(tries) / len(tries))
    with pytest.raises(ValueError, match="cannot be estimated"):
        pass_at_k(samples, right, samples + 1)


def test_what_was_not_graded_counts_for_nothing() -> None:
    one = accuracy([[True, None], [False, True], [None, None]])
    assert one.mean == 0.75
    assert one.pass_at == {1: 0.5, 2: 1.0}  # of the second problem alone
    assert accuracy([[None]]).mean != accuracy([[None]]).mean
    # Two answers to each of ten problems tell no more than ten problems do.
    assert (accuracy([[True, False]] * 10).low, 0.5) == (accuracy([[True], [False]] * 5).low, 0.5)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("◁think▷I add.◁/think▷ 7", "◁think▷I add.◁/think▷"),
        ("◁think▷I add", "◁think▷I add"),
        ("7", ""),
        ("add◁/think▷7", "add◁/think▷"),
    ],
)
def test_thinking_length(processor, text: str, length: str) -> None:
    ids = processor.tokenizer.text_ids(text)
    found = thinking_length(ids, lambda part: processor.tokenizer.decode(list(part)))
    decoded = processor.tokenizer.decode(ids[:found])
    assert decoded.startswith(length)
    assert len(decoded) - len(length) <= 1  # a token may reach one character further
    assert not processor.tokenizer.decode(ids[: max(0, found - 1)]).startswith(length or "x")


def test_a_budget_needs_its_whole_room(processor) -> None:
    engine = StandIn(processor, by_seed)
    for look in (ask, check_prompts):
        message = r"problem 0: the prompt has .*max_model_tokens is 100"
        with pytest.raises(ValueError, match=message):
            look(BENCHMARK, PROBLEMS, engine.model(100), replace(TEN, thinking_budget=90))
        look(BENCHMARK, PROBLEMS, engine.model(100), TEN)
    assert len(engine.requests) == len(PROBLEMS)  # of `ask` without a budget alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmarks", "mathvison"], "did you mean 'mathvision'"),
        (["--benchmarks", "mmmu", "--data", "gsm8k=x"], "'gsm8k' of --data"),
        (["--benchmarks", "gsm8k", "--samples", "2", "--temperature", "0"], "greedy"),
        (["--benchmarks", "gsm8k", "--data", "gsm8k={data}"], "'nowhere' is neither"),
        (["--benchmarks", "gsm8k", "--data", "gsm8k={data}.no"], "no such"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "test.jsonl"
    data.write_text('{"question": "1?", "answer": "#### 1"}\n')
    assert main(["nowhere", *(text.format(data=data) for text in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", ["0", "x", "1024,", "-3"])
def test_budgets_are_whole_numbers(text: str, capsys) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["x", "--benchmarks", "gsm8k", f"--thinking-budgets={text}"])
    assert "expected a whole number" in capsys.readouterr().err


def test_the_recipe_knows_the_benchmarks() -> None:
    from thinking_rl.recipe import schema as recipe

    assert set(recipe.BENCHMARKS) == set(BENCHMARKS)
    with pytest.raises(ValueError, match="did you mean 'mathvision'"):
        recipe.BenchmarkRun(name="mathvison")
