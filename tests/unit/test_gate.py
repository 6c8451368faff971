"""What a user gets wrong is refused, or warned of, before anything starts, with the reason."""

from __future__ import annotations

import io
import math
import socket
from pathlib import Path

import pytest
from PIL import Image

from eval.score import main as score_main
from rewards.grade import main as grade_main
from thinking_rl import train
from thinking_rl.cluster.placement import check_answers
from thinking_rl.data.problems import load_examples
from thinking_rl.files.hub import is_hub_id
from thinking_rl.files.lock import sole_writer
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.model.images import open_image
from thinking_rl.names import did_you_mean
from thinking_rl.plan import devices, inputs
from thinking_rl.plan import plan as planning
from thinking_rl.plan.devices import resolve_dtype
from thinking_rl.recipe.load import RecipeError, load_recipe
from thinking_rl.recipe.schema import Source
from thinking_rl.report import progress

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")


def dry_run(tmp_path: Path, *overrides: str) -> int:
    return train.main([QUICKSTART, f"run_dir={tmp_path / 'run'}", "--dry-run", *overrides])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["rl.optimizer.betas=[0.9, 1.0]"], ["rl.optimizer.betas.1", "less than 1"]),
        (["sft.optimizer.betas=[-0.1, 0.9]"], ["sft.optimizer.betas.0", "0"]),
        (["learner.threads=0"], ["learner.threads", "1"]),
        (["stages=[sft, sft]"], ["stages", "each stage once"]),
        (["stages=[rl, sft]"], ["stages", "in this order", "[sft, rl]"]),
        (
            ["model.freeze=[vision_tower, projector, decoder, router]"],
            ["model.freeze", "nothing would learn"],
        ),
        (
            ["rewards.parts=[{grader: math_answer}, {grader: math_answer, weight: 2}]"],
            ["rewards.parts", "'math_answer' is listed twice"],
        ),
        (["rewards.parts.0.weight=0"], ["rewards.parts.0.weight", "counts for nothing"]),
        (["data.train.0.split=test"], ["data.train.0", "procedural does not use split"]),
        (["data.train.0.limit=5"], ["procedural does not use limit"]),
        (
            ["data.train=[{format: gsm8k, path: a/b, levels: [2], direct: 0.5}]"],
            ["gsm8k does not use levels, direct"],
        ),
        (["rollout.engines=1000"], ["rollout.engines", "1000 processes"]),
        (["learner.workers=500", "sft.batch_size=500"], ["learner.workers", "500 processes"]),
        (["rl.iterations=10_000_000"], ["rl.iterations", "1000000"]),
        (["rl.optimizer.learning_rate=50"], ["rl.optimizer.learning_rate", "0.1"]),
        (["rollout.max_sequences=1_000_000_000"], ["rollout.max_sequences"]),
        (["rollout.max_response_tokens=99_000_000_000"], ["rollout.max_response_tokens"]),
        (["rewards.timeout_s=1e12"], ["rewards.timeout_s"]),
        (["rewards.memory_gib=1e9"], ["rewards.memory_gib"]),
        (["seed=99999999999999999999"], ["seed"]),
        (["data.eval_caps=[65]"], ["data.eval_caps", "max_response_tokens"]),
        (["learner.workers=3", "sft.batch_size=64"], ["must be a multiple of 3 (learner.workers)"]),
        (["model.path=no_such_model"], ["model.path", "expected a checkpoint folder"]),
        (["model.path=owner/model.safetensors"], ["model.path", "expected a checkpoint folder"]),
        (["model.path=a--b/c..d"], ["model.path", "expected a checkpoint folder"]),
        (["ray_address=nowhere"], ["ray_address", "HOST:PORT"]),
        (["seed=010"], ["seed", "010 is no plain whole number"]),
        (["seed=1:30"], ["1:30 is no plain whole number"]),
    ],
)
def test_a_dry_run_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture, overrides: list[str], words: list[str]
) -> None:
    assert dry_run(tmp_path, *overrides) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sft.steps=10"], "sft.optimizer.warmup_steps: 20 steps of a stage of 10"),
        (["rl.optimizer.warmup_steps=60"], "rl.optimizer.warmup_steps: 60 steps of a stage of 60"),
        (
            ["rl.length.reward_weight=0.2", "rl.length.start_iteration=15"],
            "length never enters the reward",
        ),
        (["rl.evaluate_every=99"], "rl.evaluate_every: 99 of 15 iterations"),
        (["rollout.engines=8"], "rollout.engines: 8 processes on a machine with 2 cores"),
    ],
)
def test_a_dry_run_warns(
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {0, 1})
    assert dry_run(tmp_path) == 0
    assert "warning" not in capsys.readouterr().out
    assert dry_run(tmp_path, *overrides) == 0
    shown = capsys.readouterr().out
    assert "warning: " in shown
    assert words in shown


