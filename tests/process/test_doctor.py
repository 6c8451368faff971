"""Planted faults, each found and named by the shallowest check that can, with its remedy."""

from __future__ import annotations

import collections
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rewards.registry import BUILT_IN
from thinking_rl import doctor
from thinking_rl.checkup import machine
from thinking_rl.checkup.check import FaultError, Verdict, run_check
from thinking_rl.checkup.deep import (
    check_agreement,
    check_loss,
    check_picture_tokens,
    check_publications,
    shortened,
    texts,
)
from thinking_rl.checkup.recipe import check_attack
from thinking_rl.data import fixed_problems
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.model.images import CutImage
from thinking_rl.model.tiny import write_tiny
from thinking_rl.recipe.load import load_recipe
from thinking_rl.recipe.schema import Source

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tiny(folder)
    return folder


def recipe_verdicts(folder: Path, *overrides: str, recipe: Path = QUICKSTART) -> list[Verdict]:
    given = [f"run_dir={folder / 'run'}", *overrides]
    return list(doctor.examine(str(recipe), given, deep=False))


def failed(verdicts: list[Verdict]) -> list[Verdict]:
    return [one for one in verdicts if one.verdict == "failed"]


def wrong_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = machine.version_of
    monkeypatch.setattr(machine, "version_of", lambda n: "1.0" if n == "torch" else real(n))


def missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = machine.version_of
    monkeypatch.setattr(machine, "version_of", lambda n: None if n == "ray" else real(n))


def old_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "LEAST_PYTHON", (4, 0))


def little_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(
        "shutil.disk_usage", lambda p: Usage(2**26, 0, 2**26) if p == "/dev/shm" else real(p)
    )


def full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(
        "shutil.disk_usage", lambda p: real(p) if p == "/dev/shm" else Usage(2**40, 2**40, 1000)
    )


def torch_without_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "find_gpus", lambda: [80.0, 80.0])
    done = subprocess.CompletedProcess([], 0, "12.8 1\n", "")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)


def name_without_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "no-such-machine.invalid")


@pytest.mark.parametrize(
    ("plant", "name", "measured", "remedy"),
    [
        (wrong_version, "packages", "torch 1.0, expected 2", "make setup"),
        (missing_package, "packages", "ray is missing", "make setup"),
        (old_python, "python", "Python 3", "install Python"),
        (little_shared_memory, "shared memory", "0.06 GiB free in /dev/shm", "--shm-size"),
        (full_disk, "disk", "0.0 GiB free", "another run_dir"),
        (torch_without_the_gpu, "gpus", "driver shows 2 GPUs, torch (CUDA 12.8) sees 1", "torch"),
        (name_without_address, "ports", "no-such-machine.invalid", "/etc/hosts"),
    ],
)
def test_faults_of_the_machine(
    plant: Callable[[pytest.MonkeyPatch, Path], None],
    name: str,
    measured: str,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch, tmp_path)
    found = run_check(name, machine.machine_checks(tmp_path, None)[name])
    assert found.verdict == "failed"
    assert measured in found.measured
    assert remedy in found.remedy


def test_an_unreachable_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NODE_TIMEOUT_S", 15)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = run_check("cluster", machine.machine_checks(tmp_path, address)["cluster"])
    assert (found.verdict, address in found.measured) == ("failed", True)
    assert "ray start" in found.remedy


def test_nodes_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"a": {"torch": "2.13.0", "ray": "2"}, "b": {"torch": "2.12.0", "ray": "2"}}
    done = subprocess.CompletedProcess([], 0, f"noise\n{json.dumps(nodes)}\n", "")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    with pytest.raises(FaultError, match=r"b differs.*2\.12\.0"):
        machine.check_cluster("head:6379")


HANGS = "import time\n\ndef hangs(problem, response):\n    time.sleep(60)\n"
RAISES = "def raises(problem, response):\n    return 1 / 0\n"


@pytest.mark.parametrize(
    ("override", "measured"),
    [
        ("rl.tua=0.5", "nearest valid one is 'tau'"),
        ("rewards.parts.0.grader=nowhere.py:reward", "nowhere.py"),
        ("rewards.parts.0.grader=math_anser", "math_answer"),
        ("data.train.0.format=plain", "path"),
        ("model.path=/nowhere/checkpoint", "no folder"),
        ("trackers=[wandb]", "wandb is not installed"),
        ("rollout.max_response_tokens=256", "must be below"),
    ],
)
def test_faults_of_the_recipe(
    override: str, measured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    found = failed(recipe_verdicts(tmp_path, override))
    assert any(measured in one.measured for one in found), found
    assert all(one.remedy for one in found)


@pytest.mark.parametrize(
    ("code", "name", "kind"), [(HANGS, "hangs", "timeout"), (RAISES, "raises", "division by zero")]
)
def test_graders_that_hang_or_raise(tmp_path: Path, code: str, name: str, kind: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(code)
    overrides = (f"rewards.parts.0.grader={file}:{name}", "rewards.timeout_s=0.3")
    [found] = failed(recipe_verdicts(tmp_path, *overrides))
    assert found.name == f"grader {file}:{name}"
    assert kind in found.measured
    assert "rewards.grade" in found.remedy


def damaged(folder: Path, checkpoint: Path, harm: Callable[[Path], None]) -> list[Verdict]:
    copy = folder / "copy"
    shutil.copytree(checkpoint, copy)
    harm(copy)
    return failed(recipe_verdicts(folder, f"model.path={copy}"))


def other_rule(folder: Path) -> None:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "patch_size": 16}))


