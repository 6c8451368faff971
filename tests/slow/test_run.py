"""Whole short runs through the command line: what they leave, and how they end when they fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from short_run import ROOT, ShortRun

from thinking_rl.data import example_stream
from thinking_rl.model.image_store import hash_of
from thinking_rl.model.images import read_image
from thinking_rl.recipe.load import load_recipe
from thinking_rl.report.metrics import read_metrics
from thinking_rl.run.state import find_position

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
    "seconds/record",
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
    assert {"seed", "git_commit", "versions", "recipe", "counts"} <= set(summary)
    assert not (run_dir / "error.log").exists()
    assert finished_run.left_over() == []


def test_a_run_measures_every_step(finished_run: ShortRun) -> None:
    rows = read_metrics(finished_run.left)
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
        phases = [value for name, value in row.items() if name.startswith("seconds/")]
        assert min(phases) > 0
        assert sum(phases) <= 1.01 * row["seconds"]  # one after the other
        assert row["tokens_per_s"] == pytest.approx(row["tokens"] / row["seconds"])
    assert sum(row["reward"] for row in rl) > 0
    assert sum(row["groups_with_signal"] for row in rl) > 0


def responses(run: ShortRun, proofs: bool = False) -> list[dict[str, Any]]:
    """The rows of a run's responses.jsonl: of RL and of evaluations, or of the proofs."""
    rows = [json.loads(line) for line in run.left.responses.read_text("utf-8").splitlines()]
    return [row for row in rows if (row["stage"] == "proof") == proofs]


def test_a_run_keeps_its_proofs(finished_run: ShortRun) -> None:
    """One before the first iteration, of the warm-up's version, and one of every publication."""
    rows = responses(finished_run, proofs=True)
    assert {row["at"] for row in rows} == {1, 2, 3}
    assert len({(row["at"], row["id"], row["sample"]) for row in rows}) == len(rows)
    for row in rows:
        assert {segment["policy_version"] for segment in row["segments"]} == {row["at"]}


def test_a_run_keeps_every_response_once(finished_run: ShortRun) -> None:
    found: dict[tuple[str, str | int], list[dict[str, Any]]] = defaultdict(list)
    for row in responses(finished_run):
        found[row["stage"], row["at"]].append(row)
    names = ("start", "after_sft", "after_rl")
    evaluations = [("evaluation", f"{name}{way}") for name in names for way in ("/greedy", "")]
    assert set(found) == {*evaluations, ("rl", 0), ("rl", 1)}
    for (stage, at), rows in found.items():
        greedy = str(at).endswith("/greedy")
        problems, samples = (4, 4) if stage == "rl" else (6, 1 if greedy else 8)
        assert len({row["id"] for row in rows}) == problems
        wanted = sorted((row["id"], sample) for row in rows[::samples] for sample in range(samples))
        assert sorted((row["id"], row["sample"]) for row in rows) == wanted
    asked = [{row["question"] for row in found[one]} for one in evaluations]
    assert all(one == asked[0] for one in asked)
    versions = {
        at: {segment["policy_version"] for row in rows for segment in row["segments"]}
        for (_, at), rows in found.items()
    }
    of_sampled = {"start": {0}, "after_sft": {1}, "after_rl": {3}}
    of_greedy = {f"{name}/greedy": version for name, version in of_sampled.items()}
    assert versions == {**of_sampled, **of_greedy, 0: {1}, 1: {2}}


def test_a_response_is_kept_as_it_was_measured(finished_run: ShortRun) -> None:
    rows = responses(finished_run)
    for row in rows:
        tokens = [token for segment in row["segments"] for token in segment["token_ids"]]
        logprobs = [value for segment in row["segments"] for value in segment["logprobs"]]
        assert len(tokens) == len(logprobs) == row["length"] > 0
        assert max(logprobs) <= 0
    measured = {}
    for row in read_metrics(finished_run.left):
        if row["stage"] == "rl":
            measured[row["iteration"]] = row
        elif row["stage"] == "evaluation":
            measured[row["name"]] = row["result"]["sampled"]
            measured[f"{row['name']}/greedy"] = row["result"]["greedy"]
    for at, metrics in measured.items():
        kept = [row for row in rows if row["at"] == at]
        values = [row["value"] for row in kept]
        assert sum(values) / len(values) == pytest.approx(metrics["reward"])
        right = sum(row["correct"] for row in kept)
        assert right / len(kept) == pytest.approx(metrics["accuracy"])
        assert sum(row["length"] for row in kept) / len(kept) == pytest.approx(metrics["length"])
        for row in kept:
            group = [other["value"] for other in kept if other["id"] == row["id"]]
            expected = row["value"] - sum(group) / len(group) if row["stage"] == "rl" else None
            assert row["advantage"] == pytest.approx(expected, abs=1e-6)


