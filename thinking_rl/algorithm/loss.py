"""Policy mirror-descent losses as pure functions on packed tokens.

Kimi k1.5 (arXiv 2501.12599) section 2.3.2, eq. 3: the policy that sampled an iteration's
responses is the reference; the loss rewards advantage and charges the squared log-ratio between
policy and reference. Needs torch alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LossOutput(NamedTuple):
    """A micro-batch's share of the loss, and what to report about it."""

    loss: Tensor
    """Scalar, float64. The shares of all micro-batches and ranks add up to the batch's loss."""
    metrics: dict[str, Tensor]
    """Detached float64 sums. Over responses: `log_ratio` (D), `log_ratio_abs` (|D|). Over tokens:
    `kl` (nats). Over whatever the form divides by: `policy_loss`, `regularizer`. Add them up over
    micro-batches and ranks, then divide by the global count."""


def _sequence_form(
    logprobs: Tensor, deltas: Tensor, advantages: Tensor, seq_ids: Tensor, tau: float
) -> tuple[Tensor, Tensor]:
    """Eq. 3: the square is taken of the whole response's log-ratio D."""
    log_ratios = _sum_by_sequence(deltas, seq_ids, len(advantages))
    policy_loss = -(advantages * _sum_by_sequence(logprobs, seq_ids, len(advantages))).sum()
    return policy_loss, tau / 2 * log_ratios.square().sum()


def _token_form(
    logprobs: Tensor, deltas: Tensor, advantages: Tensor, seq_ids: Tensor, tau: float
) -> tuple[Tensor, Tensor]:
    """The square is taken of each token's log-ratio, so it does not grow with the length."""
    return -(advantages[seq_ids] * logprobs).sum(), tau / 2 * deltas.square().sum()


FORMS = {"sequence": _sequence_form, "token": _token_form}


def mirror_descent_loss(
    logprobs: Tensor,
    reference_logprobs: Tensor,
    advantages: Tensor,
    seq_ids: Tensor,
    num_sequences: int,
    tau: float,
    *,
    form: str = "sequence",
    num_tokens: int | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> LossOutput:
    """The loss to minimise: minus eq. 3 of Kimi k1.5, averaged over responses.

    With l the log-probs, o the reference log-probs, A the advantage of a response and
    D = sum_t (l_t - o_t) over its tokens:

    - `sequence`: sum over responses of [-A * sum_t l_t + tau/2 * D^2] / num_sequences
    - `token`: sum over tokens of [-A * l_t + tau/2 * (l_t - o_t)^2] / num_tokens

    All tokens of a response must be in the same call: D is squared as a whole. Sums are taken in
    float64, so that neither the order of the tokens nor the split into micro-batches shows.

    Args:
        logprobs: [T] log pi_theta of each packed response token, in nats.
        reference_logprobs: [T] the same under the reference policy; gets no gradient. For a
            response sampled by several policies, each segment's own.
        advantages: [S] one value per response of this micro-batch; S may be 0.
        seq_ids: [T] int64, which response (0..S-1) each token belongs to.
        num_sequences: responses in the optimizer step, over all micro-batches and ranks.
        tau: strength of the pull towards the reference.
        form: key of `FORMS`.
        num_tokens: response tokens in the optimizer step, over all micro-batches and ranks;
            needed by the `token` form only.
        mask: [T] bool, true on response tokens; None: every token given is one. What the other
            places hold, seq_ids included, does not matter.
        weights: [T] factor on the policy term of each token (see `importance_weights`); None: 1.

    `kl` in the metrics is sum_t [exp(d_t) - 1 - d_t] with d = l - o: the k3 estimate of
    KL(reference || policy), unbiased and never negative because the reference did the sampling.

    Raises:
        ValueError: `form` is unknown, or the count that it divides by is missing.
    """
    if form not in FORMS:
        raise ValueError(f"loss form {form!r} is unknown; choose one of {', '.join(FORMS)}")
    count = num_sequences if form == "sequence" else num_tokens
    if not count:
        raise ValueError(f"loss form {form!r} divides by a global count, which is {count}")
    assert logprobs.shape == reference_logprobs.shape == seq_ids.shape

    if mask is not None:
        logprobs, reference_logprobs = logprobs[mask], reference_logprobs[mask]
        seq_ids = seq_ids[mask]
        weights = None if weights is None else weights[mask]
    logprobs = logprobs.double()
    deltas = logprobs - reference_logprobs.detach().double()
    weighted = logprobs if weights is None else logprobs * weights.detach().double()
    policy_loss, regularizer = FORMS[form](weighted, deltas, advantages.double(), seq_ids, tau)

    with torch.no_grad():
        log_ratios = _sum_by_sequence(deltas, seq_ids, len(advantages))
        metrics = {
            "log_ratio": log_ratios.sum(),
            "log_ratio_abs": log_ratios.abs().sum(),
            "kl": (torch.expm1(deltas) - deltas).sum(),
            "policy_loss": policy_loss.detach(),
            "regularizer": regularizer.detach(),
        }
    return LossOutput((policy_loss + regularizer) / count, metrics)


def importance_weights(logprobs: Tensor, sampled_logprobs: Tensor, cap: float) -> Tensor:
    """min(pi / mu, cap) for each token: how much likelier it is under the current policy pi than
    under the policy mu that sampled it, truncated so that no token outweighs `cap` others.

    Args:
        logprobs: [T] log pi, in nats.
        sampled_logprobs: [T] log mu, in nats.
    """
    return (logprobs - sampled_logprobs).exp().clamp(max=cap)


def _sum_by_sequence(values: Tensor, seq_ids: Tensor, num_sequences: int) -> Tensor:
    """[T] values summed into [num_sequences] by the response they belong to."""
    return values.new_zeros(num_sequences).index_add(0, seq_ids, values)