@pytest.mark.parametrize(
    ("harm", "measured"),
    [
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), ".safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "tiktoken.model").unlink(), "tiktoken.model"),
        (other_rule, "patch_size 16"),
    ],
    ids=["shard missing", "configuration damaged", "vocabulary missing", "other image rule"],
)
def test_faults_of_a_checkpoint(
    tmp_path: Path, checkpoint: Path, harm: Callable[[Path], None], measured: str
) -> None:
    found = damaged(tmp_path, checkpoint, harm)
    assert any(measured in one.measured for one in found), found
    assert all(one.remedy for one in found)


def test_weights_that_were_corrupted_before_the_proof(tmp_path: Path) -> None:
    rows = [
        {
            "stage": "proof",
            "image_hashes": ["h"] if pictured else [],
            "segments": [{"logprobs": [-1.0, -2.0]}],
            "learner_logprobs": [-1.0, -2.0 - (0.5 if pictured else 0.0)],
        }
        for pictured in (False, True)
    ]
    folder = RunFolder(tmp_path)
    folder.responses.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "2 tokens" in check_agreement(folder, 1e-3, pictured=False)
    with pytest.raises(FaultError, match=r"mean 2\.5e-01, largest 5\.0e-01"):
        check_agreement(folder, 1e-3, pictured=True)


def test_weights_that_a_second_publication_spoils(tmp_path: Path) -> None:
    rows = [
        {
            "stage": "proof",
            "at": version,
            "image_hashes": [],
            "segments": [{"logprobs": [-1.0]}],
            "learner_logprobs": [-1.0 - off],
        }
        for version, off in ((1, 0.0), (2, 0.5))
    ]
    file = RunFolder(tmp_path).responses
    file.write_text(json.dumps(rows[0] | {"at": 2}) + "\n" + json.dumps(rows[0]))
    assert check_publications(RunFolder(tmp_path), 1e-3).endswith("version 2 0.0e+00")
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(FaultError, match=r"version 2 5\.0e-01"):
        check_publications(RunFolder(tmp_path), 1e-3)


def test_pictures_that_have_other_tokens_somewhere(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(QUICKSTART)
    RunFolder(tmp_path).export.symlink_to(checkpoint)
    assert "alike at every hop" in check_picture_tokens(recipe, RunFolder(tmp_path))
    monkeypatch.setattr(CutImage, "num_tokens", 5)
    with pytest.raises(FaultError, match=r"\d tokens by the pictures' sizes, 5 in the image store"):
        check_picture_tokens(recipe, RunFolder(tmp_path))


def test_a_grader_that_pays_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "290 templates" in check_attack("math_answer")
    monkeypatch.setitem(BUILT_IN, "math_answer", "rewards.registry:generous")
    monkeypatch.setattr("rewards.registry.generous", lambda *_: 1.0, raising=False)
    with pytest.raises(FaultError, match="paid that know no answer"):
        check_attack("math_answer")


def test_both_kinds_are_proved(tmp_path: Path) -> None:
    drawn = Source(format="procedural")
    problems = fixed_problems([drawn, *texts([drawn], tmp_path)], 8, seed=0)
    assert [bool(problem.images) for problem in problems].count(True) == 4
    assert texts([drawn, Source(format="plain", path="mine.jsonl")], tmp_path) == []


def test_a_loss_that_rises(tmp_path: Path) -> None:
    rows = [{"stage": "sft", "step": i, "loss": loss} for i, loss in enumerate((1.0, 3.0))]
    RunFolder(tmp_path).metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(FaultError, match=r"1\.000 to 3\.000"):
        check_loss(RunFolder(tmp_path))


def test_a_shortened_recipe_keeps_the_parts(tmp_path: Path) -> None:
    recipe = load_recipe(QUICKSTART)
    short = shortened(recipe, tmp_path)
    assert (short.model, short.rollout, short.rewards) == (
        recipe.model,
        recipe.rollout,
        recipe.rewards,
    )
    assert short.rl
    assert short.rl.iterations * short.rl.problems_per_iteration == 8


def test_all_is_well_with_the_quickstart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = doctor.main([str(QUICKSTART), f"run_dir={tmp_path}", "--json"])
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wrong = [one for one in verdicts if one["verdict"] == "failed"]
    assert (code, wrong) == (0, [])
    assert {"packages", "disk", "recipe", "grader math_answer"} <= {v["name"] for v in verdicts}


def test_a_fault_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([str(QUICKSTART), f"run_dir={tmp_path}", "rl.tau=-1"]) == 1
    out = capsys.readouterr().out
    assert "failed  recipe file" in out
    assert "->" in out
