"""The entry and its dry run: speed, lightness, exit codes, last lines, and the plan."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from graded import result

from thinking_rl import train
from thinking_rl.files.kimi_vl_a3b import RELEASED_TEXT, RELEASED_VISION
from thinking_rl.plan import plan
from thinking_rl.plan.inputs import check_model
from thinking_rl.plan.memory import count_parameters, estimate_memory
from thinking_rl.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")
HEAVY = ("torch", "ray", "vllm", "transformers", "datasets")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Puts a function in the place of `thinking_rl.stages.run`."""

    def install(run: Callable[..., object]) -> None:
        module = types.ModuleType("thinking_rl.stages")
        vars(module)["run"] = run
        monkeypatch.setitem(sys.modules, "thinking_rl.stages", module)
        monkeypatch.setattr("thinking_rl.stages", module, raising=False)

    return install


def checkpoint(folder: Path, shards: int = 2) -> Path:
    """A folder that looks like a complete checkpoint from outside."""
    folder.mkdir()
    config = {"text_config": RELEASED_TEXT, "vision_config": RELEASED_VISION}
    (folder / "config.json").write_text(json.dumps({"model_type": "kimi_vl", **config}))
    (folder / "tiktoken.model").touch()
    names = [f"model-{n}-of-{shards}.safetensors" for n in range(1, shards + 1)]
    weights = {f"w{n}": name for n, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("error", "code", "last"),
    [
        (ValueError("data.jsonl, row 3:\n no answer"), 2, "error: data.jsonl, row 3: no answer"),
        (FileNotFoundError("no file x"), 2, "error: no file x"),
        (RuntimeError("engine 2\ndied"), 1, "error: RuntimeError: engine 2 died"),
        (KeyboardInterrupt(), 130, "stopped"),
        (SystemExit(signal.SIGTERM), 130, "stopped"),
    ],
)
def test_exit_codes_and_last_line(
    tmp_path: Path,
    stage: Callable,
    capsys: pytest.CaptureFixture,
    error: BaseException,
    code: int,
    last: str,
) -> None:
    def run(*_: object) -> None:
        raise error

    stage(run)
    assert train.main([QUICKSTART, f"run_dir={tmp_path}"]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == last
    log = tmp_path / "error.log"
    assert log.is_file() == (code in (1, 2))
    if log.is_file():
        assert lines[-2] == f"the traceback is in {log}"
        assert "in run" in log.read_text()


def test_cause_of_an_error_in_a_worker_is_shown(
    tmp_path: Path, stage: Callable, capsys: pytest.CaptureFixture
) -> None:
    class TaskError(Exception):  # as Ray's: holds the worker's error, prints its whole traceback
        cause = ValueError("columns: no column 'answer'")

    def run(*_: object) -> None:
        raise TaskError("Traceback (most recent call last): ...")

    stage(run)
    assert train.main([QUICKSTART, f"run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: columns: no column 'answer'"


def test_sigterm_lets_the_stages_clean_up(tmp_path: Path, stage: Callable) -> None:
    cleaned = []

    def run(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            cleaned.append(True)

    stage(run)
    assert train.main([QUICKSTART, f"run_dir={tmp_path}"]) == 130
    assert cleaned == [True]


def test_a_run_leaves_its_recipe_and_a_finished_one_is_kept(
    tmp_path: Path, stage: Callable, capsys: pytest.CaptureFixture
) -> None:
    def run(recipe, reporter, saved) -> None:
        reporter.evaluation("start", result(1, 2))
        reporter.finish()

    stage(run)
    arguments = [QUICKSTART, f"run_dir={tmp_path / 'run'}", "seed=5"]
    assert train.main(arguments) == 0
    assert load_recipe(tmp_path / "run" / "recipe.yaml").seed == 5
    assert train.main(arguments) == 2
    assert "holds a finished run; give run_dir=FOLDER" in capsys.readouterr().err
    assert train.main([*arguments, "overwrite=true"]) == 0
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 1  # the overwritten run's are gone
    assert not load_recipe(tmp_path / "run" / "recipe.yaml").overwrite


def test_files_that_are_not_a_runs_are_left_alone(tmp_path: Path, stage: Callable) -> None:
    stage(lambda *_: None)
    kept = tmp_path / "checkpoints" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert train.main([QUICKSTART, f"run_dir={tmp_path}", "overwrite=true"]) == 0
    assert kept.read_text() == "mine"


def test_inputs_are_checked_before_the_run_folder_is_made(
    tmp_path: Path, stage: Callable, capsys: pytest.CaptureFixture
) -> None:
    stage(lambda *_: pytest.fail("must not start"))
    overrides = [f"run_dir={tmp_path / 'run'}", f"model.path={tmp_path / 'none'}"]
    assert train.main([QUICKSTART, *overrides]) == 2
    assert f"error: model.path: no folder {tmp_path}/none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_dry_run_prints_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main([QUICKSTART, "--dry-run", f"run_dir={tmp_path}", "rl.iterations=3"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "rl 3 iterations of 48 problems x 8 samples, at most 4 optimizer steps each" in lines
    assert "per step 96 responses per optimizer step" in lines
    assert "per iteration at most 24,576 response tokens" in lines
    assert "math_answer weight 1" in lines


def test_dry_run_names_every_problem_at_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    overrides = [f"run_dir={tmp_path}", "rewards.parts.0.grader=math_anser", "model.path=./nowhere"]
    assert train.main([QUICKSTART, "--dry-run", *overrides]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "rewards.parts.0.grader: unknown reward 'math_anser'" in last
    assert "model.path: no folder nowhere; expected a checkpoint folder, a hub id or `tiny`" in last


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["config.json"], "lacks config.json: is the checkpoint complete?"),
        (["tiktoken.model"], "lacks tiktoken.model or tokenizer.json"),
        (
            ["model-1-of-2.safetensors", "model-2-of-2.safetensors"],
            "lacks model-1-of-2.safetensors, model-2-of-2.safetensors",
        ),
    ],
)
def test_incomplete_checkpoints(tmp_path: Path, missing: list[str], message: str) -> None:
    folder = checkpoint(tmp_path / "model")
    assert check_model(str(folder)) == f"2 shards in {folder}"
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(ValueError, match=message):
        check_model(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_broken_checkpoint_files_are_named(tmp_path: Path, name: str) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / name).write_text('{"weight_map": ')
    with pytest.raises(ValueError, match=f"{name}: not readable as JSON"):
        check_model(str(folder))


def test_plan_of_a_checkpoint_on_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "find_gpus", lambda: [80.0, 80.0])
    folder = checkpoint(tmp_path / "model")
    overrides = [f"model.path={folder}", "model.dtype=bfloat16", "learner.workers=4"]
    found = plan.make_plan(load_recipe(QUICKSTART, [*overrides, f"run_dir={tmp_path}/run"]))
    texts = {name: text for _, name, text in found.rows}
    assert texts["parameters"] == "16,407,656,048"
    assert texts["GPUs"] == "4 needed, 2 found on this machine"
    assert texts["device"] == "80.0 GiB, of which an engine takes 68.0"
    assert texts["engine"].startswith("30.6 GiB of weights on each device")
    assert "devices: 4 GPUs needed, 2 found" in found.warnings
    assert any("raise learner.workers" in warning for warning in found.warnings)


def test_gpus_of_unknown_size_are_counted_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "find_gpus", lambda: [float("nan")])
    overrides = [f"model.path={checkpoint(tmp_path / 'model')}", f"run_dir={tmp_path}/run"]
    found = plan.make_plan(load_recipe(QUICKSTART, overrides))
    texts = {name: text for _, name, text in found.rows}
    assert texts["GPUs"] == "1 needed, 1 found on this machine"
    assert "device" not in texts


