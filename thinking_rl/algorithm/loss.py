"""Policy mirror-descent losses as pure functions on packed tokens.

Kimi k1.5 (arXiv 2501.12599) section 2.3.2, eq. 3: the policy that sampled an iteration's
responses is the reference; the loss rewards advantage and charges the squared log-ratio between
policy and reference. Needs torch alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from thinking_rl.names import did_you_mean

FORMS = ("sequence", "token")
NORMALISATIONS = ("sequences", "tokens", "response_length")


class LossOutput(NamedTuple):
    """A micro-batch's share of the loss, and what to report about it."""

    loss: Tensor
    """Scalar, float64. The shares of all micro-batches and ranks add up to the batch's loss."""
    metrics: dict[str, Tensor]
    """Detached float64 sums; add them up over micro-batches and ranks. `policy_loss` and
    `regularizer` are the two terms of the loss, already divided. Over responses: `log_ratio` (D),
    `log_ratio_abs` (|D|). Over tokens: `kl` (nats)."""


def mirror_descent_loss(
    logprobs: Tensor,
    reference_logprobs: Tensor,
    advantages: Tensor,
    seq_ids: Tensor,
    num_sequences: int,
    tau: float,
    *,
    form: str = "sequence",
    normalisation: str = "sequences",
    num_tokens: int | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> LossOutput:
    """The loss to minimise; by default minus eq. 3 of Kimi k1.5, averaged over responses.

    With l the log-probs, o the reference log-probs, d = l - o, A the advantage of a response, and
    sums over its n tokens, a response's loss is

    - `sequence`: -A * sum l + tau/2 * (sum d)^2
    - `token`: -A * sum l + tau/2 * sum d^2, which does not grow with the length by random walk

    and the batch's loss is the sum over its responses, divided

    - `sequences`: by their number (a long response weighs more, as in eq. 3)
    - `tokens`: by the number of all their tokens
    - `response_length`: each by its own n, and their sum by their number

    All tokens of a response must be in the same call: its log-ratio is squared as a whole. Sums
    are taken in float64, so that neither the order of the tokens nor the split into micro-batches
    shows.

    Args:
        logprobs: [T] log pi_theta of each packed response token, in nats.
        reference_logprobs: [T] the same under the reference policy; gets no gradient. For a
            response sampled by several policies, each segment's own.
        advantages: [S] one value per response of this micro-batch; S may be 0.
        seq_ids: [T] int64, which response (0..S-1) each token belongs to.
        num_sequences: responses in the optimizer step, over all micro-batches and ranks.
        tau: strength of the pull towards the reference.
        form: one of `FORMS`.
        normalisation: one of `NORMALISATIONS`.
        num_tokens: response tokens in the optimizer step, over all micro-batches and ranks;
            needed by `tokens` only.
        mask: [T] bool, true on response tokens; None: every token given is one. What the other
            places hold, seq_ids included, does not matter.
        weights: [T] factor on the policy term of each token (see `importance_weights` and
            `inside_band`); None: 1.

    `kl` in the metrics is sum_t [exp(d_t) - 1 - d_t]: the k3 estimate of KL(reference || policy),
    unbiased and never negative because the reference did the sampling.

    Raises:
        ValueError: `form` or `normalisation` is unknown, or the count to divide by is missing.
    """
    _check("form", form, FORMS)
    _check("normalisation", normalisation, NORMALISATIONS)
    count = num_tokens if normalisation == "tokens" else num_sequences
    if not count:
        raise ValueError(f"normalisation {normalisation!r} divides by a count, which is {count}")
    assert logprobs.shape == reference_logprobs.shape == seq_ids.shape

    if mask is not None:
        logprobs, reference_logprobs = logprobs[mask], reference_logprobs[mask]
        seq_ids = seq_ids[mask]
        weights = None if weights is None else weights[mask]
    logprobs, advantages = logprobs.double(), advantages.double()
    deltas = logprobs - reference_logprobs.detach().double()
    weighted = logprobs if weights is None else logprobs * weights.detach().double()

    def by_response(values: Tensor) -> Tensor:
        return values.new_zeros(len(advantages)).index_add(0, seq_ids, values)

    squares = by_response(deltas).square() if form == "sequence" else by_response(deltas.square())
    shares = torch.full_like(advantages, 1 / count)
    if normalisation == "response_length":
        shares /= by_response(torch.ones_like(deltas)).clamp(min=1)
    policy_loss = -(shares * advantages * by_response(weighted)).sum()
    regularizer = tau / 2 * (shares * squares).sum()

    with torch.no_grad():
        log_ratios = by_response(deltas)
        metrics = {
            "log_ratio": log_ratios.sum(),
            "log_ratio_abs": log_ratios.abs().sum(),
            "kl": (torch.expm1(deltas) - deltas).sum(),
            "policy_loss": policy_loss.detach(),
            "regularizer": regularizer.detach(),
        }
    return LossOutput(policy_loss + regularizer, metrics)


def importance_weights(logprobs: Tensor, sampled_logprobs: Tensor, cap: float) -> Tensor:
    """min(pi / mu, cap) for each token: how much likelier it is under the current policy pi than
    under the policy mu that sampled it, truncated so that no token outweighs `cap` others.

    Args:
        logprobs: [T] log pi, in nats.
        sampled_logprobs: [T] log mu, in nats.
    """
    return (logprobs - sampled_logprobs).exp().clamp(max=cap)


def inside_band(logprobs: Tensor, sampled_logprobs: Tensor, band: tuple[float, float]) -> Tensor:
    """Whether pi / mu of each token lies within `band`. Outside, a token's policy gradient is
    masked, whatever the sign of its advantage (Kimi K2.5, arXiv 2602.02276): its probability says
    more of the difference between learner and engine than of the response. A token of which the
    engine's log-prob is not known (NaN) is inside.

    Args:
        logprobs: [T] log pi of the policy that is trained, as the learner computes it, in nats.
        sampled_logprobs: [T] log mu, as the engine gave it, in nats.
        band: smallest and largest ratio.
    """
    ratios = (logprobs - sampled_logprobs).exp()
    return ~((ratios < band[0]) | (ratios > band[1]))


def _check(what: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        hint = did_you_mean(given, known)
        raise ValueError(f"loss {what} {given!r} is unknown{hint}; one of {', '.join(known)}")
