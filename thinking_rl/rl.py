"""Online policy mirror descent (Kimi k1.5, section 2.3): sample, grade, step, publish, prove."""

from __future__ import annotations

from collections.abc import Sequence

from eval.ask import Model
from rollouts.stream import Stream
from thinking_rl.algorithm.advantage import set_advantages, trainable
from thinking_rl.algorithm.sampler import Sampler, make_sampler
from thinking_rl.algorithm.staleness import set_references
from thinking_rl.files.run_folder import ITERATION
from thinking_rl.learner.group import Learner
from thinking_rl.recipe.schema import RL, RL_STAGE
from thinking_rl.report.iteration import age_metrics, idle_metrics, rollout_metrics, step_metrics
from thinking_rl.run.benchmarks import run_benchmarks
from thinking_rl.run.evaluate import evaluate
from thinking_rl.run.export import copy_checkpoint_files
from thinking_rl.run.saving import LastPolicy, save_checkpoint
from thinking_rl.run.session import Session
from thinking_rl.types import Conversation, Group


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
        sampler, stream = make_sampler(session.problems), session.stream()
        session.state.register("sampler", sampler)
        session.state.register("stream", stream)
        done = prepare(session, learner)
        with LastPolicy(session, learner) as last:
            while done < rl.iterations:
                last.keep(done)
                iterate(session, learner, sampler, stream, last, done)
                done += 1
                with session.reporter.between_steps():
                    after_iteration(session, learner, done)
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


def iterate(
    session: Session,
    learner: Learner,
    sampler: Sampler,
    stream: Stream,
    last: LastPolicy,
    iteration: int,
) -> None:
    """One iteration: sample, grade, step, publish, prove, report."""
    rl, reporter = session.recipe.rl, session.reporter
    assert rl is not None
    session.pool.take_idle()
    with reporter.timer("rollout"):
        stream.fill(sampler, iteration)
        groups = stream.collect(iteration)
    idle = session.pool.take_idle()
    with reporter.timer("grade"):
        groups = session.grader.grade(groups)
        sampler.record(groups)
    groups = set_advantages(groups, length_weight(rl, iteration))
    with reporter.timer("record"):
        session.responses.write(RL_STAGE, iteration, groups)
    metrics = rollout_metrics(groups) | idle_metrics(idle) | session.grader.metrics()
    metrics["unfinished"] = stream.unfinished
    if batch := minibatches(groups, rl.steps_per_iteration, session.pool.version, oldest(session)):
        metrics |= age_metrics(batch, session.pool.version)
        with reporter.timer("learn"):
            session.pool.sleep()
            last.drop()
            rates = learning_rates(rl, iteration, session.course.iterations)
            steps = stream.meanwhile(lambda: learner.train(batch, rates))
        agreement = session.publisher.publish(learner)
        metrics |= step_metrics(steps) | {"agreement": agreement.largest}
    reporter.step(iteration, metrics)


def after_iteration(session: Session, learner: Learner, done: int) -> None:
    """What is due after `done` iterations: an evaluation, benchmarks, a checkpoint. After the last
    only the checkpoint: what is measured then is measured on weights that are written."""
    rl = session.recipe.rl
    assert rl is not None
    is_last = done == rl.iterations
    if rl.evaluate_every and done % rl.evaluate_every == 0 and not is_last:
        evaluate(session, f"{ITERATION}{done}")
    if rl.benchmarks_every and done % rl.benchmarks_every == 0 and not is_last:
        measure_benchmarks(session, done)
    if is_last or (rl.checkpoint_every and done % rl.checkpoint_every == 0):
        save_checkpoint(session, learner, done)


def measure_benchmarks(session: Session, done: int) -> None:
    """Run the recipe's benchmarks on the engines as they are after `done` iterations."""
    longest = session.recipe.rollout.max_model_tokens
    model = Model(session.processor, session.images, session.pool.generate, longest)
    run_benchmarks(session.benchmarks, model, done, session.reporter.evaluation)


def learning_rates(rl: RL, iteration: int, planned: int) -> list[float]:
    """Of an iteration's optimizer steps, in a run that was planned with so many iterations."""
    first, total = iteration * rl.steps_per_iteration, planned * rl.steps_per_iteration
    return [rl.optimizer.rate(first + i, total) for i in range(rl.steps_per_iteration)]


def length_weight(rl: RL, iteration: int) -> float:
    """Weight of the length reward: off for a first phase, then constant (k1.5, 2.3.3)."""
    return rl.length_reward.weight if iteration >= rl.length_reward.start_iteration else 0.0


def oldest(session: Session) -> int:
    """The oldest policy whose tokens enter the loss now."""
    rl = session.recipe.rl
    assert rl is not None
    return session.pool.version - rl.max_staleness if rl.older_segments == "leave_out" else 0


def minibatches(
    groups: Sequence[Group], steps: int, version: int = 0, oldest: int = 0
) -> list[list[Conversation]]:
    """The responses that move the policy, in at most `steps` parts of whole groups. Groups whose
    rewards are all equal, and responses that were not graded, are left out.

    Args:
        version: of the policy that the iteration begins with.
        oldest: tokens of policies before this one are left out; so is a response of theirs alone.
    """
    useful = [
        [set_references(group.conversation(index), version, oldest) for index in trainable(group)]
        for group in groups
        if group.has_signal
    ]
    useful = [kept for group in useful if (kept := [one for one in group if any(one.loss_mask)])]
    parts = min(steps, len(useful))
    shares = [
        useful[i * len(useful) // parts : (i + 1) * len(useful) // parts] for i in range(parts)
    ]
    return [[one for group in share for one in group] for share in shares]
