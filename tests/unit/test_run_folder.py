"""A run's folder: its paths, and what is cleared of an earlier run."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinking_rl.files.run_folder import RunFolder


def paths(folder: RunFolder) -> dict[str, Path]:
    """Every path that the class gives, by name."""
    found = {
        name: getattr(folder, name)
        for name, value in vars(RunFolder).items()
        if isinstance(value, property)
    }
    del found["notes"]  # beside the folder: they outlive the run
    return found | {"sft": folder.stage_weights("sft"), "iteration": folder.rl_checkpoint(12)}


def test_every_path_is_under_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.at("runs/one")
    assert folder.path == tmp_path / "runs" / "one"
    assert not folder.path.exists()
    found = paths(folder)
    assert len(found) >= 13
    assert len(set(found.values())) == len(found)
    for name, path in found.items():
        assert path.is_absolute(), name
        assert path.is_relative_to(folder.path), name
        assert path != folder.path, name


def test_home_and_links_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    assert RunFolder.at("~/here/run").path == tmp_path / "there" / "run"


def fill(folder: RunFolder) -> None:
    """Leave what a run leaves, and what it does not."""
    for name, path in paths(folder).items():
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        else:
            (path / "inside").mkdir(parents=True)
            (path / "inside" / "file").write_text(name)
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / "plots").mkdir()
    (folder.path / "plots" / "a.png").write_text("mine")


def test_clearing_leaves_what_is_not_the_runs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    fill(folder)
    folder.clear()
    assert {path.name for path in folder.path.iterdir()} == {"notes.txt", "plots"}
    assert (folder.path / "plots" / "a.png").read_text() == "mine"
    folder.clear()  # a second time there is nothing left to do
    assert (folder.path / "notes.txt").read_text() == "mine"


def test_a_folder_that_no_run_has_made_is_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.clear()
    assert not folder.path.exists()
    fill(folder)
    folder.recipe.unlink()
    before = sorted(folder.path.rglob("*"))
    folder.clear()
    assert sorted(folder.path.rglob("*")) == before


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.rl_checkpoints() == []
    folder.drop_old_checkpoints()
    folder.stage_weights("sft").mkdir(parents=True)
    for iteration in (90, 110, 100, 9):
        folder.rl_checkpoint(iteration).mkdir()
        (folder.rl_checkpoint(iteration) / "state.json").write_text("{}")
    numbers = [int(path.name.rpartition("_")[2]) for path in folder.rl_checkpoints()]
    assert numbers == [9, 90, 100, 110]
    folder.drop_old_checkpoints()
    kept = sorted(path.name for path in folder.checkpoints.iterdir())
    assert kept == ["iteration_00100", "iteration_00110", "sft"]
    folder.drop_old_checkpoints()
    assert len(folder.rl_checkpoints()) == 2
