"""Online policy mirror descent (Kimi k1.5, section 2.3): sample, grade, step, publish, prove."""

from __future__ import annotations

from collections.abc import Sequence

from eval.ask import Model
from rollouts.collect import collect
from thinking_rl.algorithm.advantage import set_advantages, trainable
from thinking_rl.algorithm.sampler import Sampler, make_sampler
from thinking_rl.files.run_folder import ITERATION
from thinking_rl.learner.group import Learner
from thinking_rl.recipe.schema import RL, RL_STAGE
from thinking_rl.report.iteration import rollout_metrics, step_metrics
from thinking_rl.run.benchmarks import run_benchmarks
from thinking_rl.run.evaluate import evaluate
from thinking_rl.run.export import copy_checkpoint_files
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
        sampler = make_sampler(session.problems)
        session.state.register("sampler", sampler)
        for iteration in range(prepare(session, learner), rl.iterations):
            iterate(session, learner, sampler, iteration)
            with session.reporter.between_steps():
                after_iteration(session, learner, iteration + 1)
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
    session.publisher.publish(learner)
    return position.iteration


def iterate(session: Session, learner: Learner, sampler: Sampler, iteration: int) -> None:
    """One iteration: sample, grade, step, publish, prove, report."""
    rl, reporter = session.recipe.rl, session.reporter
    assert rl is not None
    with reporter.timer("rollout"):
        problems = sampler.draw(rl.problems_per_iteration)
        prompts = [session.render(problem) for problem in problems]
        groups = collect(session.pool, session.processor, prompts, session.sampling)
    with reporter.timer("grade"):
        groups = session.grader.grade(groups)
        sampler.record(groups)
    groups = set_advantages(groups, length_weight(rl, iteration))
    with reporter.timer("record"):
        session.responses.write(RL_STAGE, iteration, groups)
    metrics = rollout_metrics(groups) | session.grader.metrics()
    if batch := minibatches(groups, rl.steps_per_iteration):
        with reporter.timer("learn"):
            session.pool.sleep()
            steps = learner.train(batch, learning_rates(rl, iteration))
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


def learning_rates(rl: RL, iteration: int) -> list[float]:
    """Of an iteration's optimizer steps."""
    first, total = iteration * rl.steps_per_iteration, rl.iterations * rl.steps_per_iteration
    return [rl.optimizer.rate(first + i, total) for i in range(rl.steps_per_iteration)]


def length_weight(rl: RL, iteration: int) -> float:
    """Weight of the length reward: off for a first phase, then constant (k1.5, 2.3.3)."""
    return rl.length_reward.weight if iteration >= rl.length_reward.start_iteration else 0.0


def minibatches(groups: Sequence[Group], steps: int) -> list[list[Conversation]]:
    """The responses that move the policy, in at most `steps` parts of whole groups. Groups whose
    rewards are all equal, and responses that were not graded, are left out."""
    useful = [
        [group.conversation(index) for index in trainable(group)]
        for group in groups
        if group.has_signal
    ]
    parts = min(steps, len(useful))
    shares = [
        useful[i * len(useful) // parts : (i + 1) * len(useful) // parts] for i in range(parts)
    ]
    return [[one for group in share for one in group] for share in shares]


def save_checkpoint(session: Session, learner: Learner, done: int) -> None:
    """Write what it takes to go on after `done` iterations, and drop the oldest beyond the last
    few."""
    folder = session.folder.rl_checkpoint(done)
    learner.save(str(folder))
    session.state.save(folder, done)
    session.folder.drop_old_checkpoints()
    session.reporter.event("checkpoint", f"saved after {done} iterations", iteration=done)
