"""What a run keeps for who looks at it: pictures, events, the learner's log-probs of proofs."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import made_run
import pytest

from thinking_rl.files.run_folder import RunFolder
from thinking_rl.model.image_store import hash_of
from thinking_rl.report.events import EventLog, born, this_process
from thinking_rl.report.pictures import PictureFolder, picture_file
from thinking_rl.report.responses import ResponseLog


def folder_with(tmp_path: Path, pictured: bytes, limit_gib: float = 1.0) -> ResponseLog:
    store = {hash_of(pictured): pictured}
    return ResponseLog(RunFolder(tmp_path), limit_gib, store.__getitem__)


def group_with_picture() -> made_run.Group:
    return made_run.group(made_run.problem(0), 4, 0.5, random.Random(0))


def test_a_picture_is_kept_once_as_it_came(tmp_path: Path) -> None:
    data, folder = made_run.picture(0), RunFolder(tmp_path)
    log = folder_with(tmp_path, data)
    log.write("rl", 0, [group_with_picture()] * 2)
    log.close()
    assert [file.name for file in folder.images.iterdir()] == [f"{hash_of(data)}.png"]
    file = picture_file(folder, hash_of(data))
    assert file is not None
    assert file.read_bytes() == data


def test_pictures_count_towards_the_limit(tmp_path: Path) -> None:
    data = made_run.picture(0) + b"\0" * 2**20
    log = folder_with(tmp_path, made_run.picture(0), limit_gib=2**-10)
    log._picture = lambda _: data  # a megabyte of it: the picture alone is over the limit
    log.write("rl", 0, [group_with_picture()])
    assert log.left_out == 4
    assert not RunFolder(tmp_path).images.exists()


def test_a_file_that_changed_is_not_kept_under_the_old_hash(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    pictures = PictureFolder(folder)
    pictures.keep("0" * 64, made_run.picture(1))
    assert not folder.images.exists()


@pytest.mark.parametrize("key", ["../recipe", "0" * 63, "0" * 64, "0" * 63 + "/", "A" * 64])
def test_only_pictures_are_found_by_a_hash(tmp_path: Path, key: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "recipe.png").write_bytes(b"secret")
    assert picture_file(RunFolder(tmp_path), key) is None


def test_what_was_kept_before_a_restart_is_known(tmp_path: Path) -> None:
    data = made_run.picture(3)
    PictureFolder(RunFolder(tmp_path)).keep(hash_of(data), data)
    (tmp_path / "images" / f"{'1' * 64}.part").write_bytes(b"cut short")
    again = PictureFolder(RunFolder(tmp_path))
    assert hash_of(data) in again
    assert "1" * 64 not in again


def test_what_the_learner_says_stands_beside_the_engines_log_probs(tmp_path: Path) -> None:
    log, group = folder_with(tmp_path, made_run.picture(0)), group_with_picture()
    learned = [[value - 0.25 for value in t.logprobs] for t in group.trajectories]
    entropies = [[0.5 + i for i, _ in enumerate(values)] for values in learned]
    log.write("proof", 3, [group], {"learner_logprobs": learned, "entropies": entropies})
    log.close()
    first, second, *_ = made_run.rows(RunFolder(tmp_path))
    assert (first["entropies"], second["entropies"]) == (entropies[0], entropies[1])
    engine = [value for segment in first["segments"] for value in segment["logprobs"]]
    differences = [a - b for a, b in zip(engine, first["learner_logprobs"], strict=True)]
    assert differences == pytest.approx([0.25] * len(engine), abs=2e-5)


def test_events_are_rows_and_name_a_living_process(tmp_path: Path) -> None:
    log = EventLog(RunFolder(tmp_path))
    log.write("started", "it starts", **this_process())
    log.write("skipped", "a step", loss=float("nan"))
    first, second = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (first["pid"], first["born"]) == (os.getpid(), born(os.getpid()))
    assert (second["kind"], second["text"], second["loss"]) == ("skipped", "a step", None)
    assert born(2**22 + 1) is None
