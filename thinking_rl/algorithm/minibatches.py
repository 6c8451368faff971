"""Which of an iteration's responses are trained on, and in which optimizer step."""

from __future__ import annotations

import random
from collections.abc import Sequence

from thinking_rl.algorithm.advantage import trainable
from thinking_rl.algorithm.staleness import set_references
from thinking_rl.types import Conversation, Group


def trained(
    groups: Sequence[Group], version: int, oldest: int, *, without_signal: bool = False
) -> list[list[Conversation]]:
    """The responses that enter the loss, group by group; those that were not graded do not.

    Args:
        groups: with their advantages.
        version: of the policy that the iteration begins with.
        oldest: tokens of policies before this one are left out; so is a response of theirs alone.
        without_signal: keep groups whose advantages are all 0: from the second step on they have a
            regulariser.
    """
    useful = [
        [set_references(group.conversation(index), version, oldest) for index in trainable(group)]
        for group in groups
        if group.has_signal or without_signal
    ]
    return [kept for group in useful if (kept := [one for one in group if any(one.loss_mask)])]


def minibatches(
    groups: Sequence[Sequence[Conversation]], responses: int, seed: str
) -> list[list[Conversation]]:
    """Parts of exactly `responses` responses, of groups in an order drawn by seed. What is left,
    too few for a part, is in none.

    After an optimizer reset Adam's first step has the size of the learning rate whatever its batch,
    so a step of few responses is a full step into noise.
    """
    shuffled = list(groups)
    random.Random(seed).shuffle(shuffled)
    flat = [one for group in shuffled for one in group]
    whole = len(flat) - len(flat) % responses
    return [flat[start : start + responses] for start in range(0, whole, responses)]
