"""What a run leaves behind to go on from, and who may go on from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinking_rl import train
from thinking_rl.recipe.load import load_recipe, save_resolved
from thinking_rl.report.progress import Reporter
from thinking_rl.run.state import Saved, check_same_recipe, drop_old, find_saved, write_saved

QUICKSTART = str(Path(__file__).parents[2] / "recipes" / "quickstart.yaml")


def save(run_dir: Path, name: str, iteration: int, whole: bool = True) -> Saved:
    folder = run_dir / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    saved = Saved(folder, iteration, 7, {"sft": 2.5}, {"stream": {"given": {"a": 3}}})
    if whole:
        write_saved(saved)
    return saved


def test_the_furthest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert find_saved(tmp_path) is None
    warmup = save(tmp_path, "sft", 0)
    assert find_saved(tmp_path) == warmup
    save(tmp_path, "iteration_00002", 2)
    fourth = save(tmp_path, "iteration_00004", 4)
    save(tmp_path, "iteration_00006", 6, whole=False)
    assert find_saved(tmp_path) == fourth
    assert (str(warmup), str(fourth)) == ("after the warm-up", "after RL iteration 4")


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    for iteration in (90, 100, 110):
        save(tmp_path, f"iteration_{iteration:05d}", iteration)
    drop_old(tmp_path)
    kept = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert kept == ["iteration_00100", "iteration_00110"]


@pytest.mark.parametrize("text", ["{", "[]", '{"iteration": 1, "color": 2}'])
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    saved = save(tmp_path, "iteration_00001", 1)
    (saved.folder / "state.json").write_text(text)
    with pytest.raises(ValueError, match=r"iteration_00001/state.json"):
        find_saved(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], ""),
        (["rl.iterations=99", "learner.workers=2", "rollout.max_sequences=8", "resume=true"], ""),
        (["rl.tau=0.25"], "rl.tau was 0.5 and is 0.25; set it back"),
        (["seed=3", "data.train.0.levels=[1]"], r"levels was \[3\] and is \[1\]; seed was 0"),
        (["rl.length_reward.weight=0.1"], "rl.length_reward.weight was 0.0 and is 0.1"),
    ],
)
def test_only_the_same_recipe_goes_on(tmp_path: Path, overrides: list[str], message: str) -> None:
    save_resolved(load_recipe(QUICKSTART, [f"run_dir={tmp_path}"]), tmp_path / "recipe.yaml")
    recipe = load_recipe(QUICKSTART, [f"run_dir={tmp_path}", *overrides])
    if not message:
        check_same_recipe(recipe)
        return
    with pytest.raises(ValueError, match=f"^resume: .*{message}"):
        check_same_recipe(recipe)


def test_who_may_use_a_run_folder(tmp_path: Path) -> None:
    def asked(*overrides: str) -> Saved | None:
        return train.check_run_dir(load_recipe(QUICKSTART, [f"run_dir={tmp_path}", *overrides]))

    assert asked() is None
    assert asked("resume=true") is None  # nothing to go on from: it starts
    save_resolved(load_recipe(QUICKSTART, [f"run_dir={tmp_path}"]), tmp_path / "recipe.yaml")
    saved = save(tmp_path, "iteration_00004", 4)
    assert asked("resume=true") == saved
    assert asked("overwrite=true") is None
    unfinished = "holds an unfinished run, saved after RL iteration 4; give resume=true to go on"
    with pytest.raises(ValueError, match=unfinished):
        asked()
    with pytest.raises(ValueError, match="give one"):
        asked("resume=true", "overwrite=true")
    with pytest.raises(ValueError, match=r"resume: .*seed was 0 and is 1"):
        asked("resume=true", "seed=1")
    with pytest.raises(ValueError, match=r"model.path: .*checkpoints/sft lies in .* is cleared"):
        asked("overwrite=true", f"model.path={tmp_path}/checkpoints/sft")
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a finished run; give run_dir=FOLDER"):
        asked()


def test_a_reporter_goes_on(tmp_path: Path) -> None:
    recipe = load_recipe(QUICKSTART)
    first = Reporter(tmp_path, recipe)
    first.evaluation("start", 3, 8, {"length": 5.5})
    with first.stage("rl", 4):
        first.step(0, {"reward": 0.5})
    size, seconds = first.metrics_bytes, first.seconds()
    first.evaluation("iteration_1", 4, 8)
    first.close()
    with (tmp_path / "metrics.jsonl").open("r+b") as file:
        file.truncate(size)
    second = Reporter(tmp_path, recipe, seconds={"rl": 100 + seconds["rl"]})
    assert second.evaluations == {"start": first.evaluations["start"]}
    with second.stage("rl", 4):
        pass
    assert second.seconds()["rl"] >= 100 + seconds["rl"]
    second.close()


def test_time_between_steps_belongs_to_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("thinking_rl.report.progress.time.monotonic", lambda: now)
    reporter = Reporter(tmp_path, load_recipe(QUICKSTART))
    rows = []
    monkeypatch.setattr(reporter._metrics, "write", lambda *row: rows.append(row[-1]))
    with reporter.stage("rl", 2):
        for step in (0, 1):
            with reporter.timer("rollout"):
                now += 2
            reporter.step(step, {"tokens": 10})
            with reporter.between_steps(), reporter.timer("prove"):
                now += 50
    reporter.close()
    assert [row["seconds"] for row in rows] == [2, 2]
    assert [row["tokens_per_s"] for row in rows] == [5, 5]
    assert all("seconds/prove" not in row for row in rows)
    assert reporter.seconds() == {"rl": 104}
