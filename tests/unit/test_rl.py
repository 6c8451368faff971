"""An iteration's bookkeeping: which responses train, and metrics that claim nothing unknown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from rollouts.engine import Completion, Request
from rollouts.pool import RolloutError
from rollouts.prompts import Prompt, Sampling
from thinking_rl import rl as loop
from thinking_rl.algorithm.advantage import set_advantages
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.learner.group import Learner
from thinking_rl.model.images import CutImage
from thinking_rl.publication import publish
from thinking_rl.publication.agreement import Agreement, AgreementError
from thinking_rl.publication.publish import Publisher
from thinking_rl.recipe.optimizer import Optimizer
from thinking_rl.recipe.rl import RL
from thinking_rl.report.iteration import rollout_metrics, step_metrics
from thinking_rl.rl import learning_rates
from thinking_rl.run.saving import LastPolicy
from thinking_rl.run.state import RunState, find_position
from thinking_rl.types import FinishReason, Group, Problem, Score, Segment, Trajectory

RIGHT, WRONG = Score(1.0, True), Score(0.0, False)
LOST = Score(0.0, error="timeout")
UNJUDGED = Score(0.5, None)


def group(name: str, *scores: Score) -> Group:
    def answer(number: int) -> Trajectory:
        segment = Segment((number + 10,) * (number + 1), (-1.0,) * (number + 1), 0)
        reason = FinishReason.LENGTH if number else FinishReason.STOP
        return Trajectory(name, (1, 2), (), (segment,), "", reason)

    answers = tuple(answer(number) for number in range(len(scores)))
    return Group(Problem(name, "q", "1"), answers, scores)


def test_rollout_metrics_count_what_is_known() -> None:
    groups = [
        group("all right", RIGHT, RIGHT),
        group("mixed", RIGHT, WRONG, LOST),
        group("lost", LOST, LOST),
        group("one graded", RIGHT, LOST),
        group("other", WRONG, RIGHT),
        group("all wrong", WRONG, WRONG),
    ]
    metrics = rollout_metrics(set_advantages(groups))
    counts = {name: value for name, value in metrics.items() if name.startswith("groups")}
    assert counts == {
        "groups": 6,
        "groups_with_signal": 2,
        "groups_all_right": 1,
        "groups_all_wrong": 1,
    }
    assert metrics["without_signal"] == pytest.approx(4 / 6)
    assert metrics["not_graded"] == 4
    assert metrics["reward"] == metrics["accuracy"] == pytest.approx(5 / 9)
    assert metrics["length_right"] == pytest.approx((1 + 2 + 1 + 1 + 2) / 5)
    assert metrics["length_wrong"] == pytest.approx((2 + 1 + 1 + 2) / 4)
    assert "length_wrong" not in rollout_metrics([group("all right", RIGHT, RIGHT)])


def test_metrics_of_nothing_graded_are_unknown() -> None:
    metrics = rollout_metrics(set_advantages([group("lost", LOST, LOST)]))
    assert math.isnan(metrics["reward"])
    assert math.isnan(metrics["accuracy"])
    assert (metrics["not_graded"], metrics["tokens"], metrics["length"]) == (2, 3, 1.5)
    assert metrics["finished"] == 0.5


def test_a_reward_without_verdicts_has_no_accuracy() -> None:
    metrics = rollout_metrics(set_advantages([group("rated", UNJUDGED, UNJUDGED)]))
    assert metrics["reward"] == 0.5
    assert math.isnan(metrics["accuracy"])


def test_kl_is_that_of_the_last_step() -> None:
    metrics = step_metrics([{"loss": 1.0, "kl": 0.0}, {"loss": 3.0, "kl": 0.5}])
    assert metrics == {"loss": 2.0, "kl": 0.5, "optimizer_steps": 2}


def test_mismatch_is_over_all_tokens_that_were_compared() -> None:
    one = {"mismatch": 0.5, "compared": 10.0, "kl": 0.0}
    assert step_metrics([one, one | {"mismatch": 0.1, "compared": 20.0}]) == {
        "kl": 0.0,
        "mismatch": pytest.approx(0.6 / 30),
        "optimizer_steps": 2,
    }
    assert step_metrics([one | {"compared": 0.0}]) == {"kl": 0.0, "optimizer_steps": 1}
    assert step_metrics([]) == {"optimizer_steps": 0}


def held_out(number: int) -> Prompt:
    """A prompt; the odd ones have a picture."""
    images = (CutImage("x", (2, 2)),) if number % 2 else ()
    return Prompt(Problem(str(number), "q", "1"), (1, 2), images)


class Stages:
    """In place of pool and learner: notes what it is asked, in order."""

    def __init__(self, engines: int) -> None:
        self.up = list(range(engines))
        self.version, self.said, self.serving = 4, [], []
        self.questions: dict[int, list[Request]] = {}
        self.bring_up = None

    def wake(self, part: str) -> None:
        self.said.append(f"wake {part}")

    def weight_buckets(self, limit_bytes: int) -> list[str]:
        self.said.append(f"weights in blocks of {limit_bytes}")
        return ["block"]

    def publish(self, buckets: list[str], version: int, engines: list[int] | None) -> list[int]:
        self.said.append(f"publish {buckets} as {version} to {engines or 'all'}")
        self.version, self.serving = version, []
        return engines or self.up

    def ask(self, questions: dict[int, list[Request]]) -> dict[int, list[Completion]]:
        self.questions = questions
        answer = Completion((), FinishReason.STOP)
        return {engine: [answer] * len(asked) for engine, asked in questions.items()}

    def serve(self, engines: Iterable[int], version: int) -> None:
        assert version == self.version
        self.serving += engines

    @contextmanager
    def timer(self, phase: str) -> Iterator[None]:
        self.said.append(phase)
        yield


def publisher(stages: Stages, prompts: int, longest: int = 200) -> Publisher:
    return Publisher(
        pool=stages,  # pyright: ignore[reportArgumentType]
        processor=None,  # pyright: ignore[reportArgumentType]
        prompts=[held_out(number) for number in range(prompts)],
        sampling=Sampling(samples=8, max_response_tokens=longest, temperature=0.7, top_p=0.9),
        responses=4,
        dtype="float32",
        tolerance=1e-6,
        timer=stages.timer,
    )


@pytest.fixture(autouse=True)
def agreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs agree, without a text."""
    answer = Trajectory("", (), (), (), "", FinishReason.STOP)
    monkeypatch.setattr(publish, "trajectory", lambda *_: answer)
    monkeypatch.setattr(publish, "measure", lambda *_: Agreement(0.0, 0.0, 1, "nowhere"))


