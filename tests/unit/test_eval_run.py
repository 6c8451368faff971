"""Running benchmarks: what is asked, what is kept, what an interruption costs, what is measured."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from eval import tables
from eval.answers import AnswerFile, keep_settings, sole_writer
from eval.benchmarks.registry import BENCHMARKS, get_benchmark
from eval.run import main, parse_arguments
from eval.runner import Asking, Model, accuracy, ask, measure, pass_at_k, thinking_length
from rollouts.engine import Completion, Request
from thinking_rl.model.processing import KimiVLProcessor, load_processor
from thinking_rl.types import FinishReason, Problem, Segment

BENCHMARK = get_benchmark("gsm8k")
PROBLEMS = [Problem(str(number), f"{number} + 1?", str(number + 1)) for number in range(10)]
TEN = Asking(temperature=0.8, max_tokens=100)


@pytest.fixture(scope="module")
def processor(tiny_checkpoint: Path) -> KimiVLProcessor:
    return load_processor(tiny_checkpoint)


class StandIn:
    """An engine that writes what `say` tells it; remembers every request."""

    def __init__(self, processor: KimiVLProcessor, say: Callable[[Request], str]) -> None:
        self.processor, self.say = processor, say
        self.requests: list[Request] = []
        self.calls_left = 1000

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        if self.calls_left == 0:
            raise KeyboardInterrupt
        self.calls_left -= 1
        self.requests += requests
        return [[self._complete(request)] for request in requests]

    def _complete(self, request: Request) -> Completion:
        end = self.processor.tokenizer.special_token_ids["<|im_end|>"]
        ids = (*self.processor.tokenizer.text_ids(self.say(request)), end)
        reason = FinishReason.STOP if len(ids) <= request.max_tokens else FinishReason.LENGTH
        ids = ids[: request.max_tokens]
        return Completion(Segment(ids, (0.0,) * len(ids), 0), reason)

    @property
    def model(self) -> Model:
        return Model(self.processor, self.generate, 4096)


def by_seed(request: Request) -> str:
    """A response that depends on the request's seed, as sampling does."""
    return f"◁think▷well◁/think▷ #### {(request.seed or 0) % 10}"


def test_an_interrupted_run_goes_on_where_it_stopped(processor, tmp_path: Path) -> None:
    asking = replace(TEN, samples=3)
    whole = ask(BENCHMARK, PROBLEMS, StandIn(processor, by_seed).model, asking, chunk=4)
    engine = StandIn(processor, by_seed)
    engine.calls_left = 3
    with pytest.raises(KeyboardInterrupt):
        ask(BENCHMARK, PROBLEMS, engine.model, asking, AnswerFile(tmp_path / "a"), chunk=4)
    kept = (tmp_path / "a").read_text("utf-8")
    assert kept.count("\n") == 12
    (tmp_path / "a").write_text(kept[:-20], "utf-8")  # killed in the middle of a row
    engine.calls_left = 1000
    again = ask(BENCHMARK, PROBLEMS, engine.model, asking, AnswerFile(tmp_path / "a"), chunk=4)
    assert again == whole
    rows = [json.loads(line) for line in (tmp_path / "a").read_text("utf-8").splitlines()]
    assert len({(row["id"], row["sample"]) for row in rows}) == len(rows) == 30
    assert len(engine.requests) == 31  # one torn row is asked again
    assert len({request.seed for request in engine.requests}) == 30
    assert measure(BENCHMARK, PROBLEMS, again, asking) == measure(
        BENCHMARK, PROBLEMS, whole, asking
    )
    asked = len(engine.requests)
    assert ask(BENCHMARK, PROBLEMS, engine.model, asking, AnswerFile(tmp_path / "a")) == whole
    assert len(engine.requests) == asked


def test_answers_do_not_depend_on_chunks(processor) -> None:
    one, two = (
        ask(BENCHMARK, PROBLEMS, StandIn(processor, by_seed).model, TEN, chunk=chunk)
        for chunk in (1, 7)
    )
    assert one == two
    other = ask(BENCHMARK, PROBLEMS, StandIn(processor, by_seed).model, replace(TEN, seed=1))
    assert [answer.response for answer in other] != [answer.response for answer in one]


def test_the_prompt_is_the_benchmarks_own(processor) -> None:
    benchmark = get_benchmark("mathvision")
    problem = Problem("1", "Which?", "B", choices=("3", "4"))
    engine = StandIn(processor, by_seed)
    ask(benchmark, [problem], engine.model, TEN)
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


def test_thinking_beyond_its_budget_is_closed(processor) -> None:
    """Of three responses one thinks on, one has closed its thinking and one has ended."""
    long = "◁think▷" + "well " * 40
    closed = "◁think▷a◁/think▷ so " + "it is " * 40
    texts = {"0 + 1?": long, "1 + 1?": closed, "2 + 1?": "◁think▷b◁/think▷ #### 3"}

    def say(request: Request) -> str:
        prompt = processor.tokenizer.decode(list(request.prompt_ids))
        if request.max_tokens == 20:
            return " #### 1"
        return next(text for question, text in texts.items() if question in prompt)

    engine = StandIn(processor, say)
    asking = replace(TEN, thinking_budget=24, answer_tokens=20)
    answers = ask(BENCHMARK, PROBLEMS[:3], engine.model, asking)
    ids = [processor.tokenizer.text_ids(text) for text in texts.values()]
    closer = processor.tokenizer.text_ids("◁/think▷")
    first, rest = engine.requests[:3], engine.requests[3:]
    assert [request.max_tokens for request in first] == [24] * 3
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


def test_a_budget_needs_its_whole_room(processor) -> None:
    model = Model(processor, StandIn(processor, by_seed).generate, 100)
    with pytest.raises(ValueError, match=r"problem 0: the prompt has .*max_model_tokens is 100"):
        ask(BENCHMARK, PROBLEMS, model, replace(TEN, thinking_budget=90))


def test_table_and_plot(processor, tmp_path: Path) -> None:
    benchmark = get_benchmark("mathvision")
    results = []
    for budget in (1024, 4096):
        asking = replace(TEN, samples=2, thinking_budget=budget)
        engine = StandIn(processor, lambda request: "◁think▷a◁/think▷ \\boxed{3}")
        answers = ask(benchmark, PROBLEMS, Model(processor, engine.generate, 9000), asking)
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


def test_benchmarks_along_a_run(processor) -> None:
    from thinking_rl.run.benchmarks import run_benchmarks

    reported: list[Any] = []
    run: Any = SimpleNamespace(
        recipe=SimpleNamespace(rollout=SimpleNamespace(max_model_tokens=4096)),
        processor=processor,
        pool=StandIn(processor, lambda request: "◁think▷a◁/think▷ #### 3"),
        reporter=SimpleNamespace(evaluation=lambda *row: reported.append(row)),
        benchmarks=[(BENCHMARK, PROBLEMS, TEN)],
    )
    run_benchmarks(run, 4)
    assert [row[:3] for row in reported] == [("benchmark/gsm8k@iteration_4", 1, 10)]
    assert reported[0][3]["strict"] == pytest.approx(0.1)


def test_the_recipe_knows_the_benchmarks() -> None:
    from thinking_rl.recipe import schema as recipe

    assert set(recipe.BENCHMARKS) == set(BENCHMARKS)
    with pytest.raises(ValueError, match="did you mean 'mathvision'"):
        recipe.BenchmarkRun(name="mathvison")
