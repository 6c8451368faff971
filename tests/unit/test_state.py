"""What a run leaves behind to go on from, and who may go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from graded import result

from thinking_rl import train
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.recipe.load import load_recipe, save_resolved
from thinking_rl.recipe.schema import Recipe
from thinking_rl.recipe.section import Section
from thinking_rl.report.metrics import read_metrics
from thinking_rl.report.progress import Reporter
from thinking_rl.run.state import (
    MAY_CHANGE,
    Position,
    RunState,
    check_same_recipe,
    find_position,
    write_position,
)

QUICKSTART = str(Path(__file__).parents[2] / "recipes" / "quickstart.yaml")


def save(run_dir: Path, name: str, iteration: int, whole: bool = True) -> Position:
    folder = run_dir / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    state = {"reporter": {"seconds": {"sft": 2.5}}, "sampler": {"stream": {"given": {"a": 3}}}}
    position = Position(folder, iteration, state=state)
    if whole:
        write_position(position)
    return position


def test_the_furthest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert find_position(RunFolder(tmp_path)) is None
    warmup = save(tmp_path, "sft", 0)
    assert find_position(RunFolder(tmp_path)) == warmup
    save(tmp_path, "iteration_00002", 2)
    fourth = save(tmp_path, "iteration_00004", 4)
    save(tmp_path, "iteration_00006", 6, whole=False)
    assert find_position(RunFolder(tmp_path)) == fourth
    assert (str(warmup), str(fourth)) == ("after the warm-up", "after RL iteration 4")


def test_inside_the_warm_up_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (10, 20, 30):
        folder.sft_checkpoint(step).mkdir(parents=True)
    RunState().save(folder.sft_checkpoint(10), 0, step=10)
    RunState().save(folder.sft_checkpoint(20), 0, step=20)
    found = find_position(folder)
    assert found
    assert (found.folder, found.step) == (folder.sft_checkpoint(20), 20)
    assert str(found) == "after step 20 of the warm-up"
    (folder.sft_checkpoint(20) / "state.json").write_text("{")
    found = find_position(folder)
    assert found
    assert found.step == 10
    assert "sft_step_000020/state.json" in found.skipped[0]
    warmup = save(tmp_path, "sft", 0)
    assert find_position(folder) == warmup


@pytest.mark.parametrize("text", ["{", "[]", '{"iteration": 1, "color": 2}'])
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    saved = save(tmp_path, "iteration_00001", 1)
    (saved.folder / "state.json").write_text(text)
    with pytest.raises(ValueError, match=r"iteration_00001/state.json"):
        find_position(RunFolder(tmp_path))


@pytest.mark.parametrize("text", ["", "\0\0\0", '{"iteration": 3, "state"'])
def test_a_damaged_checkpoint_is_skipped_and_named(tmp_path: Path, text: str) -> None:
    second = save(tmp_path, "iteration_00002", 2)
    third = save(tmp_path, "iteration_00003", 3)
    (third.folder / "state.json").write_text(text)
    found = find_position(RunFolder(tmp_path))
    assert found
    assert (found.folder, found.iteration) == (second.folder, 2)
    (skipped,) = found.skipped
    assert "iteration_00003/state.json" in skipped


@pytest.mark.parametrize("kept", [None, 0, 3])
def test_a_checkpoint_whose_weights_are_cut_is_skipped_and_named(
    tmp_path: Path, kept: int | None
) -> None:
    second = save(tmp_path, "iteration_00002", 2)
    weights = tmp_path / "checkpoints" / "iteration_00003" / "__0_0.distcp"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    save(tmp_path, "iteration_00003", 3)
    found = find_position(RunFolder(tmp_path))
    assert found
    assert found.iteration == 3
    weights.unlink()
    if kept is not None:
        weights.write_bytes(b"weights"[:kept])
    found = find_position(RunFolder(tmp_path))
    assert found
    assert found.folder == second.folder
    (skipped,) = found.skipped
    assert f"__0_0.distcp has {kept or 0} bytes and was written with 7" in skipped


def test_a_checkpoint_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    checkpoint = folder.rl_checkpoint(3)

    def write_half() -> None:
        with folder.whole(checkpoint) as part:
            (part / "weights").write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert folder.rl_checkpoints() == []
    with folder.whole(checkpoint) as part:
        (part / "weights").write_text("all")
    assert folder.rl_checkpoints() == [checkpoint]
    assert [file.name for file in checkpoint.iterdir()] == ["weights"]
    assert sorted((tmp_path / "checkpoints").iterdir()) == [checkpoint]


@pytest.mark.parametrize("kept", [None, 0, 10])
def test_metrics_that_are_gone_are_noticed(tmp_path: Path, kept: int | None) -> None:
    recipe, folder = load_recipe(QUICKSTART), RunFolder(tmp_path)
    first = Reporter(folder, recipe)
    first.evaluation("start", result(3, 8))
    left = first.state_dict()
    first.close()
    text = folder.metrics.read_bytes()
    folder.metrics.unlink()
    if kept is not None:
        folder.metrics.write_bytes(text[:kept])
    second = Reporter(folder, recipe)
    with pytest.raises(ValueError, match=r"metrics.jsonl: has \d+ bytes and .* rows are gone; put"):
        second.load_state_dict(left)
    second.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], ""),
        (["rl.iterations=99", "learner.workers=2", "rollout.max_sequences=8", "resume=true"], ""),
        (["rl.tau=0.25"], "rl.tau was 0.5 and is 0.25; set it back"),
        (["seed=3", "data.train.0.levels=[1]"], r"levels was \[4\] and is \[1\]; seed was 0"),
        (["rl.length.reward_weight=0.1"], "rl.length.reward_weight was 0.0 and is 0.1"),
        (["rollout.temperature=0.7"], "rollout.temperature was 1.0 and is 0.7"),
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


def keys(section: type[Section], prefix: str = "") -> set[str]:
    """Every dotted key of the recipe whose value is no section; lists count as values."""
    found = set()
    for name, field in section.model_fields.items():
        choices = get_args(field.annotation) or (field.annotation,)
        inner = [one for one in choices if isinstance(one, type) and issubclass(one, Section)]
        is_list = get_origin(field.annotation) is list
        inside = [] if is_list else [keys(one, f"{prefix}{name}.") for one in inner]
        found |= set().union(*inside) or {prefix + name}
    return found


def test_what_may_change_are_keys_of_the_recipe() -> None:
    known = keys(Recipe)
    assert {"seed", "rl.length.reward_weight", "sft.optimizer.betas", "data.train"} <= known
    assert known >= MAY_CHANGE
    decisive = {"temperature", "top_p", "max_response_tokens", "max_model_tokens"}
    decisive = {f"rollout.{name}" for name in decisive}
    assert known >= decisive
    assert not decisive & MAY_CHANGE


class Counter:
    """Something with a state; refuses one that is not its own."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if set(state) != {"count"}:
            raise ValueError("not mine")
        self.count = state["count"]