def test_kept_responses_are_graded_again_as_they_were(finished_run: ShortRun) -> None:
    grader = f"{finished_run.folder}/own_rewards.py:vowels"
    done = subprocess.run(
        [sys.executable, "-m", "rewards.grade", "--grader", grader],
        cwd=ROOT,
        input="\n".join(map(json.dumps, responses(finished_run))),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    again, before = [json.loads(line) for line in done.stdout.splitlines()], responses(finished_run)
    names = ("id", "value", "correct", "outcome")
    assert [[row[name] for name in names] for row in again] == [
        [row[name] for name in names] for row in before
    ]
    assert len({row["value"] for row in before}) > 1


def test_every_picture_is_decoded_once(finished_run: ShortRun) -> None:
    """By the driver those that were asked about, by the warm-up's rank those it learned from."""
    recipe = load_recipe(finished_run.left.recipe)
    assert recipe.sft
    examples = example_stream(recipe.sft.data, recipe.seed)
    drawn = examples.draw(recipe.sft.steps * recipe.sft.batch_size)
    learned = {hash_of(read_image(one)) for each in drawn for one in each.problem.images}
    asked = {key for row in responses(finished_run) for key in row["image_hashes"]}
    assert learned
    assert asked
    counts = json.loads(finished_run.left.summary.read_text())["counts"]
    assert counts == {
        "images_decoded": len(learned) + len(asked),
        "images_distinct": len(learned) + len(asked),
        "responses_left_out": 0,
    }


def test_an_engine_with_other_weights_ends_the_run(tmp_path: Path) -> None:
    """Every engine is proved after every publication, the warm-up's too: here the second of two
    engines is given a changed tensor, and one response is enough to tell."""
    run = ShortRun(tmp_path, (str(ROOT / "tests" / "support" / "altered_publication.py"),))
    overrides = ["rollout.engines=2", "learner.workers=2", "rollout.agreement_responses=1"]
    code, out, err = run.run(*overrides)
    assert code == 1, out + err
    assert err.splitlines()[-1].startswith(
        "error: AgreementError: after publication 1: engine and learner disagree"
    )
    rows = read_metrics(run.left)
    assert [row["name"] for row in rows if row["stage"] == "evaluation"] == ["start"]
    assert [row["step"] for row in rows if row["stage"] == "sft"] == [0, 1]
    assert not [row for row in rows if row["stage"] == "rl"]
    assert not run.left.summary.exists()
    assert run.left_over() == []


def test_two_engines_and_two_learner_workers(tmp_path: Path) -> None:
    run = ShortRun(tmp_path)
    code, _, err = run.run("rollout.engines=2", "learner.workers=2", "rl.iterations=1")
    assert code == 0, err
    steps = [row for row in read_metrics(run.left) if row["stage"] == "rl"]
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
    assert read_metrics(run.left)
    assert not (run.run_dir / "summary.json").exists()
    if end == "dead worker":
        goes_on(run)


def goes_on(run: ShortRun) -> None:
    """Resume a run of 1000 iterations, with as few as are done and two more."""
    before = find_position(run.left)
    assert before
    kept = [row for row in read_metrics(run.left) if row["stage"] == "rl"][: before.iteration]
    overrides = ["stages=[rl]", "data.eval_problems=2", f"rl.iterations={before.iteration + 2}"]
    code, out, err = run.run(*overrides, "resume=true")
    assert code == 0, err
    assert f"going on after RL iteration {before.iteration}\n" in out
    rows = read_metrics(run.left)
    steps = [row for row in rows if row["stage"] == "rl"]
    assert [row["iteration"] for row in steps] == list(range(before.iteration + 2))
    assert steps[: before.iteration] == kept
    assert [row["name"] for row in rows if row["stage"] == "evaluation"] == ["start", "after_rl"]
    after, recipe = find_position(run.left), load_recipe(run.run_dir / "recipe.yaml")
    assert after
    assert recipe.rl
    given = sum(after.state["sampler"]["stream"]["given"].values())
    assert given == after.iteration * recipe.rl.problems_per_iteration
    kept = [(row["at"], row["id"], row["sample"]) for row in responses(run)]
    assert len(set(kept)) == len(kept) == after.iteration * 16 + 2 * 2 * 9  # and both evaluations
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
    rows = [row for row in read_metrics(run.left) if row["stage"] == "rl"]
    assert [row["iteration"] for row in rows] == [0, 1]
    for row in rows:
        assert (row["reward"], row["groups_with_signal"]) == (0.5, 0)
        assert row["accuracy"] is None  # the reward does not judge answers
        assert not {"loss", "agreement", "seconds/publish"} & set(row)
    assert code == 1, err
    assert "could not write the checkpoint" in err.splitlines()[-1]
    assert run.left_over() == []
