"""Tokens of older policies: what enters the loss, with which reference and weight."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from thinking_rl.algorithm.loss import importance_weights, mirror_descent_loss
from thinking_rl.algorithm.staleness import ages, set_references
from thinking_rl.learner.packing import pack_row
from thinking_rl.types import Conversation

OLD_FIRST = Conversation(
    token_ids=(9, 9, 1, 2, 3),
    loss_mask=(False, False, True, True, True),
    advantage=-0.5,
    logprobs=(-0.1, -0.9, -1.2),
    policy_versions=(3, 4, 4),
)


def test_an_older_segment_leaves_both_terms() -> None:
    """The worked example: the first token of the second response is of an older policy."""
    logprobs = torch.tensor([-0.5, -1.0, -0.2, -0.7, -1.5], dtype=torch.float64).requires_grad_()
    reference = torch.tensor([-0.6, -0.8, -0.1, -0.9, -1.2], dtype=torch.float64)
    advantages = torch.tensor([0.5, -0.5], dtype=torch.float64)
    mask = torch.tensor([True, True, False, True, True])
    ids = torch.tensor([0, 0, 1, 1, 1])
    output = mirror_descent_loss(logprobs, reference, advantages, ids, 2, 0.2, mask=mask)
    (gradient,) = torch.autograd.grad(output.loss, logprobs)
    assert output.loss.item() == pytest.approx(-0.174, abs=1e-12)
    assert gradient.tolist() == pytest.approx([-0.26, -0.26, 0, 0.24, 0.24], abs=1e-12)


def test_left_out_tokens_are_in_no_row() -> None:
    kept = set_references(OLD_FIRST, version=4, oldest=4)
    assert kept.loss_mask == (False, False, False, True, True)
    assert (kept.logprobs, kept.policy_versions) == ((-0.9, -1.2), (4, 4))
    row = pack_row([kept])
    assert row.positions.tolist() == [3, 4]
    assert row.references.isnan().all()


def test_tokens_that_stay_refer_to_who_sampled_them() -> None:
    kept = set_references(OLD_FIRST, version=4, oldest=3)
    assert kept.loss_mask == OLD_FIRST.loss_mask
    row = pack_row([kept])
    assert row.references[0].item() == pytest.approx(-0.1)
    assert row.references[1:].isnan().all()
    assert ages([kept], version=5) == {2: 1, 1: 2}


def test_references_stand_beside_their_tokens_where_prompts_are_shared() -> None:
    """Whoever has an older segment left out goes on from another prompt than the others."""
    other = replace(OLD_FIRST, token_ids=(9, 9, 4, 5, 6), logprobs=(-0.2, -0.3, -0.4))
    for oldest in (3, 4):
        given = [set_references(one, 4, oldest) for one in (OLD_FIRST, other, OLD_FIRST)]
        expected = [
            (token, reference)
            for one in given
            for token, reference in zip(
                [token for token, own in zip(one.token_ids, one.loss_mask, strict=True) if own],
                one.references,
                strict=True,
            )
        ]
        for once in (False, True):
            row = pack_row(given, prompt_once=once)
            tokens = row.input_ids[row.positions].tolist()
            assert tokens == [token for token, _ in expected]
            assert row.references.tolist() == pytest.approx(
                [reference for _, reference in expected], nan_ok=True
            )


def test_importance_weights_are_truncated() -> None:
    weights = importance_weights(
        torch.tensor([-1.0, -1.0, -3.0]), torch.tensor([-1.0, -3.0, -1.0]), 2.0
    )
    assert weights.tolist() == pytest.approx([1.0, 2.0, math.exp(-2)])


def test_weights_stand_on_the_policy_term_alone() -> None:
    logprobs = torch.tensor([-0.5, -1.0], dtype=torch.float64).requires_grad_()
    reference, ids = torch.tensor([-0.5, -1.2]), torch.tensor([0, 0])
    weights, advantage = torch.tensor([1.0, 2.0]), torch.tensor([0.5])
    output = mirror_descent_loss(logprobs, reference, advantage, ids, 1, 0.2, weights=weights)
    assert output.loss.item() == pytest.approx(0.5 * (0.5 + 2.0) + 0.1 * 0.2**2)
    (gradient,) = torch.autograd.grad(output.loss, logprobs)
    assert gradient.tolist() == pytest.approx([-0.5 + 0.04, -1.0 + 0.04])
