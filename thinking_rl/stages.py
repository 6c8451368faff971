"""A recipe's stages in order: checkpoint in, warm-up, RL, thinking checkpoint out."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import ray

from thinking_rl.cluster.stopping import check_stop
from thinking_rl.files.checkpoint import INDEX_FILE, checkpoint_folder, weight_map
from thinking_rl.learner.group import RANKS
from thinking_rl.model.tiny import write_tiny
from thinking_rl.recipe.schema import Recipe
from thinking_rl.report.card import model_card
from thinking_rl.report.progress import Reporter
from thinking_rl.rl import run_rl
from thinking_rl.run.export import copy_checkpoint_files
from thinking_rl.run.session import RunContext
from thinking_rl.run.state import Saved
from thinking_rl.sft import SFTActor, SFTJob

POLL_S = 0.5


def run(recipe: Recipe, reporter: Reporter, saved: Saved | None = None) -> None:
    """Run a recipe to its end, or go on from `saved`. Everything is written under
    `recipe.run_dir`."""
    start = starting_checkpoint(recipe)
    with RunContext(recipe, reporter, start) as context:
        checkpoint = start
        evaluate_once(context, "start")
        if "sft" in recipe.stages:
            checkpoint = run_warmup(context, start, saved)
            evaluate_once(context, "after_sft")
        if "rl" in recipe.stages:
            assert recipe.rl is not None
            in_rl = saved if saved and saved.iteration else None
            with reporter.stage("rl", recipe.rl.iterations):
                checkpoint = run_rl(context, checkpoint, in_rl)
            context.evaluate("after_rl")
        export = export_checkpoint(context, start, checkpoint)
    summary = reporter.finish()
    (export / "README.md").write_text(model_card(recipe, summary), encoding="utf-8")


def evaluate_once(context: RunContext, name: str) -> None:
    """Evaluate, unless the run that goes on has done so."""
    if name not in context.reporter.evaluations:
        context.evaluate(name)


def run_warmup(context: RunContext, start: str, saved: Saved | None) -> str:
    """The warm-up, or only its outcome where a run goes on after it; the folder with the trained
    weights, which the engines then have too."""
    sft = context.recipe.sft
    assert sft is not None
    out = context.folder("checkpoints", "sft")
    if saved is None:
        with context.reporter.stage("sft", sft.steps):
            context.pool.sleep()
            run_sft(context, start, out)
        context.save_position(out, iteration=0)
    else:
        context.pool.sleep()
    context.pool.wake("weights")
    context.publish_checkpoint(out)
    context.pool.wake("kv_cache")
    return out


def starting_checkpoint(recipe: Recipe) -> str:
    """The folder a run starts from: a small random checkpoint made for it, a folder given, or a
    hub id's snapshot.

    Raises:
        ValueError: `model.path` is none of them, or lacks files.
    """
    path = recipe.model.path
    if path == "tiny":
        folder = Path(recipe.run_dir).resolve() / "tiny"
        limit = recipe.model.image_token_limit or 4096
        return str(write_tiny(folder, seed=recipe.seed, image_token_limit=limit))
    return str(checkpoint_folder(path))


def run_sft(context: RunContext, checkpoint: str, out: str) -> None:
    """Train in processes of its own, from one folder to another."""
    recipe, sft = context.recipe, context.recipe.sft
    assert sft is not None
    examples = context.examples.draw(sft.steps * sft.batch_size)
    job = SFTJob(
        context.learner_settings(checkpoint, sft.optimizer, tau=0.0),
        sft,
        examples,
        recipe.data.instruction,
        recipe.model.image_token_limit,
        out,
    )
    options = context.devices.learners
    remote = ray.remote(SFTActor)
    actors = [
        remote.options(max_concurrency=2, **option).remote(rank, len(options))
        for rank, option in enumerate(options)
    ]
    try:
        started = [actors[0].address.remote()]
        [rendezvous] = RANKS.wait(started, recipe.learner.timeout_s, "start", "learner.timeout_s")
        shared_job = ray.put(job)
        work = [actor.train.remote(shared_job, rendezvous) for actor in actors]
        _follow(context, actors[0], work)
        counts = ray.get(work)[0]
        if counts["dropped"]:
            context.reporter.log(f"sft: {counts['dropped']} too long conversations left out")
    finally:
        for actor in actors:
            ray.kill(actor)  # pyright: ignore[reportArgumentType]
    copy_checkpoint_files(checkpoint, out)


def _follow(context: RunContext, actor, work: list) -> None:
    """Report the warm-up's steps as they come, until all ranks are done or one fails."""
    reported, waiting = 0, list(work)
    last, limit = time.monotonic(), context.recipe.learner.timeout_s
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
        check_stop()
        for finished in done:
            ray.get(finished)
        rows = ray.get(actor.progress.remote(), timeout=limit)
        for row in rows[reported:]:
            values = {name: value for name, value in row.items() if name != "step"}
            context.reporter.step(int(row["step"]), values)
            last = time.monotonic()
        reported = len(rows)
        if time.monotonic() - last > limit:
            raise RuntimeError(f"the warm-up made no step within {limit:.0f} s (learner.timeout_s)")


def export_checkpoint(context: RunContext, start: str, checkpoint: str) -> Path:
    """`run_dir/export`: the final weights with everything else that the first checkpoint had."""
    export = Path(context.folder("export"))
    if export.exists():
        shutil.rmtree(export)
    copy_checkpoint_files(start, export)
    for name in (INDEX_FILE, *sorted(set(weight_map(Path(checkpoint)).values()))):
        _link(Path(checkpoint) / name, export / name)
    return export


def _link(file: Path, target: Path) -> None:
    """The same file under a second name; a copy on file systems that have no links."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
