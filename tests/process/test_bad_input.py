"""Mistakes of users through the command line: each is named, costs seconds, and starts nothing.

Tested elsewhere and not repeated: unknown keys, wrong types, values out of range and files that
are missing or unreadable (test_recipe.py); columns, rows, images that are missing or outside their
folder in the first rows (test_data_sources.py); damaged pictures of all kinds (test_images.py);
incomplete checkpoints and a finished run's folder (test_cli.py); misbehaving reward functions
(test_pool.py, test_run.py); workers that cannot start (test_rollout_pool.py, test_run.py).
"""

from __future__ import annotations

import io
import json
import re
import signal
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from thinking_rl import train

RECIPE = """
model: {path: tiny, dtype: float32, image_token_limit: 64}
data:
  train: [{format: plain, path: train.jsonl}]
  eval: [{format: plain, path: eval.jsonl}]
sft:
  data: [{format: plain, path: sft.jsonl}]
  steps: 2
  batch_size: 4
  optimizer: {learning_rate: 1.0e-3}
rl:
  iterations: 2
  problems_per_iteration: 4
  samples_per_problem: 4
  tau: 0.1
  optimizer: {learning_rate: 1.0e-3}
rollout: {max_response_tokens: 16, max_model_tokens: 128}
learner: {tokens_per_microbatch: 512}
rewards: {parts: [{grader: "own.py:right"}]}
"""
GOOD = {"question": "What is 2 + 3?", "answer": "5", "response": "It is 5.", "image": "good.png"}
ROWS = 12
"""More than are looked at before everything is read."""


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A few bytes that claim 20000 x 10000 pixels."""
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A good recipe with its data, in the current folder."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for name in ("train", "eval", "sft"):
        write_rows(tmp_path / f"{name}.jsonl", [GOOD] * ROWS)
    (tmp_path / "good.png").write_bytes(png(56, 28))
    (tmp_path / "cut.png").write_bytes(png(300, 300)[:100])
    (tmp_path / "bomb.png").write_bytes(bomb())
    (tmp_path.parent / "outside.png").write_bytes(png(28, 28))
    (tmp_path / "own.py").write_text("def right(problem, response):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def nothing_starts(*_: object) -> None:
    raise AssertionError("Ray was started")


@pytest.mark.parametrize(
    ("file", "row", "overrides", "message"),
    [
        ("", {}, ["rl.iteratons=3"], "rl.iteratons: unknown key; the nearest valid one is"),
        (
            "",
            {},
            ["rl.tau=high"],
            "rl.tau: expected a number above 0, or .*, not 'high'",
        ),
        ("", {}, ["rl.samples_per_problem=1"], "rl.samples_per_problem: .* 2, not 1"),
        ("", {}, ["data.train.0.path=none.jsonl"], "no such file: .*none.jsonl"),
        ("", {}, ["rewards.parts.0.grader=own.py:wrong"], "no function 'wrong' in own.py"),
        ("train", {"answer": None}, [], "train.jsonl, row 12: answer: missing or empty"),
        ("sft", {"response": ""}, [], "sft.jsonl, row 12: no response to learn from"),
        ("train", {"image": "gone.png"}, [], "train.jsonl, row 12: .*gone.png' is missing"),
        ("train", {"image": "../outside.png"}, [], "row 12: .*lies outside the folder"),
        ("eval", {"question": "so " * 200}, [], "prompt has .* rollout.max_model_tokens is 128"),
        ("eval", {"image": "gone.png"}, [], "eval.jsonl, row 12: .*gone.png' is missing"),
        ("train", {"image": "cut.png"}, [], "train/11, image 1: .*cut.png: not a readable image"),
        ("train", {"image": "bomb.png"}, [], "train/11, image 1: .*bomb.png: too large a picture"),
        ("train", {"question": "so " * 200}, [], "train/11: the prompt has .*max_model_tokens is"),
        ("train", {"image": ["good.png"] * 9}, [], "train/11: 9 images, .*max_images is 8"),
        ("sft", {"image": "cut.png"}, [], "sft/11, image 1: .*cut.png: not a readable image"),
        ("eval", {"image": "cut.png"}, [], "image 1: .*cut.png: not a readable image"),
        (
            "eval",
            {"image": "bomb.png"},
            [],
            "image 1: .*bomb.png: too large a picture .*200000000 pixels",
        ),
    ],
)
def test_mistakes_are_named_before_anything_starts(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    file: str,
    row: dict,
    overrides: list[str],
    message: str,
) -> None:
    from thinking_rl.run import session as context

    monkeypatch.setattr(context, "cluster", nothing_starts)
    if file:
        write_rows(folder / f"{file}.jsonl", [GOOD] * (ROWS - 1) + [GOOD | row])
    code = train.main([str(folder / "recipe.yaml"), f"run_dir={folder}/run", *overrides])
    last = capsys.readouterr().err.splitlines()[-1]
    assert code == 2, last
    assert re.search(f"^error: .*{message}", last), last


def test_an_empty_data_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from thinking_rl.run import session as context

    monkeypatch.setattr(context, "cluster", nothing_starts)
    for name in ("train", "eval", "sft"):
        (folder / f"{name}.jsonl").write_text("\n")
    assert train.main([str(folder / "recipe.yaml"), f"run_dir={folder}/run"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.count("the data set is empty") == 3


def test_conversations_that_are_too_long(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from thinking_rl.run import session as context

    monkeypatch.setattr(context, "cluster", nothing_starts)
    arguments = [
        str(folder / "recipe.yaml"),
        f"run_dir={folder}/run",
        "sft.max_conversation_tokens=64",
    ]
    long = GOOD | {"response": "so " * 200}
    write_rows(folder / "sft.jsonl", [long] * ROWS)
    assert train.main(arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert (
        "all 12 conversations are longer than sft.max_conversation_tokens (64), the shortest has 6"
        in last
    )
    write_rows(folder / "sft.jsonl", [long] * (ROWS - 1) + [GOOD])
    assert train.main(arguments) == 1
    assert "sft: 11 conversations longer than 64 tokens, left out" in capsys.readouterr().out


def test_a_missing_shard(
    folder: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = folder / "model"
    copy.mkdir()
    for file in tiny_checkpoint.iterdir():
        if file.suffix != ".safetensors":
            (copy / file.name).write_bytes(file.read_bytes())
    overrides = [f"run_dir={folder}/run", f"model.path={copy}"]
    assert train.main([str(folder / "recipe.yaml"), *overrides]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "lacks model-00001-of-00001.safetensors: is the checkpoint complete?" in last


def test_a_good_run_gets_as_far_as_starting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The table above is about each mistake, not about the recipe."""
    from thinking_rl.run import session as context

    monkeypatch.setattr(context, "cluster", nothing_starts)
    assert train.main([str(folder / "recipe.yaml"), f"run_dir={folder}/run"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: AssertionError: Ray was started"
