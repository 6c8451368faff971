import math

import pytest
import torch

from thinking_rl.algorithm.loss import mirror_descent_loss

TAU = 0.2
L = torch.tensor([-0.5, -1.0, -0.2, -0.7, -1.5], dtype=torch.float64)
O = torch.tensor([-0.6, -0.8, -0.1, -0.9, -1.2], dtype=torch.float64)  # noqa: E741
A = torch.tensor([0.5, -0.5], dtype=torch.float64)
IDS = torch.tensor([0, 0, 1, 1, 1])


def loss_and_gradient(logprobs=L, reference=O, advantages=A, seq_ids=IDS, **options):
    logprobs = logprobs.clone().requires_grad_()
    options = {"num_sequences": 2, "tau": TAU} | options
    output = mirror_descent_loss(logprobs, reference, advantages, seq_ids, **options)
    (gradient,) = torch.autograd.grad(output.loss, logprobs)
    return output, gradient


@pytest.mark.parametrize(
    ("options", "loss", "gradient"),
    [
        ({}, -0.2225, [-0.26, -0.26, 0.23, 0.23, 0.23]),
        ({"form": "token", "num_tokens": 5}, -0.0862, [-0.096, -0.108, 0.096, 0.108, 0.088]),
    ],
)
def test_worked_example(options, loss, gradient):
    output, measured = loss_and_gradient(**options)
    assert output.loss.item() == pytest.approx(loss, abs=1e-12)
    assert measured.tolist() == pytest.approx(gradient, abs=1e-12)


def test_metrics_are_detached_sums():
    metrics = loss_and_gradient()[0].metrics
    deltas = (0.1, -0.2, -0.1, 0.2, -0.3)
    expected = {
        "log_ratio": -0.3,
        "log_ratio_abs": 0.3,
        "kl": sum(math.exp(d) - 1 - d for d in deltas),
        "policy_loss": 0.75 - 1.2,
        "regularizer": 0.001 + 0.004,
    }
    assert not any(value.requires_grad for value in metrics.values())
    assert {k: v.item() for k, v in metrics.items()} == pytest.approx(expected, abs=1e-12)


def test_regularizer_has_the_half():
    output, gradient = loss_and_gradient(advantages=torch.zeros(2))
    assert output.loss.item() == pytest.approx(TAU / 2 * (0.1**2 + 0.2**2) / 2, abs=1e-12)
    assert gradient.tolist() == pytest.approx([TAU * -0.1 / 2] * 2 + [TAU * -0.2 / 2] * 3)


@pytest.mark.parametrize("options", [{}, {"form": "token", "num_tokens": 5}])
def test_gradcheck(options):
    def loss(logprobs):
        return mirror_descent_loss(logprobs, O, A, IDS, 2, TAU, **options).loss

    assert torch.autograd.gradcheck(loss, L.clone().requires_grad_())


