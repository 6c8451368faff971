"""The warm-up: supervised fine-tuning on long chains of thought, in processes of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from thinking_rl.cluster.stopping import check_stop
from thinking_rl.learner.group import RANKS
from thinking_rl.recipe.schema import SFT_STAGE
from thinking_rl.run.export import copy_checkpoint_files
from thinking_rl.run.session import Session
from thinking_rl.run.settings import learner_settings
from thinking_rl.sft_rank import SFTActor, SFTJob

POLL_S = 0.5


def run_sft(session: Session, checkpoint: str) -> str:
    """Train from a checkpoint folder, or what is left of it where the run goes on inside or after
    the stage; returns the folder with the trained weights, which the engines then provably have
    too.

    Raises:
        AgreementError: engines and learner differ after the publication.
    """
    out, position = session.folder.stage_weights(SFT_STAGE), session.state.position
    if position is None or position.step:
        session.pool.sleep()
        train(session, checkpoint, out, position.step if position else 0)
        session.state.save(out, iteration=0)
        drop_checkpoints(session)
    elif position.iteration:
        return str(out)  # RL goes on, and publishes its own weights
    else:
        session.pool.sleep()
    session.publisher.publish(session.learner(str(out)))
    return str(out)


def train(session: Session, checkpoint: str, out: Path, done: int) -> None:
    """Train in processes of its own, from one folder to another.

    Args:
        done: steps that were made before.
    """
    recipe, sft = session.recipe, session.recipe.sft
    assert sft is not None
    examples = session.examples.draw(sft.steps * sft.batch_size)
    images = [image for example in examples for image in example.problem.images]
    job = SFTJob(
        settings=learner_settings(recipe, session.devices, checkpoint, sft.optimizer),
        sft=sft,
        examples=examples,
        instruction=recipe.data.instruction,
        image_token_limit=recipe.model.image_token_limit,
        image_store_gib=recipe.data.image_store_gib,
        out=str(out),
        run_dir=str(session.folder.path),
        done=done,
        cut=session.images.shared(session.images.held(images)),
    )
    options = session.devices.learners
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
        with session.reporter.stage(SFT_STAGE, sft.steps, unit="step"):
            _follow(session, actors[0], work)
        counts = ray.get(work)
    finally:
        for actor in actors:
            ray.kill(actor)  # pyright: ignore[reportArgumentType]
    if counts[0]["dropped"]:
        session.reporter.log(f"sft: {counts[0]['dropped']} too long conversations left out")
    for count in counts:
        session.reporter.count("images_decoded", count["images_decoded"])
        session.reporter.count("images_distinct", count["images_distinct"])
    copy_checkpoint_files(checkpoint, out)


def _follow(session: Session, actor: Any, work: list) -> None:
    """Report the warm-up's steps as they come, until all ranks are done or one fails."""
    reported, waiting = 0, list(work)
    last, limit = time.monotonic(), session.recipe.learner.timeout_s
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
        check_stop()
        for finished in done:
            ray.get(finished)
        rows = ray.get(actor.progress.remote(), timeout=limit)
        for row in rows[reported:]:
            report(session, row)
            last = time.monotonic()
        reported = len(rows)
        if time.monotonic() - last > limit:
            raise RuntimeError(f"the warm-up made no step within {limit:.0f} s (learner.timeout_s)")


def report(session: Session, row: Mapping[str, float]) -> None:
    """A step that was made, or that was saved: its checkpoint is whole now, and the only one."""
    if "saved" not in row:
        values = {name: value for name, value in row.items() if name != "step"}
        session.reporter.step(int(row["step"]), values)
        return
    step = int(row["saved"])
    folder = session.folder.sft_checkpoint(step)
    session.state.save(folder, iteration=0, step=step)
    drop_checkpoints(session, keep=folder)
    session.reporter.event("checkpoint", f"saved after step {step} of the warm-up", step=step)


def drop_checkpoints(session: Session, keep: Path | None = None) -> None:
    """Remove what the warm-up went on from."""
    for folder in session.folder.sft_checkpoints():
        if folder != keep:
            shutil.rmtree(folder)
