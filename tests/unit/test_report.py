"""Metrics, progress, summary and model card."""

from __future__ import annotations

import io
import json
import math
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from graded import result
from rich.console import Console

from eval.statistics import wilson_interval
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.recipe.schema import Recipe
from thinking_rl.report import progress
from thinking_rl.report.card import model_card
from thinking_rl.report.metrics import MetricsWriter, read_metrics
from thinking_rl.report.progress import Reporter
from thinking_rl.report.summary import write_summary
from thinking_rl.report.trackers import open_trackers


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "seed": 3,
            "run_dir": str(tmp_path / "first-run"),
            "stages": ["rl"],
            "model": {"path": "moonshotai/Kimi-VL-A3B-Instruct"},
            "data": {
                "train": [{"format": "geometry3k", "path": "hiyouga/geometry3k"}],
                "eval": [{"format": "procedural", "levels": [1, 2]}],
            },
            "rl": {
                "iterations": 4,
                "problems_per_iteration": 4,
                "tau": 0.1,
                "optimizer": {"learning_rate": 1e-4},
            },
            "rollout": {"max_response_tokens": 32, "max_model_tokens": 128},
            "learner": {"tokens_per_microbatch": 512},
        }
    )


@pytest.fixture
def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=40)


def folder(recipe: Recipe) -> RunFolder:
    return RunFolder.at(recipe.run_dir)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_metrics_round_trip(tmp_path: Path) -> None:
    writer = MetricsWriter(RunFolder(tmp_path))
    writer.write("rl", {"iteration": 1}, {"loss": np.float32(0.5), "kl": math.nan, "n": 3})
    writer.write("sft", {"step": 9}, {"loss": math.inf, "note": "ok"})
    rows = read_metrics(RunFolder(tmp_path))  # before closing: every row is flushed
    writer.close()
    assert [row.pop("time") > 1e9 for row in rows] == [True, True]
    assert rows == [
        {"stage": "rl", "iteration": 1, "loss": 0.5, "kl": None, "n": 3, "not_finite": ["kl"]},
        {"stage": "sft", "step": 9, "loss": None, "note": "ok", "not_finite": ["loss"]},
    ]


def test_metrics_survive_a_restart_and_a_torn_row(tmp_path: Path) -> None:
    for value in (1, 2):
        writer = MetricsWriter(RunFolder(tmp_path))
        writer.write("rl", {"iteration": value}, {})
        writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "r')
    assert [row["iteration"] for row in read_metrics(RunFolder(tmp_path))] == [1, 2]


