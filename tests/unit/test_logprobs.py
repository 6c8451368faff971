import pytest
import torch
import torch.nn.functional as F
from allocations import Allocations

from thinking_rl.model.kernels import logprobs
from thinking_rl.model.kernels.logprobs import token_logprobs


def inputs(tokens, vocabulary, hidden=16, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(tokens, hidden, generator=generator)
    weight = torch.randn(vocabulary, hidden, generator=generator)
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    factor = torch.randn(tokens, generator=generator)
    states, weight = (x.to(dtype).requires_grad_() for x in (states, weight))
    return states, weight, targets, factor


def plain(states, weight, targets, temperature=1.0):
    """Log-probs and entropies of stored logits, in float64."""
    table = (F.linear(states.double(), weight.double()) / temperature).log_softmax(-1)
    return table.gather(1, targets[:, None])[:, 0], -(table.exp() * table).sum(-1)


def gradients(values, factor, *wanted):
    return torch.autograd.grad((values * factor).sum(), wanted)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(logprobs, "TOKENS", 7)
    monkeypatch.setattr(logprobs, "VOCABULARY", 11)


@pytest.mark.parametrize(
    ("tokens", "vocabulary"), [(1, 1), (1, 30), (7, 11), (20, 33), (23, 45), (5, 4), (0, 30)]
)
@pytest.mark.parametrize(("scale", "temperature"), [(1.0, 1.0), (30.0, 1.0), (1.0, 0.6)])
def test_values_and_gradients_equal_stored_logits(tokens, vocabulary, scale, temperature):
    states, weight, targets, factor = inputs(tokens, vocabulary)
    with torch.no_grad():
        weight *= scale  # logits in the hundreds: no exponential may overflow
    measured, entropy = token_logprobs(
        states, weight, targets, with_entropy=True, temperature=temperature
    )
    expected, spread = plain(states, weight, targets, temperature)
    assert measured.dtype == entropy.dtype == torch.float32
    assert not entropy.requires_grad
    torch.testing.assert_close(measured.double(), expected, rtol=1e-5, atol=1e-5 * scale)
    torch.testing.assert_close(entropy.double(), spread, rtol=1e-5, atol=1e-5 * scale)
    ours = gradients(measured, factor, states, weight)
    for mine, theirs in zip(ours, gradients(expected, factor, states, weight), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * scale)


def test_no_entropy_where_none_is_wanted():
    states, weight, targets, _ = inputs(20, 33)
    values, entropy = token_logprobs(states, weight, targets)
    assert entropy.shape == (0,)
    assert (values == token_logprobs(states, weight, targets, with_entropy=True)[0]).all()


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_costs_no_gradient(frozen):
    made = inputs(20, 33)
    made[frozen].requires_grad_(False)
    values, _ = token_logprobs(*made[:3])
    (values * made[3]).sum().backward()
    assert made[frozen].grad is None
    expected = gradients(plain(*made[:3])[0], made[3], made[1 - frozen])[0]
    torch.testing.assert_close(made[1 - frozen].grad, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_rounds_each_gradient_once():
    """Sums over many blocks are of float32: the result is the exact one, rounded."""
    states, weight, targets, factor = inputs(300, 64, dtype=torch.bfloat16)
    values, _ = token_logprobs(states, weight, targets)
    expected, _ = plain(states, weight, targets)
    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-5)
    ours = gradients(values, factor, states, weight)
    theirs = gradients(expected, factor, states, weight)
    for mine, exact in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.bfloat16
        error = (mine.double() - exact.double()).norm() / exact.double().norm()
        assert error < 2**-8


def test_logits_are_never_stored(monkeypatch):
    """No tensor is larger than an input, or than a block."""
    monkeypatch.setattr(logprobs, "TOKENS", 16)
    monkeypatch.setattr(logprobs, "VOCABULARY", 32)
    states, weight, targets, factor = inputs(128, 256, hidden=8)
    with Allocations() as made:
        values, _ = token_logprobs(states, weight, targets, with_entropy=True)
        (values * factor).sum().backward()
    assert weight.grad is not None
    assert made.largest == 256 * 8


def test_two_rows_add_up():
    """A step's gradient of the head is the sum over its rows."""
    states, weight, targets, factor = inputs(40, 33)
    whole = gradients(token_logprobs(states, weight, targets)[0], factor, weight)[0]
    for half in (slice(0, 25), slice(25, 40)):
        values, _ = token_logprobs(states[half], weight, targets[half])
        (values * factor[half]).sum().backward()
    torch.testing.assert_close(weight.grad, whole, rtol=1e-5, atol=1e-5)
