"""A learner's other losses and optimizers: the same on one rank and on two."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import ranks
import torch
import torch.distributed as dist
from conversations import IMAGES, assorted, make
from steps import NATS, OF_NORM, apart
from torch.distributed.tensor import DTensor

from thinking_rl.learner.build import LearnerSettings
from thinking_rl.learner.packing import pack_row
from thinking_rl.learner.rank import Rank
from thinking_rl.model.configuration import KimiVLConfig

RATE = 1e-3
OTHERWISE = {
    "token": {
        "form": "token",
        "normalisation": "tokens",
        "ratio_band": (0.5, 2.0),
    },
    "response_length": {"normalisation": "response_length", "temperature": 0.6},
    "muon": {"optimizer": "muon", "reset_optimizer": False},
}
APART = {
    "token": 0.002 * RATE,
    "response_length": 0.002 * RATE,
    # Gradients whose sums are in another order are rounded to bfloat16 on the way to an update,
    # of 0.2 * RATE; a rank that updates its own rows alone is 0.1 * RATE off.
    "muon": 0.02 * RATE,
}


def minibatches(config: KimiVLConfig) -> list[list]:
    """Two steps; every token has an engine's log-prob, some far from the learner's."""
    a, b, c, d, e = assorted(config)
    f = make(config, 6, 17, advantage=-0.75)

    def sampled(one):
        tokens = sum(one.loss_mask)
        far = [-5.3 + 3.0 * (place % 3 == 0) for place in range(tokens)]
        return replace(one, logprobs=tuple(far))

    return [[sampled(one) for one in part] for part in ([a, b, c, d, e, f], [c, d, b, f])]


def train(rank, world_size, settings, rendezvous, folder):
    """Two passes over both minibatches: metrics, weights; and after a checkpoint, a third."""
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    learner = Rank(settings, rank, world_size, rendezvous)
    batches = minibatches(config)
    rows = [[pack_row([one]) for one in part[rank::world_size]] for part in batches]

    def steps():
        learner.begin_iteration(rows, IMAGES)
        made = []
        for index in (0, 1, 0, 1):
            tokens = sum(sum(one.loss_mask) for one in batches[index])
            made.append(learner.step(index, len(batches[index]), tokens))
        return made

    first = steps()
    weights = {
        name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone().numpy()
        for name, t in learner.model.state_dict().items()
    }
    learner.save(folder)
    second = steps()
    learner.load(folder)
    again = steps()
    dist.destroy_process_group()
    return first, weights, second, again


@pytest.fixture(scope="module")
def answers(tiny_checkpoint, tmp_path_factory):
    """What each of the settings gives on one rank, and on two."""
    plain = LearnerSettings(str(tiny_checkpoint), learning_rate=RATE, tau=0.3, timeout_s=60)
    found = {}
    for name, values in OTHERWISE.items():
        for world_size in (1, 2):
            folder = tmp_path_factory.mktemp(f"{name}{world_size}")
            meet = f"file://{folder}/meet"
            settings = replace(plain, **values)
            found[name, world_size] = ranks.run(train, world_size, settings, meet, folder / "saved")
    return found


@pytest.mark.parametrize("name", OTHERWISE)
def test_two_ranks_equal_one(answers, name):
    [(one, expected, _, _)], two = answers[name, 1], answers[name, 2]
    for steps, weights, _, _ in two:
        for step, other in zip(steps, one, strict=True):
            assert step["grad_norm"] == pytest.approx(other["grad_norm"], rel=20 * OF_NORM)
            for metric in ("loss", "policy_loss", "regularizer", "entropy", "kl", "mismatch"):
                assert step[metric] == pytest.approx(other[metric], abs=10 * NATS), metric
            assert step["compared"] == other["compared"]
        difference, where = apart(weights, expected)
        assert difference < APART[name], where


@pytest.mark.parametrize("name", OTHERWISE)
def test_the_reference_stays_over_epochs(answers, name):
    [(steps, _, _, _)] = answers[name, 1]
    assert steps[0]["kl"] == 0
    assert steps[1]["kl"] > 0
    assert steps[2]["kl"] > 0  # the first minibatch again: its reference is from before its step
    assert steps[0]["loss"] == pytest.approx(steps[0]["policy_loss"])
    assert steps[2]["loss"] == pytest.approx(steps[2]["policy_loss"] + steps[2]["regularizer"])


@pytest.mark.parametrize("world_size", [1, 2])
def test_muon_goes_on_from_a_checkpoint(answers, world_size):
    for _, _, second, again in answers["muon", world_size]:
        for step, other in zip(again, second, strict=True):
            assert step["loss"] == pytest.approx(other["loss"], abs=NATS)
            assert step["grad_norm"] == pytest.approx(other["grad_norm"], rel=OF_NORM)


def test_tokens_outside_the_band_are_counted(answers):
    """The random model gives each of its tokens about -5.3: a third is far outside."""
    [(steps, _, _, _)] = answers["token", 1]
    assert steps[0]["masked"] == pytest.approx(steps[0]["compared"] / 3, rel=0.2)
    assert steps[0]["mismatch"] / steps[0]["compared"] == pytest.approx(1.0, abs=0.3)


def test_an_engine_is_not_compared_at_another_temperature(answers):
    [(steps, _, _, _)] = answers["response_length", 1]
    assert steps[0]["compared"] == 0


def scored(rank, world_size, settings, rendezvous):
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    learner = Rank(settings, rank, world_size, rendezvous)
    row = pack_row([make(config, 1, 12)])
    logits = learner.model(input_ids=row.input_ids[None]).logits[0].detach()
    at = learner.scores([row], IMAGES, settings.temperature), learner.scores([row], IMAGES)[0]
    dist.destroy_process_group()
    return logits.numpy(), row.positions.numpy(), row.input_ids.numpy(), at


def test_the_policy_is_that_of_the_temperature(tiny_checkpoint, tmp_path):
    settings = LearnerSettings(str(tiny_checkpoint), learning_rate=RATE, tau=0.3, temperature=0.6)
    [(logits, positions, ids, scores)] = ranks.run(scored, 1, settings, f"file://{tmp_path}/meet")
    ([policy], [entropy]), [model] = scores
    rows = torch.tensor(logits)[positions - 1]
    for values, temperature in ((policy, 0.6), (model, 1.0)):
        table = (rows / temperature).log_softmax(-1)
        expected = table.gather(1, torch.tensor(ids[positions])[:, None])[:, 0]
        torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)
        if temperature == 0.6:
            spread = -(table.exp() * table).sum(-1)
            torch.testing.assert_close(entropy, spread, atol=1e-4, rtol=0)
            assert spread.max() < math.log(table.shape[1])
