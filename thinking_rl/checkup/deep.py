"""The real parts: a shortened run of the recipe, killed and resumed, and what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from thinking_rl.checkup.check import FaultError, Verdict, run_check
from thinking_rl.files.checkpoint import check_complete
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.recipe.load import load_recipe, save_resolved
from thinking_rl.recipe.rl import RL
from thinking_rl.recipe.schema import SFT, Recipe
from thinking_rl.report.metrics import read_metrics

RUN_TIMEOUT_S = 1800.0
SFT_STEPS, ITERATIONS = 6, 2


def deep_checks(recipe: Recipe) -> Iterator[Verdict]:
    """The verdict of each check; those that need what an earlier one could not make are left
    out."""
    with tempfile.TemporaryDirectory(prefix="thinking_rl-doctor-") as place:
        folder = RunFolder.at(Path(place) / "run")
        file = Path(place) / "short.yaml"
        save_resolved(shortened(recipe, folder.path), file)
        started = run_check("start, until killed", lambda: start_and_kill(file, folder))
        yield started
        if started.verdict != "ok":
            return
        resumed = run_check("resume", lambda: resume(file, folder))
        yield resumed
        for name, check in after(recipe, folder).items():
            yield run_check(name, lambda check=check: check())


def shortened(recipe: Recipe, run_dir: Path) -> Recipe:
    """The same parts, with as little work as shows that they work."""
    data = recipe.data.model_copy(
        update={"eval_problems": min(8, recipe.data.eval_problems), "benchmarks": []}
    )
    rollout = recipe.rollout.model_copy(update={"phase_tokens": None})  # groups come in time
    changes: dict[str, Any] = {"data": data, "rollout": rollout, "run_dir": str(run_dir)}
    changes |= {"overwrite": False, "resume": False, "trackers": []}
    if recipe.sft:
        changes["sft"] = short_sft(recipe.sft)
    if recipe.rl:
        changes["rl"] = short_rl(recipe.rl)
    return recipe.model_copy(update=changes)


def short_sft(sft: SFT) -> SFT:
    """A few steps, with no rise of the learning rate."""
    optimizer = sft.optimizer.model_copy(update={"warmup_steps": 0})
    return sft.model_copy(update={"steps": min(SFT_STEPS, sft.steps), "optimizer": optimizer})


def short_rl(rl: RL) -> RL:
    """Two iterations on a few problems, with a checkpoint after each."""
    problems = min(4, rl.problems_per_iteration)
    return rl.model_copy(
        update={
            "iterations": ITERATIONS,
            "problems_per_iteration": problems,
            "responses_per_step": None,
            "evaluate_every": 0,
            "benchmarks_every": 0,
            "checkpoint_every": 1,
        }
    )


def command(file: Path, *more: str) -> list[str]:
    """The command that a user would give."""
    return [sys.executable, "-m", "thinking_rl.train", str(file), *more]


def start_and_kill(file: Path, folder: RunFolder) -> str:
    """The run starts and saves; then it is ended as a crash would."""
    started = time.monotonic()
    log = folder.path.parent / "start.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(file), stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while not any(folder.checkpoints.glob("*/state.json")):
            if process.poll() is not None:
                raise FaultError(last_line(log), "the message says what to change")
            if time.monotonic() - started > RUN_TIMEOUT_S:
                raise FaultError(f"no checkpoint within {RUN_TIMEOUT_S:.0f} s", last_line(log))
            time.sleep(0.5)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    return f"a checkpoint after {time.monotonic() - started:.0f} s, then SIGKILL"


def resume(file: Path, folder: RunFolder) -> str:
    """It goes on from its checkpoint to its end."""
    try:
        done = subprocess.run(
            command(file, "resume=true"), capture_output=True, text=True, timeout=RUN_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        text = f"did not end within {RUN_TIMEOUT_S:.0f} s"
        raise FaultError(text, f"look at {folder.log}") from None
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FaultError(line, "the message says what to change")
    iterations = [row["iteration"] for row in read_metrics(folder) if row["stage"] == "rl"]
    if iterations and iterations != list(range(ITERATIONS)):
        raise FaultError(f"iterations {iterations}", "look for a writer in the same run_dir")
    return f"finished; {len(iterations)} iterations, each once"


def after(recipe: Recipe, folder: RunFolder) -> dict[str, Callable[[], str]]:
    """What the run left, looked at."""
    checks: dict[str, Callable[[], str]] = {}
    if recipe.active_sft:
        checks["loss falls"] = lambda: check_loss(folder)
    if recipe.active_rl:
        limit = load_recipe(folder.recipe).agreement_tolerance  # that of what `auto` came to
        checks["agreement on text"] = lambda: check_agreement(folder, limit, pictured=False)
        checks["agreement on pictures"] = lambda: check_agreement(folder, limit, pictured=True)
    return checks | {"export": lambda: check_export(folder)}


def check_loss(folder: RunFolder) -> str:
    """The warm-up's steps lower its loss."""
    losses = [row["loss"] for row in read_metrics(folder) if row["stage"] == "sft"]
    text = f"{losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps"
    if not losses[-1] < losses[0]:
        raise FaultError(text, "lower sft.optimizer.learning_rate")
    return text


def check_agreement(folder: RunFolder, limit: float, pictured: bool) -> str:
    """Engine and learner gave the tokens of the proofs the same log-probs."""
    rows = map(json.loads, folder.responses.read_text(encoding="utf-8").splitlines())
    proofs = [row for row in rows if row["stage"] == "proof"]
    mine = [row for row in proofs if bool(row["image_hashes"]) == pictured]
    differences = [
        abs(engine - learner)
        for row in mine
        for engine, learner in zip(
            [value for segment in row["segments"] for value in segment["logprobs"]],
            row["learner_logprobs"],
            strict=True,
        )
    ]
    if not differences:
        return "no such problem among the held-out ones"
    mean = sum(differences) / len(differences)
    text = f"mean {mean:.1e}, largest {max(differences):.1e} nats over {len(differences)} tokens"
    if mean > limit:
        raise FaultError(text, "see docs/decisions.md on agreement; keep the pinned vLLM")
    return text


def check_export(folder: RunFolder) -> str:
    """The finished checkpoint is whole, and transformers loads it."""
    shards = check_complete(folder.export)
    code = (
        "import sys, thinking_rl.model; from transformers import AutoModelForImageTextToText as M;"
        "print(sum(p.numel() for p in M.from_pretrained(sys.argv[1]).parameters()))"
    )
    line = [sys.executable, "-c", code, str(folder.export)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    if done.returncode:
        raise FaultError(done.stderr.strip().splitlines()[-1], "keep the pinned transformers")
    return f"{len(shards)} shard(s), {int(done.stdout.splitlines()[-1]):,} parameters load"


def last_line(log: Path) -> str:
    """What a run said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
