"""Both commands of curation on 200 procedural problems, killed half-way and run again:
`python -m benchmarks.curation CHECKPOINT --out FOLDER`.

Twenty of the problems are planted: evaluation problems, reworded and with their pictures encoded
anew. The checkpoint is one that can answer them, such as the export of the quickstart.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

from thinking_rl.algorithm.sampler import draw_pool
from thinking_rl.curation.written import problem_row, write_parquet
from thinking_rl.data import fixed_problems, problem_stream
from thinking_rl.recipe.load import load_recipe
from thinking_rl.types import Problem

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "quickstart.yaml"
PLANTED = 20
TIMEOUT_S = 600


def reworded(problem: Problem, number: int) -> Problem:
    """An evaluation problem in other words, its picture in other bytes."""
    assert isinstance(problem.images[0], bytes)
    picture = Image.open(io.BytesIO(problem.images[0])).convert("RGB")
    if number % 2:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80 + number % 10)
    question = ("Add the digits.", "ADD  the digits", "Please add all these digits.")[number % 3]
    return replace(problem, id=f"planted-{number}", question=question, images=(buffer.getvalue(),))


def write_problems(folder: Path, count: int) -> Path:
    """So many problems of the recipe's, the planted ones among them."""
    recipe = load_recipe(RECIPE)
    data = recipe.data
    drawn = draw_pool(problem_stream(data.train, recipe.seed), count - PLANTED)
    held_out = fixed_problems(data.eval, data.eval_problems, recipe.seed)[:PLANTED]
    planted = [reworded(one, number) for number, one in enumerate(held_out)]
    file = folder / "problems.parquet"
    write_parquet([problem_row(one) for one in [*drawn, *planted]], {}, file)
    return file


def run(command: list[str], rows: Path | None = None, lines: int = 0) -> float:
    """Seconds of a command; killed as soon as the file has so many lines, where one is given."""
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        try:
            while process.poll() is None and time.monotonic() - started < TIMEOUT_S:
                if rows and rows.exists() and rows.read_bytes().count(b"\n") >= lines:
                    break
                time.sleep(0.02)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode > 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=200)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = write_problems(options.out, options.problems)
    overrides = [str(RECIPE), f"model.path={options.checkpoint}"]
    train = f"data.train=[{{format: plain, path: {file.resolve()}}}]"
    common = ["--chunk", "256", "--out"]
    curate = [*overrides, train, "--answer-start", "\\boxed{", "--answer-tokens", "8", *common]
    warm_up = [*overrides, "--problems", str(options.problems), "--prompts", "none", *common]
    cases = {
        "curate": (curate, "samples.jsonl", 3, "problems.parquet"),
        "warmup": (warm_up, "chains.jsonl", 1, "warmup.parquet"),
    }
    for name, (arguments, rows, lines, result) in cases.items():
        command = [sys.executable, "-m", f"thinking_rl.data.{name}", *arguments]
        whole, killed = options.out / f"{name}-whole", options.out / f"{name}-killed"
        seconds = run([*command, str(whole)])
        run([*command, str(killed)], killed / "responses" / rows, lines)
        assert not (killed / result).exists(), "it ended before it was killed"
        again = run([*command, str(killed)])
        same = (whole / result).read_bytes() == (killed / result).read_bytes()
        print(f"{name}: {seconds:.0f} s; killed after {lines} chunks, then {again:.0f} s; ", end="")
        print(f"the same file: {same}")
    dropped = (options.out / "curate-whole" / "dropped.jsonl").read_text().splitlines()
    found = [row for row in map(json.loads, dropped) if "evaluation" in row["reason"]]
    planted = sum("planted" in row["id"] for row in found)
    print(f"planted found: {planted} of {PLANTED}; others taken for evaluation problems: ", end="")
    print(len(found) - planted)


if __name__ == "__main__":
    main()