# --- devices


def test_float32_on_a_gpu_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "find_gpus", lambda: [80.0])
    monkeypatch.setattr(planning, "find_gpus", lambda: [80.0])
    given = load_recipe(QUICKSTART, ["model.dtype=float32"])
    with pytest.raises(RecipeError, match=r"model\.dtype: float32 on a GPU: .* half precision"):
        planning.make_plan(given).raise_problems()
    planning.make_plan(load_recipe(QUICKSTART, ["model.dtype=bfloat16"])).raise_problems()


@pytest.mark.parametrize(
    ("gpus", "overrides", "dtype"),
    [
        ([], [], "float32"),
        ([80.0], [], "bfloat16"),
        ([math.nan], [], "bfloat16"),  # only its device file tells of it
        ([], ["ray_address=node:6379"], "bfloat16"),
        ([80.0], ["model.dtype=float32"], "float32"),
    ],
)
def test_the_dtype_is_that_of_the_devices(
    gpus: list[float], overrides: list[str], dtype: str
) -> None:
    assert resolve_dtype(load_recipe(QUICKSTART, overrides), gpus).model.dtype == dtype


def test_an_address_where_nothing_listens_is_named_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", "nowhere.invalid:1"):
        with pytest.raises(ValueError, match=r"ray_address: no Ray cluster answers at .*ray start"):
            check_answers(address)
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_answers(f"127.0.0.1:{server.getsockname()[1]}")


# --- one run a folder


def test_a_second_run_in_a_folder_is_refused_and_leaves_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_run", lambda *_: pytest.fail("it ran"))
    with sole_writer(tmp_path):
        kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
        for more in ([], ["overwrite=true"], ["resume=true"]):
            assert train.main([QUICKSTART, f"run_dir={tmp_path}", *more]) == 2
            last = capsys.readouterr().err.splitlines()[-1]
            assert "another process" in last
            assert "give another folder" in last
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with sole_writer(tmp_path):
            pass


# --- pictures


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_usual_pictures_are_read(form: str) -> None:
    assert open_image(encoded(form)).size == (28, 28)