def test_parameters_of_the_released_model() -> None:
    parts = count_parameters({})
    assert sum(parts.values()) == 16_407_656_048
    assert parts["vision_tower"] == 416_866_032
    assert parts["projector"] == 30_679_808
    assert parts["decoder"] + parts["router"] == 15_960_110_208


def test_parameters_agree_with_the_model_itself() -> None:
    torch = pytest.importorskip("torch")
    from thinking_rl.model.configuration import KimiVLConfig
    from thinking_rl.model.modeling import KimiVLForConditionalGeneration
    from thinking_rl.model.tiny import TEXT, VISION

    config = {"text_config": TEXT, "vision_config": VISION}
    with torch.device("meta"):
        model = KimiVLForConditionalGeneration(KimiVLConfig(text_config=TEXT, vision_config=VISION))
    tensors = dict(model.named_parameters())
    biases = {n: b for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")}
    actual = sum(tensor.numel() for tensor in {**tensors, **biases}.values())
    assert sum(count_parameters(config).values()) == actual


def test_memory_of_the_released_model() -> None:
    overrides = ["model.dtype=bfloat16", "learner.workers=8", "rollout.tensor_parallel=2"]
    overrides += ["rollout.max_sequences=1", "rollout.max_model_tokens=40960"]
    memory = estimate_memory(load_recipe(QUICKSTART, overrides), {})
    gib = 2**30
    assert memory.engine_weights == pytest.approx(16_407_656_048 * 2 / 2 / gib)
    assert memory.engine_kv_cache == pytest.approx(576 * 2 * 27 * 40960 / gib)  # latent and key
    assert memory.learner_state == pytest.approx(16_407_656_048 * 16 / 8 / gib)
    frozen = estimate_memory(load_recipe(QUICKSTART, [*overrides, "model.freeze=[decoder]"]), {})
    assert frozen.learner_state < memory.learner_state / 3