def test_whoever_registers_is_saved_and_restored(tmp_path: Path) -> None:
    folder, state = RunFolder(tmp_path), RunState()
    one, two = Counter(), Counter()
    state.register("one", one)
    state.register("two", two)
    one.count, two.count = 3, 4
    folder.rl_checkpoint(7).mkdir(parents=True)
    assert find_position(folder) is None
    state.save(folder.rl_checkpoint(7), 7)
    one.count = 99

    position = find_position(folder)
    assert position == Position(
        folder.rl_checkpoint(7), 7, state={"one": {"count": 3}, "two": {"count": 4}}
    )
    again = RunState(position)
    restored, new = Counter(), Counter()
    again.register("two", restored)
    assert restored.count == 4
    again.register("new", new)  # what the run had not saved starts
    assert new.count == 0
    with pytest.raises(ValueError, match="not mine"):
        RunState(Position(tmp_path, 7, state={"one": {"length": 3}})).register("one", Counter())


def test_who_may_use_a_run_folder(tmp_path: Path) -> None:
    def asked(*overrides: str) -> Position | None:
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
    recipe, folder = load_recipe(QUICKSTART), RunFolder(tmp_path)
    first = Reporter(folder, recipe)
    first.evaluation("start", result(3, 8))
    with first.stage("rl", 4):
        first.step(0, {"reward": 0.5})
    left, rows = first.state_dict(), read_metrics(folder)
    first.evaluation("iteration_1", result(4, 8))
    first.close()
    second = Reporter(folder, recipe)
    assert set(second.evaluations) == {"start", "iteration_1"}
    second.load_state_dict(left | {"seconds": {"rl": 100 + left["seconds"]["rl"]}})
    assert read_metrics(folder) == rows
    assert second.evaluations == {"start": first.evaluations["start"]}
    with second.stage("rl", 4):
        pass
    assert second.seconds()["rl"] >= 100 + left["seconds"]["rl"]
    second.evaluation("iteration_1", result(5, 8))
    second.close()
    right = [
        row.get("result", {}).get("greedy", {}).get("accuracy") for row in read_metrics(folder)
    ]
    assert right == [3 / 8, None, 5 / 8]


def test_time_between_steps_belongs_to_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("thinking_rl.report.progress.time.monotonic", lambda: now)
    reporter = Reporter(RunFolder(tmp_path), load_recipe(QUICKSTART))
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
