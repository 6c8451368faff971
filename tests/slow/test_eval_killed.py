"""An evaluation that is killed goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image, ImageDraw

TIMEOUT_S = 1500  # of an evaluation of seconds, on a machine with other work


def write_problems(folder: Path) -> Path:
    """Eight problems with pictures, in MathVision's columns."""
    rows = []
    for number in range(8):
        image = Image.new("RGB", (56, 42), "white")
        ImageDraw.Draw(image).text((20, 12), str(number), fill="black")
        image.save(folder / f"{number}.png")
        rows.append(
            {
                "id": f"drawn {number}",
                "question": "Which digit is it?\n<image1>",
                "options": [],
                "answer": str(number),
                "image": f"{number}.png",
            }
        )
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(checkpoint: Path, data: Path, problems: int, out: Path) -> list[str]:
    options = f"--limit {problems} --samples 2 --chunk 8"
    options += " --max-response-tokens 32 --max-model-tokens 2048"
    options += " --image-token-limit 256 --dtype float32 --max-sequences 8"
    return [
        *(sys.executable, "-m", "eval.run", str(checkpoint), "--benchmarks", "mathvision"),
        *("--data", f"mathvision={data}", "--out", str(out), *options.split()),
    ]


def test_killed_and_run_again(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A run killed half-way and run again leaves what a run in one go leaves."""
    root = os.environ.get("THINKING_RL_DATA")
    data = Path(root) / "mathvision/testmini.jsonl" if root else write_problems(tmp_path)
    problems = 40 if root else 8
    whole = command(tiny_checkpoint, data, problems, tmp_path / "whole")
    subprocess.run(whole, check=True, capture_output=True, timeout=TIMEOUT_S)
    killed = command(tiny_checkpoint, data, problems, tmp_path / "killed")
    responses = tmp_path / "killed/responses/mathvision.jsonl"
    process = subprocess.Popen(
        killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not (responses.exists() and responses.read_bytes().count(b"\n") >= problems):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    answered = responses.read_bytes().count(b"\n")
    assert problems <= answered < 2 * problems
    with responses.open("ab") as file:
        file.write(b'{"id": "torn')
    done = subprocess.run(killed, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    rows = [json.loads(line) for line in responses.read_text("utf-8").splitlines()]
    assert len({(row["id"], row["sample"]) for row in rows}) == len(rows) == 2 * problems
    table = (tmp_path / "killed/table.txt").read_text()
    assert table == (tmp_path / "whole/table.txt").read_text()
    assert table in done.stdout
    assert responses.read_bytes() == (tmp_path / "whole/responses/mathvision.jsonl").read_bytes()
