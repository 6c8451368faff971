"""What the lengths of a problem's responses add to their rewards; lengths are in tokens.

Three parts, each under a name of its own in `Group.shaping`: the length reward of Kimi k1.5
(arXiv 2501.12599, section 2.3.3), Toggle of Kimi K2.5 (arXiv 2602.02276), and a soft penalty for
what is nearly too long (DAPO, arXiv 2503.14476, section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from thinking_rl.algorithm.advantage import trainable
from thinking_rl.recipe.rl import Length
from thinking_rl.types import Group

REWARD, TOGGLE, OVERLONG = "length_reward", "toggle", "overlong"


def length_rewards(lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
    """The length reward of each response of one group (Kimi k1.5 report, section 2.3.3).

    With lambda = 0.5 - (length - shortest) / (longest - shortest), a right answer earns lambda
    and a wrong one min(0, lambda); all earn 0 where every response is equally long. Lengths are
    in tokens.

    Raises:
        ValueError: the two sequences differ in length.
    """
    if len(lengths) != len(correct):
        raise ValueError(f"{len(lengths)} lengths for {len(correct)} verdicts")
    shortest, longest = min(lengths, default=0), max(lengths, default=0)
    if shortest == longest:
        return [0.0] * len(lengths)
    rewards = []
    for length, is_right in zip(lengths, correct, strict=True):
        share = 0.5 - (length - shortest) / (longest - shortest)
        rewards.append(share if is_right else min(0.0, share))
    return rewards


def overlong_penalties(lengths: Sequence[int], limit: int, buffer: int) -> list[float]:
    """0 for each response that is at least `buffer` tokens shorter than `limit`, from there on
    falling linearly to -1 at the limit."""
    return [-min(1.0, max(0, length - (limit - buffer)) / buffer) for length in lengths]


def toggle_penalties(
    values: Sequence[float],
    lengths: Sequence[int],
    correct: Sequence[bool],
    budget: float | None,
    accuracy: float,
) -> list[float]:
    """What Toggle's constrained phase takes off the rewards of one group.

    A reward counts only if the group's share of right answers is below `accuracy`, or the response
    is no longer than `budget`: else a right answer loses all that it earned. Nothing is taken off
    without a budget, which is so where no answer was ever right.
    """
    is_easy = bool(correct) and sum(correct) / len(correct) >= accuracy
    return [
        -max(0.0, value) if is_easy and is_right and budget and length > budget else 0.0
        for value, length, is_right in zip(values, lengths, correct, strict=True)
    ]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that a share of all lie below, between two of them by linear interpolation."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


class LengthShaping:
    """Adds to the rewards of an iteration's groups what the recipe asks for.

    Toggle's budget of a problem is a quantile of its right answers' lengths, fixed when it first
    has any; `state_dict` holds the budgets.
    """

    def __init__(self, settings: Length, max_response_tokens: int):
        self._settings = settings
        self._limit = max_response_tokens
        self._budgets: dict[str, float] = {}

    def apply(self, groups: Sequence[Group], iteration: int) -> list[Group]:
        """The groups with `shaping` filled in; 0 for responses that are not trained on.

        Args:
            groups: graded, and whole: lengths are compared among all `trainable` responses.
            iteration: from 0.
        """
        return [self._shaped(group, iteration) for group in groups]

    def _shaped(self, group: Group, iteration: int) -> Group:
        settings, indices = self._settings, trainable(group)
        scores = [group.scores[i] for i in indices]
        lengths = [group.trajectories[i].length for i in indices]
        correct = [score.correct is True for score in scores]
        budget = self._budget(group.problem.id, lengths, correct)
        since = iteration - settings.start_iteration
        parts: dict[str, list[float]] = {}
        if settings.reward_weight:
            weight = settings.reward_weight if since >= 0 else 0.0
            parts[REWARD] = [weight * one for one in length_rewards(lengths, correct)]
        if every := settings.toggle_every:
            is_constrained = since >= 0 and since // every % 2 == 0
            parts[TOGGLE] = toggle_penalties(
                [score.value for score in scores],
                lengths,
                correct,
                budget if is_constrained else None,
                settings.toggle_accuracy,
            )
        if buffer := settings.overlong_tokens:
            parts[OVERLONG] = overlong_penalties(lengths, self._limit, buffer)
        shaping = [dict.fromkeys(parts, 0.0) for _ in group.trajectories]
        for name, values in parts.items():
            for index, value in zip(indices, values, strict=True):
                shaping[index][name] = value
        return replace(group, shaping=tuple(shaping))

    def _budget(
        self, problem_id: str, lengths: Sequence[int], correct: Sequence[bool]
    ) -> float | None:
        right = [length for length, is_right in zip(lengths, correct, strict=True) if is_right]
        if self._settings.toggle_every and right and problem_id not in self._budgets:
            self._budgets[problem_id] = quantile(right, self._settings.toggle_quantile)
        return self._budgets.get(problem_id)

    def state_dict(self) -> dict[str, Any]:
        """Toggle's budgets, in tokens, by problem."""
        return {"budgets": dict(self._budgets)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._budgets = dict(state["budgets"])
