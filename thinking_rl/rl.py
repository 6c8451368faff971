"""Online policy mirror descent (Kimi k1.5, section 2.3): sample, grade, step, publish, prove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.ask import Model
from rollouts.stream import Stream
from thinking_rl.algorithm.advantage import set_advantages
from thinking_rl.algorithm.calibration import (
    SurpriseWatch,
    kl_divergence,
    one_of_each,
    reason,
    surprise,
)
from thinking_rl.algorithm.length import LengthShaping
from thinking_rl.algorithm.minibatches import minibatches, trained
from thinking_rl.algorithm.sampler import Sampler, make_sampler
from thinking_rl.files.run_folder import ITERATION
from thinking_rl.learner.group import Learner
from thinking_rl.recipe.rl import RL
from thinking_rl.recipe.schema import RL_STAGE
from thinking_rl.report.iteration import (
    age_metrics,
    batch_metrics,
    idle_metrics,
    rollout_metrics,
    step_metrics,
)
from thinking_rl.run.benchmarks import benchmark_row, run_benchmarks
from thinking_rl.run.evaluate import evaluate_once
from thinking_rl.run.export import copy_checkpoint_files
from thinking_rl.run.saving import LastPolicy, save_checkpoint
from thinking_rl.run.session import Session
from thinking_rl.types import Conversation


@dataclass(frozen=True)
class Parts:
    """What an iteration works with."""

    learner: Learner
    """Holds the policy."""
    sampler: Sampler
    """Chooses problems."""
    stream: Stream
    """Samples responses to them."""
    shaping: LengthShaping
    """Adds to their rewards."""
    watch: SurpriseWatch
    """Sees whether they are drawn from the policy."""


def run_rl(session: Session, checkpoint: str) -> str:
    """Train from a checkpoint folder for the recipe's iterations; returns the folder of the
    final weights. The engines hold `checkpoint`'s weights at the start and the final ones at
    the end. A run that goes on makes the iterations that are left.

    Raises:
        AgreementError: engine and learner differ, before the first iteration or after any
            publication.
    """
    rl = session.recipe.rl
    assert rl is not None
    with session.reporter.stage(RL_STAGE, rl.iterations):
        learner = session.learner(checkpoint)
        sampler = make_sampler(session.problems, rl, session.recipe.seed)
        shaping = LengthShaping(rl.length, session.recipe.rollout.max_response_tokens)
        parts = Parts(learner, sampler, session.stream(), shaping, SurpriseWatch())
        session.state.register("sampler", sampler)
        session.state.register("stream", parts.stream)
        session.state.register("length", shaping)
        session.state.register("surprise", parts.watch)
        done = prepare(session, learner)
        with LastPolicy(session, learner) as last:
            while True:
                if done:
                    last.keep(done)
                    with session.reporter.between_steps():
                        after_iteration(session, learner, done)
                if done == rl.iterations:
                    break
                last.keep(done)
                iterate(session, parts, last, done)
                done += 1
        final = session.folder.stage_weights(RL_STAGE)
        learner.export(str(final))
        copy_checkpoint_files(checkpoint, final)
        session.close_learner()
        measure_benchmarks(session, rl.iterations)
    return str(final)


def prepare(session: Session, learner: Learner) -> int:
    """Prove that engines and learner hold the same policy; returns the first iteration to run."""
    position = session.state.position
    if position is None or not position.iteration:
        session.publisher.prove(learner, "before the first iteration")
        return 0
    learner.load(str(position.folder))
    session.pool.sleep()
    session.publisher.publish(learner, session.pool.version)
    return position.iteration


def iterate(session: Session, parts: Parts, last: LastPolicy, iteration: int) -> None:
    """One iteration: sample, grade, step, publish, prove, report."""
    rl, reporter = session.recipe.rl, session.reporter
    assert rl is not None
    session.pool.take_idle()
    with reporter.timer("rollout"):
        parts.stream.fill(parts.sampler, iteration)
        groups = parts.stream.collect(iteration)
    idle = session.pool.take_idle()
    with reporter.timer("grade"):
        groups = session.grader.grade(groups)
        parts.sampler.record(groups)
    tau = rl.tau_at(iteration, session.course.iterations)
    groups = parts.shaping.apply(groups, iteration)
    groups = set_advantages(groups, rl.loss.baseline, tau)
    with reporter.timer("record"):
        session.responses.write(RL_STAGE, iteration, groups)
    metrics = rollout_metrics(groups) | idle_metrics(idle) | session.grader.metrics()
    metrics |= {"unfinished": parts.stream.unfinished, "tau": tau}
    version, noise = session.pool.version, f"{session.recipe.seed}/iteration/{iteration}"
    keep = rl.loss.without_signal == "keep"
    useful = trained(groups, version, oldest(session), without_signal=keep)
    batch = minibatches(useful, rl.step_responses, noise)
    metrics |= batch_metrics(useful, batch, rl.planned_steps // rl.epochs)
    if batch:
        metrics |= age_metrics(batch, version)
        probe = one_of_each(groups, version, noise)
        with reporter.timer("learn"):
            session.pool.sleep()
            last.drop()
            metrics |= parts.stream.meanwhile(
                lambda: learn(session, parts, batch, probe, iteration)
            )
        metrics["agreement"] = session.publisher.publish(parts.learner).largest
    else:
        reporter.log(
            f"iteration {iteration}: no optimizer step: {sum(map(len, useful))} responses to train "
            f"on, and a step has {rl.step_responses} (rl.responses_per_step)"
        )
    reporter.step(iteration, metrics)


def learn(
    session: Session,
    parts: Parts,
    batch: Sequence[Sequence[Conversation]],
    probe: Sequence[Conversation],
    iteration: int,
) -> dict[str, float]:
    """The optimizer steps of an iteration; `probe` is looked at before and after them."""
    rl, planned, learner = session.recipe.rl, session.course.iterations, parts.learner
    assert rl is not None
    before = learner.scores(probe, learner.settings.temperature)
    found = surprise(before)
    recent = parts.watch.add(found)
    if said := reason(recent, session.recipe.rollout.temperature):
        session.reporter.event("sampling", said)
        session.reporter.log(said)
    rates = learning_rates(rl, iteration, planned, rl.epochs * len(batch))
    steps = learner.train(batch, rates, rl.tau_at(iteration, planned))
    after = learner.scores(probe, learner.settings.temperature)
    return step_metrics(steps) | {
        "steps_not_finite": len(rates) - len(steps),
        "surprise_gap": found.gap,
        "surprise_z": found.z,
        "surprise_z_recent": recent.z,
        "kl_all_groups": kl_divergence([one[0] for one in before], [one[0] for one in after]),
    }


def after_iteration(session: Session, learner: Learner, done: int) -> None:
    """What is due after `done` iterations and not done: an evaluation, benchmarks, a checkpoint.
    After the last only the checkpoint: what is measured then is measured on weights that are
    written."""
    rl = session.recipe.rl
    assert rl is not None
    is_last = done == rl.iterations
    if rl.evaluate_every and done % rl.evaluate_every == 0 and not is_last:
        evaluate_once(session, f"{ITERATION}{done}")
    if rl.benchmarks_every and done % rl.benchmarks_every == 0 and not is_last:
        measure_benchmarks(session, done)
    is_due = is_last or (rl.checkpoint_every and done % rl.checkpoint_every == 0)
    if is_due and not session.folder.rl_checkpoint(done).exists():
        save_checkpoint(session, learner, done)


def measure_benchmarks(session: Session, done: int) -> None:
    """Run the recipe's benchmarks on the engines as they are after `done` iterations; those that
    were not run before."""
    longest = session.recipe.rollout.max_model_tokens
    model = Model(session.processor, session.images, session.pool.generate, longest)
    known = session.reporter.evaluations
    left = [one for one in session.benchmarks if benchmark_row(one, done) not in known]
    run_benchmarks(left, model, done, session.reporter.evaluation)


def learning_rates(rl: RL, iteration: int, planned: int, steps: int) -> list[float]:
    """Of an iteration's optimizer steps, in a run that was planned with so many iterations. Steps
    beyond the plan, of responses that were begun before, have the last rate of the iteration."""
    each = rl.planned_steps
    places = [iteration * each + min(i, each - 1) for i in range(steps)]
    return [rl.optimizer.rate(place, planned * each) for place in places]


def oldest(session: Session) -> int:
    """The oldest policy whose tokens enter the loss now."""
    rl = session.recipe.rl
    assert rl is not None
    return session.pool.version - rl.max_staleness if rl.older_segments == "leave_out" else 0
