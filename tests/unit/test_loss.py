import math

import pytest
import torch

from thinking_rl.algorithm.advantage import baseline, mean_baseline
from thinking_rl.algorithm.loss import inside_band, mirror_descent_loss
from thinking_rl.recipe.rl import Loss

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


# Loss and gradient by hand from the numbers above.
GOLDEN = [
    ("token", "tokens", -0.0862, [-0.096, -0.108, 0.096, 0.108, 0.088]),
    ("token", "sequences", -0.2155, [-0.24, -0.27, 0.24, 0.27, 0.22]),
    ("token", "response_length", -0.0089166667, [-0.12, -0.135, 0.08, 0.09, 0.22 / 3]),
    ("sequence", "tokens", -0.0890, [-0.104, -0.104, 0.092, 0.092, 0.092]),
    ("sequence", "sequences", -0.2225, [-0.26, -0.26, 0.23, 0.23, 0.23]),
    ("sequence", "response_length", -0.0115833333, [-0.13, -0.13, 0.23 / 3, 0.23 / 3, 0.23 / 3]),
]
OPTIONS = [{"form": form, "normalisation": name, "num_tokens": 5} for form, name, *_ in GOLDEN]


@pytest.mark.parametrize(("form", "normalisation", "loss", "gradient"), GOLDEN)
def test_worked_example(form, normalisation, loss, gradient):
    output, measured = loss_and_gradient(form=form, normalisation=normalisation, num_tokens=5)
    assert output.loss.item() == pytest.approx(loss, abs=1e-10)
    assert measured.tolist() == pytest.approx(gradient, abs=1e-12)
    terms = output.metrics["policy_loss"] + output.metrics["regularizer"]
    assert terms.item() == pytest.approx(loss, abs=1e-10)


@pytest.mark.parametrize(
    ("preset", "tau", "loss", "gradient"),
    [
        # Eq. 3 of Kimi k1.5.
        ("k1.5", 0.2, -0.2225, [-0.26, -0.26, 0.23, 0.23, 0.23]),
        # Kimi K2.5 has no half: its tau of 0.1 is 0.2 here.
        ("k2.5", 0.2, -0.0862, [-0.096, -0.108, 0.096, 0.108, 0.088]),
    ],
)
def test_presets(preset, tau, loss, gradient):
    chosen = Loss(preset=preset)
    options = {"form": chosen.form, "normalisation": chosen.normalisation, "num_tokens": 5}
    output, measured = loss_and_gradient(tau=tau, **options)
    assert output.loss.item() == pytest.approx(loss, abs=1e-12)
    assert measured.tolist() == pytest.approx(gradient, abs=1e-12)
    assert mean_baseline([1.0, 0.0]) == baseline([1.0, 0.0], chosen.baseline, tau) == [0.5, -0.5]


def test_openkimi_is_the_sequence_form_by_response_length():
    """0.5 * tau * (A / tau - D)^2 / n differs from it by what has no gradient."""
    output, gradient = loss_and_gradient(normalisation="response_length")
    logprobs = L.clone().requires_grad_()
    lengths = torch.tensor([2, 3])
    log_ratios = torch.stack([(logprobs - O)[:2].sum(), (logprobs - O)[2:].sum()])
    theirs = (TAU / 2 * (A / TAU - log_ratios) ** 2 / lengths).mean()
    assert theirs.item() == pytest.approx(0.2571667, abs=1e-7)
    (expected,) = torch.autograd.grad(theirs, logprobs)
    torch.testing.assert_close(gradient, expected)
    references = torch.stack([O[:2].sum(), O[2:].sum()])
    constant = ((A**2 / (2 * TAU) + A * references) / lengths).mean()
    assert (output.loss + constant).item() == pytest.approx(0.2571667, abs=1e-7)


def test_a_token_outside_the_band_has_no_policy_gradient():
    """Whatever the sign of its advantage; its regulariser stays."""
    sampled = torch.tensor([-0.5, -1.9, -1.2, -0.7, math.nan], dtype=torch.float64)
    inside = inside_band(L, sampled, (0.5, 2.0))
    assert inside.tolist() == [True, False, False, True, True]  # ratios 1, 2.46, 2.72, 1, unknown
    assert inside_band(L, L + 1.0, (0.5, 2.0)).tolist() == [False] * 5  # 0.37
    output, gradient = loss_and_gradient(
        form="token", normalisation="tokens", num_tokens=5, weights=inside.double()
    )
    assert output.loss.item() == pytest.approx((0.25 - 0.35 - 0.75 + 0.1 * 0.19) / 5, abs=1e-12)
    assert gradient.tolist() == pytest.approx([-0.096, -0.008, -0.004, 0.108, 0.088], abs=1e-12)


@pytest.mark.parametrize("options", OPTIONS)
def test_without_advantage_or_distance_there_is_exactly_nothing(options):
    """Equal rewards at the reference: no loss and no gradient, in float32 too."""
    logprobs = L.float()
    output, gradient = loss_and_gradient(logprobs, logprobs, torch.zeros(2), **options)
    assert output.loss.item() == 0.0
    assert gradient.tolist() == [0.0] * 5


def test_metrics_are_detached_sums():
    metrics = loss_and_gradient()[0].metrics
    deltas = (0.1, -0.2, -0.1, 0.2, -0.3)
    expected = {
        "log_ratio": -0.3,
        "log_ratio_abs": 0.3,
        "kl": sum(math.exp(d) - 1 - d for d in deltas),
        "policy_loss": (0.75 - 1.2) / 2,
        "regularizer": (0.001 + 0.004) / 2,
    }
    assert not any(value.requires_grad for value in metrics.values())
    assert {k: v.item() for k, v in metrics.items()} == pytest.approx(expected, abs=1e-12)


def test_regularizer_has_the_half():
    output, gradient = loss_and_gradient(advantages=torch.zeros(2))
    assert output.loss.item() == pytest.approx(TAU / 2 * (0.1**2 + 0.2**2) / 2, abs=1e-12)
    assert gradient.tolist() == pytest.approx([TAU * -0.1 / 2] * 2 + [TAU * -0.2 / 2] * 3)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradcheck(options):
    def loss(logprobs):
        return mirror_descent_loss(logprobs, O, A, IDS, 2, TAU, **options).loss

    assert torch.autograd.gradcheck(loss, L.clone().requires_grad_())


@pytest.mark.parametrize("options", [one | {"num_tokens": 700} for one in OPTIONS])
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
        ({"form": "tokens"}, "form 'tokens' is unknown .did you mean 'token'"),
        ({"normalisation": "mean"}, "normalisation 'mean' is unknown; one of sequences, tokens"),
        ({"normalisation": "tokens"}, "'tokens' divides by a count, which is None"),
        ({"num_sequences": 0}, "'sequences' divides by a count, which is 0"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        loss_and_gradient(**options)
