"""The warm-up: supervised fine-tuning on long chains of thought, in processes of its own."""

from __future__ import annotations

import time
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
PROOF_SEED = 1
"""The proof after the warm-up draws from no generator that training uses."""


def run_sft(session: Session, checkpoint: str) -> str:
    """Train from a checkpoint folder, or take the outcome where the run goes on after it; returns
    the folder with the trained weights, which the engines then provably have too.

    Raises:
        AgreementError: engines and learner differ after the publication.
    """
    out, position = session.folder.stage_weights(SFT_STAGE), session.state.position
    if position is None:
        session.pool.sleep()
        train(session, checkpoint, out)
        session.state.save(out, iteration=0)
    elif position.iteration:
        return str(out)  # RL goes on, and publishes its own weights
    else:
        session.pool.sleep()
    session.publisher.publish(session.learner(str(out)), seed=PROOF_SEED)
    return str(out)


def train(session: Session, checkpoint: str, out: Path) -> None:
    """Train in processes of its own, from one folder to another."""
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
            values = {name: value for name, value in row.items() if name != "step"}
            session.reporter.step(int(row["step"]), values)
            last = time.monotonic()
        reported = len(rows)
        if time.monotonic() - last > limit:
            raise RuntimeError(f"the warm-up made no step within {limit:.0f} s (learner.timeout_s)")