@pytest.mark.parametrize(("prompts", "engines", "expected"), [(9, 1, 4), (3, 1, 3), (2, 5, 5)])
def test_every_engine_is_proved(prompts: int, engines: int, expected: int) -> None:
    stages = Stages(engines)
    publisher(stages, prompts).prove(None, "now")  # pyright: ignore[reportArgumentType]
    given = [request for asked in stages.questions.values() for request in asked]
    assert len(given) == expected
    assert all(stages.questions[engine] for engine in range(engines))
    assert len({request.seed for request in given}) == expected  # engines share no noise
    assert stages.questions[0][0].image_hashes  # pictures come first
    assert {(one.max_response_tokens, one.temperature, one.top_p) for one in given} == {
        (64, 0.7, 0.9)
    }
    assert stages.serving == list(range(engines))


def test_a_proof_is_no_longer_than_responses_are() -> None:
    stages = Stages(1)
    publisher(stages, 2, longest=16).prove(None, "now")  # pyright: ignore[reportArgumentType]
    assert {one.max_response_tokens for one in stages.questions[0]} == {16}


def test_a_publication_wakes_sends_and_proves(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages(1)
    publisher(stages, 2).publish(stages)  # pyright: ignore[reportArgumentType]
    assert stages.said == [
        "publish",
        "wake weights",
        f"weights in blocks of {2**30}",
        "publish ['block'] as 5 to all",
        "wake kv_cache",
        "prove",
    ]
    assert stages.serving == [0]
    monkeypatch.setattr(publish, "measure", lambda *_: Agreement(2e-6, 0.0, 1, "token 3"))
    with pytest.raises(AgreementError, match=r"^after publication 6: "):
        publisher(stages, 2).publish(stages)  # pyright: ignore[reportArgumentType]
    assert stages.serving == []


def test_an_engine_that_was_started_again_is_proved_alone() -> None:
    stages = Stages(3)
    publisher(stages, 2).publish(stages)  # pyright: ignore[reportArgumentType]
    assert stages.bring_up
    stages.bring_up(2)
    assert stages.said[-3:] == [
        f"weights in blocks of {2**30}",
        "publish ['block'] as 5 to [2]",
        "prove",
    ]
    assert stages.serving == [2]
    assert set(stages.questions) == {2}


def test_what_is_due_after_an_iteration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    due: list[tuple[str, int]] = []
    monkeypatch.setattr(
        loop, "measure_benchmarks", lambda _, done: due.append(("benchmarks", done))
    )
    monkeypatch.setattr(
        loop, "save_checkpoint", lambda *given: due.append(("checkpoint", given[-1]))
    )
    monkeypatch.setattr(
        loop,
        "evaluate_once",
        lambda _, name: due.append(("evaluate", int(name.removeprefix("iteration_")))),
    )
    every = {"evaluate_every": 2, "benchmarks_every": 3, "checkpoint_every": 4}
    session = SimpleNamespace(
        recipe=SimpleNamespace(rl=SimpleNamespace(iterations=6, **every)),
        folder=RunFolder(tmp_path),
    )
    for done in range(1, 7):
        loop.after_iteration(session, None, done)  # pyright: ignore[reportArgumentType]
    assert due == [
        ("evaluate", 2),
        ("benchmarks", 3),
        ("evaluate", 4),
        ("checkpoint", 4),
        ("checkpoint", 6),  # the rest is the caller's, once the weights are written
    ]
    session.folder.rl_checkpoint(6).mkdir(parents=True)
    loop.after_iteration(session, None, 6)  # pyright: ignore[reportArgumentType]
    assert due[5:] == []  # a run that goes on there has it


@pytest.mark.parametrize(("warmup_steps", "final_share"), [(0, 1.0), (0, 0.1), (5, 0.25)])
def test_learning_rates_are_those_of_transformers(warmup_steps: int, final_share: float) -> None:
    """The warm-up uses its scheduler, RL ours: beyond the rise, which of theirs begins with a step
    that moves nothing, the recipe's words mean the same in both."""
    optimizer = Optimizer(learning_rate=3e-5, warmup_steps=warmup_steps, final_share=final_share)
    rl = make_rl(iterations=5, optimizer=optimizer)
    theirs = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=3e-5)
    schedule = get_scheduler(
        "cosine_with_min_lr",
        theirs,
        num_warmup_steps=warmup_steps,
        num_training_steps=20,
        scheduler_specific_kwargs={"min_lr_rate": final_share},
    )
    ours = [rate for iteration in range(5) for rate in learning_rates(rl, iteration, 5, 4)]
    assert len(ours) == 20
    for step, rate in enumerate(ours):
        if step >= warmup_steps:
            assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        theirs.step()
        schedule.step()


