"""Online policy mirror descent (Kimi k1.5, section 2.3): sample, grade, step, publish, prove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

from rollouts.collect import Prompt, collect
from thinking_rl.algorithm.advantage import count_groups, set_advantages, trainable
from thinking_rl.algorithm.sampler import UniformSampler
from thinking_rl.learner.group import LearnerGroup
from thinking_rl.learner.packing import Conversation
from thinking_rl.publication.agreement import Agreement, conversation_of, measure, require
from thinking_rl.recipe.schema import RL
from thinking_rl.run.benchmarks import run_benchmarks
from thinking_rl.run.export import copy_checkpoint_files
from thinking_rl.run.session import BUCKET_BYTES, RunContext, mean
from thinking_rl.run.state import Saved, drop_old
from thinking_rl.types import FinishReason, Group, Outcome


def run_rl(run: RunContext, checkpoint: str, saved: Saved | None = None) -> str:
    """Train from a checkpoint folder for the recipe's iterations; returns the folder of the
    final weights. The engines hold `checkpoint`'s weights at the start and the final ones at
    the end.

    Args:
        saved: go on from here, with this position's weights.

    Raises:
        AgreementError: engine and learner differ, before the first iteration or after any
            publication.
    """
    rl = run.recipe.rl
    assert rl is not None
    with run.reporter.timer("start"):
        learner = LearnerGroup(
            run.learner_settings(checkpoint, rl.optimizer, rl.tau),
            run.devices.learners,
            tokens_per_microbatch=run.recipe.learner.tokens_per_microbatch,
            media_token_id=run.processor.media_token_id,
        )
    try:
        sampler = UniformSampler(run.problems)
        first = start_or_resume(run, learner, sampler, saved)
        for iteration in range(first, rl.iterations):
            iterate(run, learner, sampler, iteration)
            with run.reporter.between_steps():
                after_iteration(run, learner, sampler, iteration + 1)
        final = run.folder("checkpoints", "rl")
        learner.export(final)
        copy_checkpoint_files(checkpoint, final)
    finally:
        learner.close()
    run_benchmarks(run, rl.iterations)
    return final


def start_or_resume(
    run: RunContext, learner: LearnerGroup, sampler: UniformSampler, saved: Saved | None
) -> int:
    """Prove that engines and learner hold the same policy; returns the first iteration to run."""
    if saved is None:
        with run.reporter.timer("prove"):
            prove(run, learner, "before the first iteration")
        return 0
    learner.load(str(saved.folder))
    sampler.load_state_dict(saved.sampler)
    run.pool.sleep()
    run.pool.wake("weights")
    publish(run, learner)
    return saved.iteration


def iterate(
    run: RunContext, learner: LearnerGroup, sampler: UniformSampler, iteration: int
) -> None:
    """One iteration: sample, grade, step, publish, prove, report."""
    rl = run.recipe.rl
    assert rl is not None
    with run.reporter.timer("rollout"):
        problems = sampler.draw(rl.problems_per_iteration)
        prompts = [run.render(problem) for problem in problems]
        groups = collect(run.pool, run.processor, prompts, run.sampling)
    with run.reporter.timer("grade"):
        groups = run.grade(groups)
        sampler.record(groups)
    groups = set_advantages(groups, length_weight(rl, iteration))
    batch = minibatches(prompts, groups, rl.steps_per_iteration)
    metrics = rollout_metrics(groups) | run.grader_metrics()
    if batch:
        with run.reporter.timer("learn"):
            run.pool.sleep()
            steps = learner.train(batch, learning_rates(rl, iteration))
            run.pool.wake("weights")
        agreement = publish(run, learner)
        metrics |= step_metrics(steps) | {"agreement": agreement.largest}
    run.reporter.step(iteration, metrics)


def after_iteration(
    run: RunContext, learner: LearnerGroup, sampler: UniformSampler, done: int
) -> None:
    """What is due after `done` iterations: an evaluation, benchmarks, a checkpoint. After the last
    only the checkpoint: what is measured then is measured on weights that are written."""
    rl = run.recipe.rl
    assert rl is not None
    is_last = done == rl.iterations
    if rl.evaluate_every and done % rl.evaluate_every == 0 and not is_last:
        run.evaluate(f"iteration_{done}")
    if rl.benchmarks_every and done % rl.benchmarks_every == 0 and not is_last:
        run_benchmarks(run, done)
    if is_last or (rl.checkpoint_every and done % rl.checkpoint_every == 0):
        save_checkpoint(run, learner, sampler, done)


def learning_rates(rl: RL, iteration: int) -> list[float]:
    """Of an iteration's optimizer steps."""
    first, total = iteration * rl.steps_per_iteration, rl.iterations * rl.steps_per_iteration
    return [rl.optimizer.rate(first + i, total) for i in range(rl.steps_per_iteration)]