@pytest.mark.parametrize("options", [{}, {"form": "token", "num_tokens": 700}])
def test_micro_batches_add_up(options):
    """Any split of the responses, in float32, gives the loss and gradients of the whole."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([1, 300, 7, 200, 92, 100])
    seq_ids = torch.arange(6).repeat_interleave(lengths)
    logprobs = -torch.rand(700, generator=generator)
    reference = logprobs + 0.1 * torch.randn(700, generator=generator)
    advantages = torch.randn(6, generator=generator)
    whole, gradient = loss_and_gradient(
        logprobs, reference, advantages, seq_ids, num_sequences=6, **options
    )

    total, sums = 0.0, dict.fromkeys(whole.metrics, 0.0)
    for first, last in [(0, 1), (1, 4), (4, 4), (4, 6)]:
        mine = (seq_ids >= first) & (seq_ids < last)
        part, part_gradient = loss_and_gradient(
            logprobs[mine],
            reference[mine],
            advantages[first:last],
            seq_ids[mine] - first,
            num_sequences=6,
            **options,
        )
        assert torch.equal(part_gradient, gradient[mine])
        total += part.loss.item()
        sums = {name: value + part.metrics[name].item() for name, value in sums.items()}
    assert total == pytest.approx(whole.loss.item(), abs=1e-12)
    assert sums == pytest.approx({k: v.item() for k, v in whole.metrics.items()}, abs=1e-10)


def test_interleaved_and_masked_tokens():
    """Neither the order of the tokens nor what the mask hides changes anything."""
    order = torch.tensor([4, 0, 2, 1, 3])
    _, gradient = loss_and_gradient()
    output, shuffled = loss_and_gradient(L[order], O[order], A, IDS[order])
    assert output.loss.item() == pytest.approx(-0.2225, abs=1e-12)
    assert shuffled.tolist() == pytest.approx(gradient[order].tolist(), abs=1e-15)

    mask = torch.tensor([False, True, True, True, False, True, True])
    hole = torch.tensor([math.nan, -math.inf], dtype=torch.float64)
    logprobs, reference = (torch.cat([hole[:1], x[:3], hole[1:], x[3:]]) for x in (L, O))
    seq_ids = torch.tensor([-1, 0, 0, 1, 99, 1, 1])
    output, masked = loss_and_gradient(logprobs, reference, A, seq_ids, mask=mask)
    assert output.loss.item() == pytest.approx(-0.2225, abs=1e-12)
    assert torch.equal(masked[mask], gradient)
    assert masked[~mask].tolist() == [0.0, 0.0]


def test_descends_along_equation_3():
    """-dL/dtheta equals eq. 3, written out with the softmax's analytic score function."""
    k, steps, vocabulary, tau = 4, 5, 7, 0.3
    generator = torch.Generator().manual_seed(1)
    theta, theta_i = torch.randn(2, steps, vocabulary, dtype=torch.float64, generator=generator)
    responses = torch.randint(vocabulary, (k, steps), generator=generator)
    rewards = [1.0, 0.0, 0.0, 1.0]

    def probabilities(parameters):
        return [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in parameters.tolist()]

    p, p_i = probabilities(theta), probabilities(theta_i)
    direction = [[0.0] * vocabulary for _ in range(steps)]
    for response, reward in zip(responses.tolist(), rewards, strict=True):
        ratio = math.prod(p[t][y] / p_i[t][y] for t, y in enumerate(response))
        for t, y in enumerate(response):
            for v in range(vocabulary):
                score = (v == y) - p[t][v]  # d log pi(response) / d theta[t, v]
                gradient_of_square = 2 * math.log(ratio) * score
                direction[t][v] += (
                    score * (reward - sum(rewards) / k) - tau / 2 * gradient_of_square
                ) / k

    theta.requires_grad_()
    rows = torch.arange(steps)
    picked = torch.cat([theta.log_softmax(-1)[rows, response] for response in responses])
    reference = torch.cat([theta_i.log_softmax(-1)[rows, response] for response in responses])
    seq_ids = torch.arange(k).repeat_interleave(steps)
    advantages = torch.tensor(rewards) - 0.5
    loss = mirror_descent_loss(picked, reference, advantages, seq_ids, k, tau).loss
    (gradient,) = torch.autograd.grad(loss, theta)
    torch.testing.assert_close(-gradient, torch.tensor(direction, dtype=torch.float64))


def test_reference_gets_no_gradient_and_low_precision_is_summed_in_full():
    reference = O.clone().requires_grad_()
    mirror_descent_loss(L.clone().requires_grad_(), reference, A, IDS, 2, TAU).loss.backward()
    assert reference.grad is None

    tokens = 100_000  # a float32 running sum of 0.1 is visibly off by then
    logprobs, zeros = torch.full((tokens,), -0.1), torch.zeros(tokens)
    output = mirror_descent_loss(logprobs, zeros, torch.ones(1), zeros.long(), 1, TAU)
    assert output.metrics["log_ratio"].item() == pytest.approx(-0.1 * tokens, rel=1e-7)
    assert output.metrics["policy_loss"].item() == pytest.approx(0.1 * tokens, rel=1e-7)


def test_empty_micro_batch_can_be_stepped_through():
    empty = torch.zeros(0)
    output, gradient = loss_and_gradient(empty, empty, empty, torch.zeros(0, dtype=torch.long))
    assert output.loss.item() == 0.0
    assert gradient.shape == (0,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "tokens"}, "'tokens' is unknown; choose one of sequence, token"),
        ({"form": "token"}, "'token' divides by a global count, which is None"),
        ({"num_sequences": 0}, "'sequence' divides by a global count, which is 0"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        loss_and_gradient(**options)