def test_a_rise_does_not_begin_with_nothing() -> None:
    optimizer = Optimizer(learning_rate=0.1, warmup_steps=3)
    rates = [optimizer.rate(step, 10) for step in range(5)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


def make_rl(iterations: int, optimizer: Optimizer, **more: Any) -> RL:
    """Four steps of 16 responses an iteration."""
    return RL.model_validate(
        {"iterations": iterations, "problems_per_iteration": 8, "tau": 0.1, "optimizer": optimizer}
        | more
    )


class Steps(Learner):
    """A learner without ranks, whose gradients have these norms."""

    def __init__(self, *norms: float) -> None:
        self.norms, self.not_finite, self.actors, self.taken = [*norms], 0, [], []

    def _begin_iteration(self, minibatches: Any) -> None: ...

    def _wait(self, calls: list, what: str) -> list:
        return []

    def _step(self, index: int, conversations: Any, rate: float, tau: float) -> dict[str, float]:
        self.taken.append((index, rate, tau))
        return {"grad_norm": self.norms.pop(0)}


def test_steps_go_over_the_minibatches_again() -> None:
    learner = Steps(1.0, 2.0, 3.0, 4.0)
    steps = learner.train([[], []], [0.1, 0.2, 0.3, 0.4], 0.5)
    assert learner.taken == [(0, 0.1, 0.5), (1, 0.2, 0.5), (0, 0.3, 0.5), (1, 0.4, 0.5)]
    assert [one["grad_norm"] for one in steps] == [1.0, 2.0, 3.0, 4.0]


def test_steps_that_are_not_finite_are_left_out_until_they_are_too_many() -> None:
    """In a row, over iterations too."""
    odd = math.nan
    learner = Steps(odd, 1.0, odd, odd, 1.0, math.inf, odd, odd)
    assert [one["grad_norm"] for one in learner.train([[]] * 4, [0.1] * 4, 0.5)] == [1.0]
    assert len(learner.train([[]] * 3, [0.1] * 3, 0.5)) == 1
    with pytest.raises(FloatingPointError, match="in 3 optimizer steps in a row"):
        learner.train([[]], [0.1], 0.5)


def test_a_longer_run_keeps_the_rates_of_its_plan() -> None:
    optimizer = Optimizer(learning_rate=0.1, final_share=0.1)
    longer = make_rl(9, optimizer)
    before = [learning_rates(longer, iteration, 5, 4) for iteration in range(5)]
    assert before == [
        [optimizer.rate(4 * iteration + i, 20) for i in range(4)] for iteration in range(5)
    ]
    assert learning_rates(longer, 8, 5, 4) == pytest.approx([0.01] * 4)


def test_rates_follow_the_plan_whatever_steps_an_iteration_has() -> None:
    """Fewer, for want of responses, or more, of responses that were begun before; twice as many
    with two epochs."""
    optimizer = Optimizer(learning_rate=0.1, final_share=0.1)
    rl = make_rl(5, optimizer)
    planned = learning_rates(rl, 2, 5, 4)
    assert learning_rates(rl, 2, 5, 1) == planned[:1]
    assert learning_rates(rl, 2, 5, 6) == [*planned, planned[-1], planned[-1]]
    twice = make_rl(5, optimizer, epochs=2)
    assert learning_rates(twice, 2, 5, 8) == [optimizer.rate(16 + i, 40) for i in range(8)]


def test_tau_runs_its_course() -> None:
    rl = make_rl(5, Optimizer(learning_rate=0.1), tau=[0.8, 0.05])
    assert [rl.tau_at(i, 5) for i in range(6)] == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.05, 0.05])
    still = make_rl(5, Optimizer(learning_rate=0.1))
    assert [still.tau_at(i, 5) for i in (0, 4, 9)] == [0.1] * 3
    assert still.tau_at(0, 1) == 0.1


