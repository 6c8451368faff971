"""Which problems are worth training on, told without asking a model: kinds of questions, domains,
and their balance."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from thinking_rl.types import Problem

QUESTION_TYPES = ("choice", "true_false", "proof", "open")
GUESSABLE = ("choice", "true_false", "proof")
"""Dropped by default: a verdict on them says little of the reasoning (Kimi k1.5, section 2.1)."""

_VERDICTS = frozenset(
    ("true", "false", "yes", "no", "correct", "incorrect", "right", "wrong", "t", "f")
)
_ASKS_VERDICT = re.compile(
    r"\b(true or false|true/false|yes or no|whether or not)\b|^\s*(is|are|does|do|can|will|has|have"
    r")\b[^.?]*\?",
    re.IGNORECASE,
)
_PROOF = re.compile(
    r"(^|[.;:,]\s+|\b(?:and|then|to)\s+)(?:prove|disprove|show)\s+(?:that|the|by|it|$)|"
    r"\b(give|write|provide)\s+(?:a|the)\s+proof\b|证明",
    re.IGNORECASE,
)


def question_type(problem: Problem) -> str:
    """`true_false` where the answer or both options are verdicts, `proof` where the question asks
    for one, `choice` where it has options, else `open`. By words, in English; `证明` too."""
    options = {choice.strip(" .()").casefold() for choice in problem.choices}
    answer = problem.answer.strip(" .()").casefold()
    if options and len(options) == 2 and options <= _VERDICTS:
        return "true_false"
    spelt = answer in _VERDICTS and (len(answer) > 1 or _ASKS_VERDICT.search(problem.question))
    if not options and spelt:
        return "true_false"
    if _PROOF.search(problem.question):
        return "proof"
    return "choice" if options else "open"


def options_of(problem: Problem) -> int:
    """Among how many answers a guess chooses; 0 where that is not known."""
    return len(problem.choices) or (2 if question_type(problem) == "true_false" else 0)


def domain(problem: Problem) -> str:
    """The problem's tag: its subject, or its source where that states none."""
    return problem.subject.strip() or problem.source or "none"


def balanced(
    domains: Sequence[str], largest_share: float, keys: Sequence[str], seed: int
) -> list[int]:
    """Places of the problems that stay so that no domain has more than `largest_share` of them.

    The larger domains are cut to one common size, the largest that will do; which of a domain's
    problems stay is drawn by the seed and the problem's key, whatever else there is.

    Raises:
        ValueError: there are too few domains for such a share.
    """
    sizes = Counter(domains)
    if not sizes or largest_share >= 1:
        return list(range(len(domains)))
    if largest_share * len(sizes) < 1:
        raise ValueError(
            f"no domain can be held to {largest_share:g} of the problems where there are only "
            f"{len(sizes)} ({', '.join(sorted(sizes))}); give {1 / len(sizes):.3g} or more"
        )
    cap = max(sizes.values())
    while cap > 1 and cap > largest_share * sum(min(size, cap) for size in sizes.values()):
        cap -= 1
    members: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(domains):
        members[name].append(place)
    drawn = [
        place
        for listed in members.values()
        for place in sorted(listed, key=lambda place: _drawn(seed, keys[place]))[:cap]
    ]
    return sorted(drawn)


def _drawn(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"balance\0{seed}\0{key}".encode()).digest()