def length_weight(rl: RL, iteration: int) -> float:
    """Weight of the length reward: off for a first phase, then constant (k1.5, 2.3.3)."""
    return rl.length_reward.weight if iteration >= rl.length_reward.start_iteration else 0.0


def minibatches(
    prompts: Sequence[Prompt], groups: Sequence[Group], steps: int
) -> list[list[Conversation]]:
    """The responses that move the policy, in at most `steps` parts of whole groups. Groups whose
    rewards are all equal, and responses that were not graded, are left out."""
    useful = [
        [
            conversation_of(prompt, group.trajectories[i], group.advantages[i])
            for i in trainable(group)
        ]
        for prompt, group in zip(prompts, groups, strict=True)
        if group.has_signal
    ]
    parts = min(steps, len(useful))
    shares = [
        useful[i * len(useful) // parts : (i + 1) * len(useful) // parts] for i in range(parts)
    ]
    return [[one for group in share for one in group] for share in shares]


def publish(run: RunContext, learner: LearnerGroup) -> Agreement:
    """Give the engines the learner's weights as the next policy version, and prove that they
    have them."""
    version = run.pool.version + 1
    with run.reporter.timer("publish"):
        run.pool.publish(learner.weight_buckets(BUCKET_BYTES), version)
        run.pool.wake("kv_cache")
    with run.reporter.timer("prove"):
        return prove(run, learner, f"after publication {version}")


def prove(run: RunContext, learner: LearnerGroup, when: str) -> Agreement:
    """Sample a few responses to held-out problems, at least one from every engine, and compare
    their log-probs with the learner's.

    Raises:
        AgreementError: they differ by more than `rl.agreement_tolerance`.
    """
    rl = run.recipe.rl
    assert rl is not None
    count = max(min(rl.agreement_responses, len(run.held_out)), len(run.pool.engines))
    pictured_first = sorted(run.held_out, key=lambda prompt: not prompt.images)
    prompts = list(islice(cycle(pictured_first), count))
    sampling = replace(run.sampling, samples=1, max_tokens=min(64, run.sampling.max_tokens))
    groups = collect(run.pool, run.processor, prompts, sampling)
    agreement = measure(learner, prompts, groups)
    require(agreement, run.recipe.model.dtype, rl.agreement_tolerance, when)
    return agreement


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What an iteration's responses were like. The reward is a mean over graded responses, the
    accuracy over those with a verdict; NaN where there is none."""
    scores = [score for group in groups for score in group.scores]
    graded = [score.value for score in scores if score.outcome is not Outcome.NOT_GRADED]
    verdicts = [score.correct for score in scores if score.correct is not None]
    trajectories = [t for group in groups for t in group.trajectories]
    lengths = [t.length for t in trajectories]
    counts = count_groups(groups)
    return {
        "reward": mean(graded),
        "accuracy": mean(verdicts),
        "length": mean(lengths),
        "finished": mean([t.finish_reason is FinishReason.STOP for t in trajectories]),
        "tokens": sum(lengths),
        "not_graded": len(scores) - len(graded),
        "groups": counts.total,
        "groups_with_signal": counts.with_signal,
        "groups_all_right": counts.all_right,
        "groups_all_wrong": counts.all_wrong,
    }


def step_metrics(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over an iteration's optimizer steps; kl is that of the last, the furthest from the
    reference."""
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    return means | {"kl": steps[-1]["kl"], "optimizer_steps": len(steps)}


def save_checkpoint(
    run: RunContext, learner: LearnerGroup, sampler: UniformSampler, done: int
) -> None:
    """Write what it takes to go on after `done` iterations, and drop the oldest beyond the last
    few."""
    folder = run.folder("checkpoints", f"iteration_{done:05d}")
    learner.save(folder)
    run.save_position(folder, done, sampler.state_dict())
    drop_old(run.recipe.run_dir)
