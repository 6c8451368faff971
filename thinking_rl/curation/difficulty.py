"""How hard a problem is for a policy, and whether its answer can be hit without any thought."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from thinking_rl.curation.duplicates import answer_key

ENOUGH = 40
"""Guesses at other problems of a domain from which on its own answers are the prior."""


@dataclass(frozen=True)
class Guess:
    """An answer that was given without thinking."""

    answer: str
    """As it was read; empty where there is none."""
    right: bool | None
    """The verdict; None where it could not be graded."""


@dataclass(frozen=True)
class Hacked:
    """What guessing at a problem came to."""

    hits: int
    """Right guesses."""
    guesses: int
    """Graded ones."""
    chance: float
    """Probability that a guess is right which knows nothing of the problem."""

    @property
    def tail(self) -> float:
        """Probability of as many hits or more by chance alone."""
        return binomial_tail(self.hits, self.guesses, self.chance)

    def is_easy(self, alpha: float) -> bool:
        """Whether there are hits, and more than chance explains."""
        return self.hits > 0 and self.tail <= alpha


def pass_rate(verdicts: Sequence[bool | None]) -> float | None:
    """Share of right responses among the graded ones; None where none was."""
    graded = [one for one in verdicts if one is not None]
    return sum(graded) / len(graded) if graded else None


def hacked(
    guesses: Sequence[Sequence[Guess]],
    answers: Sequence[str],
    choices: Sequence[int],
    domains: Sequence[str],
) -> list[Hacked]:
    """For each problem its hits, beside the chance level of its answer's own prior.

    The prior is what is guessed at the other problems of its domain, or at all others where the
    domain has too few: the share of those guesses that are this problem's answer, in the form in
    which it is written or in which one of its own guesses was right. One hit and one miss are added
    (Laplace's rule of succession), so that nothing is impossible. With k options it is at least
    1 / k.

    Args:
        guesses: of each problem.
        answers: keys of the expected answers.
        choices: numbers of options, 0 for none.
    """
    keys = [[answer_key(one.answer) for one in listed] for listed in guesses]
    everywhere = Counter(key for listed in keys for key in listed)
    inside: dict[str, Counter[str]] = {domain: Counter() for domain in domains}
    for domain, listed in zip(domains, keys, strict=True):
        inside[domain].update(listed)
    results = []
    for place, listed in enumerate(guesses):
        own = Counter(keys[place])
        prior = inside[domains[place]] - own
        if prior.total() < ENOUGH:
            prior = everywhere - own
        pairs = zip(listed, keys[place], strict=True)
        right = {answers[place], *(key for guess, key in pairs if guess.right)} - {""}
        chance = (sum(prior[key] for key in right) + 1) / (prior.total() + 2)
        if choices[place]:
            chance = max(chance, 1 / choices[place])
        verdicts = [one.right for one in listed if one.right is not None]
        results.append(Hacked(sum(verdicts), len(verdicts), chance))
    return results


def binomial_tail(hits: int, tries: int, chance: float) -> float:
    """P(X >= hits) of a binomial variable."""
    terms = (
        math.comb(tries, k) * chance**k * (1 - chance) ** (tries - k)
        for k in range(hits, tries + 1)
    )
    return min(1.0, sum(terms))