def test_tensorboard_reads_the_scalars(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = open_trackers(["tensorboard"], RunFolder(tmp_path), {})
    writer = MetricsWriter(RunFolder(tmp_path), board)
    writer.write("rl", {"iteration": 2}, {"reward": 0.25, "kl": math.nan, "note": "x"})
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["tensors"] == ["rl/reward"]
    (event,) = events.Tensors("rl/reward")
    assert (event.step, event.tensor_proto.float_val[0]) == (2, 0.25)


def test_plain_progress_is_one_line_a_step(
    recipe: Recipe, plain: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    reporter = Reporter(folder(recipe), recipe, plain)
    with reporter.stage("rl", 2):
        for iteration in range(2):
            reporter.step(iteration, {"reward": 0.125, "length": 1234.5, "tokens": 10, "x": 1})
    reporter.log("[bold]not markup[/bold]")
    reporter.close()
    first, second, last = shown(plain).splitlines()
    assert first.startswith("rl 1/2  reward 0.125  length 1,234  tokens_per_s ")
    assert "left 0:0" in first
    assert second.startswith("rl 2/2  ")
    assert last == "[bold]not markup[/bold]"


def test_plain_progress_of_fast_steps_is_thinned_but_ends_complete(
    recipe: Recipe, plain: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 3600.0)
    reporter = Reporter(folder(recipe), recipe, plain)
    with reporter.stage("sft", 50, unit="step"):
        for step in range(50):
            reporter.step(step, {"loss": 1.0})
    reporter.close()
    assert [line.split()[1] for line in shown(plain).splitlines()] == ["1/50", "50/50"]
    assert [row["step"] for row in read_metrics(folder(recipe))] == list(range(50))


def test_seconds_per_phase_go_into_the_next_row_only(recipe: Recipe, plain: Console) -> None:
    reporter = Reporter(folder(recipe), recipe, plain)
    with reporter.stage("rl", 2):
        for _ in range(2):
            with reporter.timer("rollout"):
                pass
        reporter.step(0, {"tokens": 100})
        reporter.step(1, {})
    reporter.close()
    first, second = read_metrics(folder(recipe))
    assert 0 <= first["seconds/rollout"] <= first["seconds"]
    assert first["tokens_per_s"] == pytest.approx(100 / first["seconds"])
    assert "seconds/rollout" not in second


def test_live_progress_on_a_terminal(recipe: Recipe) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    reporter = Reporter(folder(recipe), recipe, terminal)
    with reporter.stage("rl", 1):
        reporter.step(0, {"reward": 0.5})
        reporter.log("checkpoint written")
    reporter.close()
    assert "1/1" in shown(terminal)
    assert "reward 0.5" in shown(terminal)
    assert "checkpoint written" in shown(terminal)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_broken_display_does_not_stop_the_run(recipe: Recipe, terminal: bool) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    reporter = Reporter(folder(recipe), recipe, Console(file=Closed(), force_terminal=terminal))
    with reporter.stage("rl", 1):
        reporter.step(0, {"reward": "not a number"})
    reporter.evaluation("after_rl", result(1, 2))
    reporter.finish()
    assert folder(recipe).summary.is_file()
    assert len(read_metrics(folder(recipe))) == 2


def test_summary_of_a_run(recipe: Recipe, plain: Console) -> None:
    reporter = Reporter(folder(recipe), recipe, plain)
    reporter.evaluation("start", result(0, 200))
    with reporter.stage("rl", 4):
        reporter.evaluation("iteration_2", result(50, 200) | {"extra": math.nan})
    reporter.evaluation("after_rl", result(132, 200))
    for count in (3, 4):
        reporter.count("images_decoded", count)
    returned = reporter.finish()
    written = json.loads(folder(recipe).summary.read_text())
    assert written == returned
    assert list(written["evaluations"]) == ["start", "iteration_2", "after_rl"]
    assert written["evaluations"]["iteration_2"]["extra"] is None
    assert (written["evaluations"]["after_rl"]["greedy"]["accuracy"], written["seed"]) == (0.66, 3)
    assert written["seconds"]["rl"] >= 0
    assert written["counts"] == {"images_decoded": 7}
    assert written["recipe"] == recipe.model_dump(mode="json")
    assert written["versions"]["torch"]
    rows = [row for row in read_metrics(folder(recipe)) if row["stage"] == "evaluation"]
    assert [(row["name"], row["iteration"]) for row in rows] == [
        ("start", 0),
        ("iteration_2", 2),
        ("after_rl", 4),
    ]
    assert re.search(r"after_rl +66.0% \(59.2% to 72.2%\) +66.0% ", shown(plain))
    assert folder(recipe).picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 3), (132, 200), (0, 1)])
def test_wilson_bounds_solve_the_score_equation(correct: int, total: int) -> None:
    """The bounds are the p with (share - p)^2 = z^2 p (1 - p) / n; here by numpy's root finder."""
    share, z2_n = correct / total, statistics.NormalDist().inv_cdf(0.975) ** 2 / total
    roots = np.roots([1 + z2_n, -(2 * share + z2_n), share**2])
    assert wilson_interval(correct, total) == pytest.approx(sorted(roots.real), abs=1e-12)


def test_model_card_is_valid_for_the_hub(recipe: Recipe, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    evaluations = {"start": result(2, 200), "after_rl": result(132, 200)}
    summary = write_summary(RunFolder(tmp_path), recipe, evaluations, {"rl": 61.0}, {})
    text = model_card(recipe, summary)
    data = hub.ModelCard(text).data
    assert data.base_model == "moonshotai/Kimi-VL-A3B-Instruct"
    assert data.datasets == ["hiyouga/geometry3k"]
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-text-to-text")
    assert "# first-run" in text
    assert re.search(r"At the start +1.0% \(0.3% to 3.6%\)", text)
    assert re.search(r"After RL +66.0% ", text)
    assert "After SFT" not in text
    assert "tau: 0.1" in text


def test_model_card_names_no_local_paths_as_hub_ids(recipe: Recipe, tmp_path: Path) -> None:
    local = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": "tiny"})})
    text = model_card(local, write_summary(RunFolder(tmp_path), local, {}, {}, {}))
    assert "base_model" not in text
    assert "Not evaluated." in text
