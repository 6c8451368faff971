"""Shares, their intervals, and pass@k: every statistic of the project, once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""Two-sided 95% of the normal distribution."""


def mean(values: Sequence[float]) -> float:
    """The mean; NaN, which reports show as unknown, where there is nothing."""
    return sum(values) / len(values) if values else math.nan


def wilson_interval(right: float, total: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, as shares of 1; 95% by default, (0, 1) without
    data (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share = right / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def clustered_interval(shares: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of the problems' shares of right answers: Wilson's, with the count
    of independent answers that would spread as the problems' shares do (Kish's effective sample
    size); the number of problems where each has one answer, or where nothing spreads."""
    total, share = len(shares), mean(shares)
    spread = sum((one - share) ** 2 for one in shares)
    effective = share * (1 - share) * total**2 / spread if spread else total
    return wilson_interval(share * effective, effective) if total else (0.0, 1.0)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that one of k answers is right, estimated without bias from `right` of `samples`:
    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1)."""
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from {samples} samples")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


@dataclass(frozen=True)
class Accuracy:
    """Mean over problems of the share of a problem's graded answers that are right."""

    mean: float
    """A share of 1; NaN where nothing was graded."""
    low: float
    """Lower end of the 95% interval with the problems as clusters (`clustered_interval`), as the
    answers to one problem are not independent. With one sample each it is Wilson's."""
    high: float
    """Upper end of the 95% interval."""
    pass_at: dict[int, float]
    """k -> pass@k, for k = 1, 2, 4... and the number of samples; over the problems of which every
    answer was graded."""


def accuracy(verdicts: Sequence[Sequence[bool | None]]) -> Accuracy:
    """From the verdicts on each problem's answers; None is no verdict."""
    graded = [[one for one in listed if one is not None] for listed in verdicts]
    shares = [sum(listed) / len(listed) for listed in graded if listed]
    low, high = clustered_interval(shares)
    samples = max((len(listed) for listed in verdicts), default=0)
    full = [listed for listed in graded if len(listed) == samples]
    return Accuracy(
        mean=sum(shares) / len(shares) if shares else math.nan,
        low=low,
        high=high,
        pass_at={
            k: sum(pass_at_k(samples, sum(listed), k) for listed in full) / len(full)
            for k in sorted({*(2**i for i in range(samples.bit_length())), samples})
            if full and 1 <= k <= samples
        },
    )
