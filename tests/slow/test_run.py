"""Whole short runs through the command line: what they leave, and how they end when they fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file
from short_run import ShortRun

from thinking_rl.recipe.load import load_recipe
from thinking_rl.report.metrics import read_metrics
from thinking_rl.run.state import find_saved

ROW_KEYS = {
    "reward",
    "accuracy",
    "length",
    "finished",
    "tokens",
    "not_graded",
    "groups",
    "groups_with_signal",
    "groups_all_right",
    "groups_all_wrong",
    "loss",
    "learning_rate",
    "grad_norm",
    "entropy",
    "kl",
    "agreement",
    "seconds",
    "tokens_per_s",
    "seconds/rollout",
    "seconds/grade",
    "seconds/learn",
    "seconds/publish",
    "seconds/prove",
}


def weights(folder: Path) -> dict:
    return {
        name: tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def test_a_run_leaves_all_it_should(finished_run: ShortRun) -> None:
    run_dir = finished_run.run_dir
    recipe = load_recipe(run_dir / "recipe.yaml")
    assert (recipe.rl and recipe.rl.iterations, recipe.run_dir) == (2, str(run_dir))
    names = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert {"sft", "rl", "iteration_00001", "iteration_00002"} <= names
    summary = json.loads((run_dir / "summary.json").read_text())
    assert set(summary["evaluations"]) == {"start", "after_sft", "after_rl"}
    assert set(summary["seconds"]) == {"sft", "rl"}
    for one in summary["evaluations"].values():
        assert (one["problems"], one["samples"]) == (6, 8)
        assert {"accuracy", "interval_95", "length"} <= set(one["greedy"])
        assert {"accuracy", "interval_95", "length", "pass_at_8"} <= set(one["sampled"])
        assert {"caps", "step_by_step"} <= set(one)
    assert (run_dir / "training.png").is_file()
    assert {"seed", "git_commit", "versions", "recipe"} <= set(summary)
    assert not (run_dir / "error.log").exists()
    assert finished_run.left_over() == []


def test_a_run_measures_every_step(finished_run: ShortRun) -> None:
    rows = read_metrics(finished_run.run_dir)
    sft = [row for row in rows if row["stage"] == "sft"]
    assert [row["step"] for row in sft] == [0, 1]
    assert all({"loss", "grad_norm", "learning_rate", "seconds"} <= set(row) for row in sft)
    rl = [row for row in rows if row["stage"] == "rl"]
    assert [row["iteration"] for row in rl] == [0, 1]
    for row in rl:
        assert set(row) >= ROW_KEYS, ROW_KEYS - set(row)
        assert "not_finite" not in row
        assert row["not_graded"] == 0
        assert row["groups"] == 4
        assert row["agreement"] < 5e-4
        assert row["grad_norm"] > 0
        assert 0 < row["length"] <= 16
        phases = sum(value for name, value in row.items() if name.startswith("seconds/"))
        assert 0.5 * row["seconds"] < phases <= 1.01 * row["seconds"]
        assert row["tokens_per_s"] == pytest.approx(row["tokens"] / row["seconds"])
    assert sum(row["reward"] for row in rl) > 0
    assert sum(row["groups_with_signal"] for row in rl) > 0


def test_two_engines_and_two_learner_workers(tmp_path: Path) -> None:
    run = ShortRun(tmp_path)
    code, _, err = run.run("rollout.engines=2", "learner.workers=2", "rl.iterations=1")
    assert code == 0, err
    steps = [row for row in read_metrics(run.run_dir) if row["stage"] == "rl"]
    assert [row["iteration"] for row in steps] == [0]
    assert steps[0]["agreement"] < 5e-4
    assert steps[0]["grad_norm"] > 0
    assert run.left_over() == []


def test_each_stage_moves_the_weights(finished_run: ShortRun) -> None:
    run_dir = finished_run.run_dir
    start, sft, rl = (
        weights(run_dir / name) for name in ("tiny", "checkpoints/sft", "checkpoints/rl")
    )
    assert set(start) == set(sft) == set(rl)
    for before, after in ((start, sft), (sft, rl)):
        moved = {name for name in after if not before[name].equal(after[name])}
        for part in ("vision_tower", "multi_modal_projector", "language_model"):
            assert any(name.startswith(part) for name in moved)


def test_a_finished_run_is_not_overwritten(finished_run: ShortRun) -> None:
    before = (finished_run.run_dir / "summary.json").read_bytes()
    code, _, err = finished_run.run(timeout_s=60)
    assert code == 2
    assert "holds a finished run; give run_dir=FOLDER" in err.splitlines()[-1]
    assert (finished_run.run_dir / "summary.json").read_bytes() == before


@pytest.mark.parametrize("end", ["interrupt", "dead worker"])
def test_a_run_that_is_ended_keeps_its_checkpoint(tmp_path: Path, end: str) -> None:
    run = ShortRun(tmp_path)
    process = run.start("stages=[rl]", "rl.iterations=1000", "data.eval_problems=2")
    saved = run.run_dir / "checkpoints"
    deadline = time.monotonic() + 500
    while not list(saved.glob("iteration_*/state.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in " ".join(one.cmdline()) for one in family)
    if end == "interrupt":
        process.send_signal(signal.SIGINT)
    else:
        (worker,) = [one for one in run.processes() if "EngineActor" in " ".join(one.cmdline())]
        worker.kill()
    _, err = process.communicate(timeout=60)
    last = err.splitlines()[-1]
    if end == "interrupt":
        assert process.returncode == 130
        assert re.fullmatch(r"stopped; resume=true goes on after RL iteration \d+", last)
    else:
        assert process.returncode == 1
        assert last.startswith("error: RolloutError: rollout worker 0 died and could not ")
    assert run.left_over() == []
    _, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []
    assert list(saved.glob("iteration_*/.metadata"))
    assert read_metrics(run.run_dir)
    assert not (run.run_dir / "summary.json").exists()
    if end == "dead worker":
        goes_on(run)


def goes_on(run: ShortRun) -> None:
    """Resume a run of 1000 iterations, with as few as are done and two more."""
    before = find_saved(run.run_dir)
    assert before
    kept = [row for row in read_metrics(run.run_dir) if row["stage"] == "rl"][: before.iteration]
    overrides = ["stages=[rl]", "data.eval_problems=2", f"rl.iterations={before.iteration + 2}"]
    code, out, err = run.run(*overrides, "resume=true")
    assert code == 0, err
    assert f"going on after RL iteration {before.iteration}\n" in out
    rows = read_metrics(run.run_dir)
    steps = [row for row in rows if row["stage"] == "rl"]
    assert [row["iteration"] for row in steps] == list(range(before.iteration + 2))
    assert steps[: before.iteration] == kept
    assert [row["name"] for row in rows if row["stage"] == "evaluation"] == ["start", "after_rl"]
    after, recipe = find_saved(run.run_dir), load_recipe(run.run_dir / "recipe.yaml")
    assert after
    assert recipe.rl
    given = sum(after.sampler["stream"]["given"].values())
    assert given == after.iteration * recipe.rl.problems_per_iteration
    assert (run.run_dir / "export" / "config.json").is_file()
    assert run.left_over() == []


def test_a_worker_that_cannot_start_says_why(tmp_path: Path, tiny_checkpoint: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_checkpoint.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    config = json.loads((broken / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 384  # the weights have another shape
    (broken / "config.json").write_text(json.dumps(config))
    run = ShortRun(tmp_path)
    code, _, err = run.run("stages=[rl]", f"model.path={broken}")
    assert code == 1
    assert err.splitlines()[-1].startswith("error: RolloutError: rollout worker 0 could not start")
    assert run.left_over() == []


def test_a_faulty_reward_stops_the_run_with_examples(tmp_path: Path) -> None:
    run = ShortRun(tmp_path)
    grader = f"rewards.parts.0.grader={tmp_path}/own_rewards.py:faulty"
    code, _, err = run.run("stages=[rl]", grader)
    last = err.splitlines()[-1]
    assert code == 1
    assert "6 of 6 responses could not be graded" in last
    assert last.count("- faulty: ") == 3
    assert "out of order" in last or "bad_type" in last
    assert run.left_over() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB: the first model fits, a checkpoint does not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, timeout=10).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=10)


def test_constant_rewards_train_nothing_and_a_full_disk_keeps_what_is_measured(
    tmp_path: Path, small_disk: Path
) -> None:
    run = ShortRun(small_disk)
    constant = f"rewards.parts.0.grader={small_disk}/own_rewards.py:constant"
    checkpoint = ["rl.checkpoint_every=2", "rl.iterations=3"]
    code, _, err = run.run("stages=[rl]", constant, *checkpoint)
    rows = [row for row in read_metrics(run.run_dir) if row["stage"] == "rl"]
    assert [row["iteration"] for row in rows] == [0, 1]
    for row in rows:
        assert (row["reward"], row["groups_with_signal"]) == (0.5, 0)
        assert row["accuracy"] is None  # the reward does not judge answers
        assert not {"loss", "agreement", "seconds/publish"} & set(row)
    assert code == 1, err
    assert "could not write the checkpoint" in err.splitlines()[-1]
    assert run.left_over() == []
