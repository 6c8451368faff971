"""Sampled tokens beside the entropy of what they should be drawn from."""

from __future__ import annotations

import math

import pytest
import torch
from groups import make_group

from thinking_rl.algorithm.calibration import kl_divergence, one_of_each, reason, surprise


def sampled(temperature: float, top_p: float, seed: int, tokens: int = 4000, scale: float = 1.0):
    """Log-probs and entropies, under a policy at `scale`, of tokens drawn from its distributions at
    another temperature, or only from the likeliest."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(tokens, 50, generator=generator, dtype=torch.float64)
    drawn_from = (logits / temperature).softmax(-1)
    ordered, places = drawn_from.sort(descending=True)
    ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
    drawn = places.gather(1, torch.multinomial(ordered, 1, generator=generator))
    policy = (logits / scale).log_softmax(-1)
    entropy = -(policy.exp() * policy).sum(-1)
    values = policy.gather(1, drawn)[:, 0]
    return list(zip(values.split(40), entropy.split(40), strict=True))


def test_samples_of_the_policy_are_as_surprising_as_they_should_be() -> None:
    found = [surprise(sampled(1.0, 1.0, seed)) for seed in range(40)]
    zs = torch.tensor([one.z for one in found])
    assert zs.abs().max() < 4
    assert 0.6 < zs.std() < 1.5  # a standard normal
    assert all(reason(one, 1.0) is None for one in found)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.6, 1.0), (1.0, 0.7), (1.5, 1.0)])
def test_samples_of_another_distribution_are_found(temperature: float, top_p: float) -> None:
    found = surprise(sampled(temperature, top_p, seed=0))
    assert abs(found.z) > 10
    assert (found.z < 0) == (found.gap < 0) == (temperature <= 1)
    said = reason(found, 1.0)
    assert said
    assert ("are likelier" if temperature <= 1 else "less likely") in said
    assert "temperature 1;" in said


def test_a_policy_scaled_to_the_temperature_has_no_gap() -> None:
    assert abs(surprise(sampled(0.6, 1.0, seed=1, scale=0.6)).z) < 3


def test_certain_or_no_tokens_have_no_gap() -> None:
    assert surprise([]) == (0.0, 0.0, 0)
    assert surprise([(torch.zeros(3), torch.zeros(3))]) == (0.0, 0.0, 3)


def test_kl_is_that_between_the_policies() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    drawn = torch.multinomial(p, 200_000, replacement=True, generator=generator)
    exact = float((p * (p / q).log()).sum())
    assert kl_divergence([p[drawn].log()], [q[drawn].log()]) == pytest.approx(exact, rel=0.03)
    assert kl_divergence([p.log()], [p.log()]) == 0.0
    assert math.isnan(kl_divergence([], []))


def test_one_response_of_every_group_is_looked_at() -> None:
    groups = [make_group(f"p{n}", "R2", "W3", "F4") for n in range(50)]
    chosen = one_of_each(groups, version=1, seed="a")  # the last token is of policy 1
    assert [one.problem_id for one in chosen] == [f"p{n}" for n in range(50)]
    assert {len(one.token_ids) for one in chosen} == {3, 4, 5}
    assert {sum(one.loss_mask) for one in chosen} == {1}
    assert one_of_each(groups, version=1, seed="a") == chosen
    assert one_of_each(groups, version=1, seed="b") != chosen
    assert one_of_each(groups, version=2, seed="a") == []