@pytest.mark.parametrize("content", [encoded("EPS"), encoded("PDF"), encoded("ICNS")])
def test_a_picture_of_another_format_is_refused_whatever_it_is_called(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "harmless.png"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"harmless\.png: not a readable image; expected one of"):
        open_image(file)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            '{"question": "?", "answer": "1", "images": {"bytes": "/a.png"}}',
            "an image must be",
        ),
        ('{"question": "?", "answer": "1", "images": {"path": 5}}', "an image must be"),
        ('{"question": "see <image>", "answer": "1"}', "says <image> and there is no picture"),
        ('{"question": "see <image 1>", "answer": "1", "images": []}', "there is no picture"),
        ('{"question": "?", "answer": "1", "images": "LONG"}', "not a usable path"),
        ('{"question": "?", "answer": "1", "images": "loop.png"}', "not a usable path"),
    ],
)
def test_pictures_that_are_none(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    file = tmp_path / "rows.jsonl"
    file.write_text(row.replace("LONG", "x" * 5000))
    with pytest.raises(ValueError, match=rf"rows\.jsonl, row 1: .*{message}"):
        load_examples(Source(format="plain", path=str(file)))


# --- what was said unclearly


def test_recipes_that_are_none(tmp_path: Path) -> None:
    deep = tmp_path / "deep.yaml"
    deep.write_text("a: " + "[" * 5000)
    for path, message in (
        (deep, "nested too deeply"),
        (tmp_path, "no recipe file: Is a directory"),
        (tmp_path / ("x" * 300 + ".yaml"), "File name too long"),
        (tmp_path / "none.yaml", "no such recipe file"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(path)
    with pytest.raises(RecipeError, match="nested too deeply"):
        load_recipe(QUICKSTART, ["seed=" + "[" * 5000])


@pytest.mark.parametrize("name", ["loop.jsonl", "x" * 300 + ".jsonl"])
def test_data_paths_that_are_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    source = f"data.train=[{{format: plain, path: {tmp_path / name}}}]"
    with pytest.raises(RecipeError, match=r"data\.train\.0\.path: .*not a usable path"):
        load_recipe(QUICKSTART, [source])


def test_a_run_folder_with_too_long_a_name(capsys: pytest.CaptureFixture) -> None:
    assert train.main([QUICKSTART, "run_dir=" + "x" * 300, "--dry-run"]) == 2
    assert "File name too long" in capsys.readouterr().err


def test_without_arguments_the_usage_is_shown(capsys: pytest.CaptureFixture) -> None:
    assert train.main([]) == 2
    shown = capsys.readouterr().err
    assert "usage: python -m thinking_rl.train" in shown
    assert "Example: " in shown


@pytest.mark.parametrize("name", ["Math_Answer", "MATH_ANSWER", "math_answr"])
def test_hints_do_not_depend_on_capitals(name: str) -> None:
    assert did_you_mean(name, ["math_answer", "Choice"]) == " (did you mean 'math_answer'?)"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("moonshotai/Kimi-VL-A3B-Instruct", True),
        ("a/b", True),
        ("owner/name-", False),
        ("owner/na--me", False),
        ("owner/" + "x" * 96, False),
        ("owner/rows.jsonl", False),
        ("a/b/c", False),
    ],
)
def test_hub_ids_by_their_form(place: str, expected: bool) -> None:
    assert is_hub_id(place) is expected


@pytest.mark.parametrize("option", ["--timeout", "--memory", "--workers"])
def test_grading_refuses_negative_limits(option: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        grade_main([f"{option}=-1"])
    assert f"{option}: expected a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--timeout-s", "--workers"])
def test_scoring_refuses_negative_limits(option: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        score_main(["mathvision", "responses.jsonl", f"{option}=-1"])
    assert "above 0" in capsys.readouterr().err


def test_the_first_command_clears_no_earlier_run() -> None:
    assert "overwrite" not in (ROOT / "Makefile").read_text()


def test_time_left_does_not_count_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    reporter = progress.Reporter(RunFolder(tmp_path), load_recipe(QUICKSTART))
    with reporter.stage("sft", 101, unit="step"):
        now[0] += 300  # processes start
        for step in range(2):
            now[0] += 2
            reporter.step(step, {"seconds": 2.0, "loss": 1.0})
    with reporter.stage("rl", 11):
        with reporter.timer("start"):
            now[0] += 300
        now[0] += 30
        reporter.step(0, {"reward": 1.0})
    reporter.close()
    shown = capsys.readouterr().out
    assert "sft 1/101  loss 1  left 3:20" in shown
    assert "sft 2/101  loss 1  left 3:18" in shown
    assert "rl 1/11  reward 1  left 5:00" in shown


@pytest.mark.parametrize("benchmark", ["gsm8k", "mathvista", "mmmu"])
def test_another_benchmarks_file_is_named_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture, benchmark: str
) -> None:
    data, responses = tmp_path / "test.jsonl", tmp_path / "responses.jsonl"
    row = '{"id": "4", "question": "?", "options": [], "answer": "6", "level": 1, "subject": "a"}'
    data.write_text(row + "\n")
    responses.write_text('{"id": "4", "response": "6"}\n')
    assert score_main([benchmark, str(responses), "--data", str(data)]) == 2
    assert f"are those of mathvision, not of {benchmark}" in capsys.readouterr().err
