"""Which conversations go into which row, so that rows and ranks cost alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from thinking_rl.learner.cost import Cost
from thinking_rl.learner.packing import prompt_of
from thinking_rl.types import Conversation

PARTS = (1, 2, 4, 8, 32)
"""Pieces of a row's cost that families are cut into, at most; each is tried."""
ROW_COST = 0.03
"""What a row costs whatever is in it (weights are gathered), as a share of a full row's tokens."""


@dataclass(frozen=True)
class Size:
    """All that packing knows of a conversation."""

    index: int
    """Which conversation it is."""
    length: int
    """Tokens, prompt and response."""
    prompt: int = 0
    """Tokens that it need not repeat in a row that has them from another of its family."""
    family: int = -1
    """Conversations with the same prompt are of one family; of which, does not matter where
    `prompt` is 0."""


def sizes_of(conversations: Sequence[Conversation], *, prompt_once: bool) -> list[Size]:
    """Of each conversation; a family each where prompts are not shared."""
    families: dict[object, int] = {}
    sizes = []
    for index, one in enumerate(conversations):
        prompt = prompt_of(one)
        shared = max(0, len(prompt[0]) - 1) if prompt_once else 0
        family = families.setdefault(prompt if shared else index, len(families))
        sizes.append(Size(index, len(one.token_ids), shared, family))
    return sizes


def needs(sizes: Iterable[Size], cost: Cost) -> tuple[int, float]:
    """Tokens, and cost in text tokens, of conversations that stand in one row."""
    tokens, total = 0, 0.0
    for _, members in groupby(sorted(sizes, key=attrgetter("family")), key=attrgetter("family")):
        family = list(members)
        shared = family[0].prompt if len(family) > 1 else 0
        tokens += shared
        total += cost.of(shared)
        for one in family:
            tokens += one.length - shared
            total += cost.of(one.length - shared, shared)
    return tokens, total


@dataclass
class _Row:
    """A row, or a piece of one."""

    members: list[Size] = field(default_factory=list)
    """Conversations in it."""
    tokens: int = 0
    """That it needs, at most."""
    cost: float = 0.0
    """In text tokens, at most."""


def pack_by_cost(
    sizes: Sequence[Size], tokens_per_row: int, world_size: int, cost: Cost
) -> list[list[Size]]:
    """Rows of about equal cost, the dearest first; their number is a multiple of `world_size`, so
    that the n-th rows of all ranks cost alike. Empty ones may stand at the end.

    A family is one piece, or several where the whole is cheaper so: small pieces balance better,
    and repeat their prompt. Members of a family stand together in their row.

    Args:
        tokens_per_row: most tokens of a row; a longer conversation stands alone.
    """
    by_family = sorted(sizes, key=attrgetter("family"))
    families = [list(f) for _, f in groupby(by_family, key=attrgetter("family"))]
    shares_prompts = len(families) < len(sizes)
    candidates = []
    for parts in PARTS if shares_prompts else (1,):
        tokens, total = needs(sizes, cost)
        least = max(1, min(-(-tokens // tokens_per_row), len(sizes)))
        count = -(-least // world_size) * world_size
        most = total / count / parts
        pieces = [p for f in families for p in _split(f, cost, most, tokens_per_row)]
        candidates.append(_fill(pieces, count, tokens_per_row, world_size, cost))
    by_row = ROW_COST * tokens_per_row
    return min(
        candidates,
        key=lambda rows: step_cost(rows, world_size, cost) + by_row * len(rows) / world_size,
    )


def step_cost(rows: Sequence[Sequence[Size]], world_size: int, cost: Cost) -> float:
    """Of a step, whose every row takes as long as the dearest that a rank has at that time."""
    costs = [needs(row, cost)[1] for row in rows]
    return sum(max(costs[at : at + world_size]) for at in range(0, len(costs), world_size))


def _split(family: Sequence[Size], cost: Cost, most: float, tokens_per_row: int) -> list[_Row]:
    """A family in pieces of at most `most` cost, and of one conversation at least."""
    pieces: list[_Row] = []
    for one in family:
        together = [*pieces[-1].members, one] if pieces else [one]
        tokens, total = needs(together, cost)
        if pieces and total <= most and tokens <= tokens_per_row:
            pieces[-1] = _Row(together, tokens, total)
        else:
            pieces.append(_Row([one], *needs([one], cost)))
    return pieces


def _fill(
    pieces: Sequence[_Row], count: int, tokens_per_row: int, world_size: int, cost: Cost
) -> list[list[Size]]:
    """The dearest piece first, always into the cheapest row that has room; at least `count`
    rows, more where they do not hold all."""
    rows = [_Row() for _ in range(count)]
    for piece in sorted(pieces, key=attrgetter("cost"), reverse=True):
        fitting = [
            row for row in rows if not row.members or row.tokens + piece.tokens <= tokens_per_row
        ]
        if not fitting:
            return _fill(pieces, count + world_size, tokens_per_row, world_size, cost)
        row = min(fitting, key=attrgetter("cost"))
        row.members += piece.members
        row.tokens += piece.tokens
        row.cost += piece.cost
    members = [sorted(row.members, key=attrgetter("family", "index")) for row in rows]
    return sorted(members, key=lambda row: needs(row, cost)[1], reverse=True)