class Saving:
    """A session and a learner that note what is saved."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.saved = RunFolder(folder), RunState(), list[str]()
        self.reporter = SimpleNamespace(event=lambda *given, **details: None)
        self.state.register("self", self)
        self.now = 0

    def state_dict(self) -> dict[str, int]:
        return {"now": self.now}

    def load_state_dict(self, state: dict[str, int]) -> None: ...

    def save(self, folder: str) -> None:
        self.saved.append(folder)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RolloutError("none is left")])
@pytest.mark.parametrize(("where", "is_saved"), [("sampling", True), ("learning", False)])
def test_a_stopped_run_saves_the_policy_it_holds(
    tmp_path: Path, error: BaseException, where: str, is_saved: bool
) -> None:
    one = Saving(tmp_path)

    def is_stopped() -> None:
        with LastPolicy(one, one) as last:  # pyright: ignore[reportArgumentType]
            one.now = 3
            last.keep(3)
            one.now = 99  # of the iteration that is cut short
            if where == "learning":
                last.drop()
            raise error

    with pytest.raises(type(error)):
        is_stopped()
    position = find_position(RunFolder(tmp_path))
    assert bool(position) == bool(one.saved) == is_saved
    if position:
        assert (position.iteration, position.state) == (3, {"self": {"now": 3}})


def test_what_is_saved_already_is_not_saved_again(tmp_path: Path) -> None:
    one = Saving(tmp_path)
    one.folder.rl_checkpoint(3).mkdir(parents=True)
    last = LastPolicy(one, one)  # pyright: ignore[reportArgumentType]
    last.keep(3)
    last.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert one.saved == []
