"""The real parts: a shortened run of the recipe, killed and resumed, and what it left."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from thinking_rl.checkup.check import FaultError, Verdict, run_check
from thinking_rl.data import fixed_problems
from thinking_rl.files.checkpoint import check_complete
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.recipe.load import load_recipe, save_resolved
from thinking_rl.recipe.rl import RL
from thinking_rl.recipe.schema import SFT, Recipe, Source
from thinking_rl.report.metrics import read_metrics

RUN_TIMEOUT_S = 1800.0
SFT_STEPS, ITERATIONS, HELD_OUT = 6, 2, 8
CELL = 28
"""Pixels of a picture along a side of what becomes one token."""


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
        update={
            "eval": [*recipe.data.eval, *texts(recipe.data.eval, run_dir.parent)],
            "eval_problems": min(HELD_OUT, recipe.data.eval_problems),
            "benchmarks": [],
        }
    )
    rollout = recipe.rollout.model_copy(update={"phase_tokens": None})  # groups come in time
    changes: dict[str, Any] = {"data": data, "rollout": rollout, "run_dir": str(run_dir)}
    changes |= {"overwrite": False, "resume": False, "trackers": []}
    if recipe.sft:
        changes["sft"] = short_sft(recipe.sft)
    if recipe.rl:
        changes["rl"] = short_rl(recipe.rl)
    return recipe.model_copy(update=changes)


def texts(sources: Sequence[Source], place: Path) -> list[Source]:
    """Problems without a picture where a program draws them all: the proofs need both kinds."""
    if any(source.format != "procedural" for source in sources):
        return []
    file = place / "texts.jsonl"
    rows = [{"question": f"What is {n} + 3?", "answer": str(n + 3)} for n in range(HELD_OUT)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [Source(format="plain", path=str(file))]


def short_sft(sft: SFT) -> SFT:
    """A few steps, with no rise of the learning rate."""
    optimizer = sft.optimizer.model_copy(update={"warmup_steps": 0})
    return sft.model_copy(update={"steps": min(SFT_STEPS, sft.steps), "optimizer": optimizer})


def short_rl(rl: RL) -> RL:
    """Two iterations on a few problems, with a checkpoint after each; groups that teach nothing are
    kept, as a policy that is not stepped on would not be published again."""
    problems = min(4, rl.problems_per_iteration)
    loss = rl.loss.model_copy(update={"without_signal": "keep"})
    return rl.model_copy(
        update={
            "iterations": ITERATIONS,
            "loss": loss,
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
        checks["published again"] = lambda: check_publications(folder, limit)
    checks["picture tokens"] = lambda: check_picture_tokens(recipe, folder)
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
    differences = [
        difference
        for row in proofs_of(folder)
        if bool(row["image_hashes"]) == pictured
        for difference in differences_of(row)
    ]
    if not differences:
        return "no such problem among the held-out ones"
    mean = sum(differences) / len(differences)
    text = f"mean {mean:.1e}, largest {max(differences):.1e} nats over {len(differences)} tokens"
    if mean > limit:
        raise FaultError(text, "see docs/decisions.md on agreement; keep the pinned vLLM")
    return text


def proofs_of(folder: RunFolder) -> list[dict[str, Any]]:
    """The responses that engines and learner were compared by."""
    rows = map(json.loads, folder.responses.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["stage"] == "proof"]


def differences_of(row: dict[str, Any]) -> list[float]:
    """Of the engine's and the learner's log-probs of a response, in nats a token."""
    sampled = [value for segment in row["segments"] for value in segment["logprobs"]]
    return [abs(a - b) for a, b in zip(sampled, row["learner_logprobs"], strict=True)]


def check_publications(folder: RunFolder, limit: float) -> str:
    """Weights that are put over published weights are those that the learner has: what an engine
    makes of its weights once, it must not make of them again."""
    by_version: dict[int, list[float]] = {}
    for row in proofs_of(folder):
        by_version.setdefault(row["at"], []).extend(differences_of(row))
    means = {version: sum(one) / len(one) for version, one in by_version.items() if one}
    text = ", ".join(f"version {version} {mean:.1e}" for version, mean in sorted(means.items()))
    if any(mean > limit for mean in means.values()):
        raise FaultError(f"mean differences in nats: {text}", "keep the pinned vLLM")
    if len(means) < 2:
        raise FaultError(f"{len(means)} publication was proved", "look at the run's log", True)
    return f"mean differences in nats: {text}"


def check_picture_tokens(recipe: Recipe, folder: RunFolder) -> str:
    """A picture has as many tokens by its size (one for 28 x 28 pixels, begun ones counted), in the
    image store, in the prompt that engine and learner get, and in what transformers makes of the
    export. Vision encoder and vLLM count for themselves: where they differ, the run has ended."""
    from rollouts.prompts import render_prompt
    from thinking_rl.model.image_store import ImageStore
    from thinking_rl.model.images import open_image
    from thinking_rl.model.processing import load_processor, problem_messages

    processor = load_processor(folder.export)
    store, pad = ImageStore(processor.image_processor), processor.media_token_id
    held_out = fixed_problems(shortened(recipe, folder.path).data.eval, HELD_OUT, recipe.seed)
    patch, most, checked, total = CELL // 2, processor.image_processor.in_token_limit, 0, 0
    for problem in held_out:
        sizes = [open_image(image).size for image in problem.images]
        if not sizes or any(w // patch * (h // patch) > most for w, h in sizes):
            continue  # one that is shrunk has another size
        prompt = render_prompt(processor, store, problem)
        messages = problem_messages(problem, load=open_image)
        theirs: Any = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
        counts = (
            sum(math.ceil(w / CELL) * math.ceil(h / CELL) for w, h in sizes),
            sum(image.num_tokens for image in prompt.images),
            prompt.token_ids.count(pad),
            theirs["input_ids"][0].count(pad),
        )
        if len(set(counts)) > 1:
            raise FaultError(
                f"problem {problem.id}: {counts[0]} tokens by the pictures' sizes, {counts[1]} in "
                f"the image store, {counts[2]} in the prompt, {counts[3]} by transformers",
                "fetch the checkpoint's preprocessor_config.json again; keep the pinned versions",
            )
        checked, total = checked + 1, total + counts[0]
    return f"{total} tokens of {checked} pictured problems, alike at every hop"


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
