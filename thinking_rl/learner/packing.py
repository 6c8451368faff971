"""Conversations as rows of tokens for the learner (`rows.py` says which go together).

A `TrainingRow` holds several conversations end to end and names its images by hash, each once
however many conversations look at it; `packed` puts their patches in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from thinking_rl.model.images import ImagePatches
from thinking_rl.model.packed import PackedRow
from thinking_rl.types import Conversation


@dataclass(frozen=True)
class TrainingRow:
    """T tokens of S sequences of C conversations, R of the tokens in the loss."""

    input_ids: torch.Tensor
    """[T] int64, conversations end to end."""
    lengths: tuple[int, ...]
    """[S] tokens of each sequence: a conversation, a prompt of several, or what continues one."""
    prefixes: tuple[int, ...]
    """[S] for each sequence the number of the one that it continues, -1: none."""
    positions: torch.Tensor
    """[R] int64 indices into input_ids of the tokens in the loss."""
    seq_ids: torch.Tensor
    """[R] int64, which conversation of the row each belongs to."""
    advantages: torch.Tensor
    """[C] float32."""
    references: torch.Tensor
    """[R] float32, log-probability that the reference gave each token in the loss, in nats; NaN:
    to be computed when the iteration begins."""
    engine_logprobs: torch.Tensor
    """[R] float32, log-probability that the engine which sampled it gave each token in the loss, in
    nats; NaN: none did."""
    image_hashes: tuple[str, ...]
    """The distinct images."""
    image_order: tuple[int, ...]
    """Which distinct image each run of placeholders shows."""

    def packed(self, images: Mapping[str, ImagePatches], device: torch.device | str) -> PackedRow:
        """The row as the model takes it, on a device.

        Args:
            images: patches by hash, of this row's images at least.
        """
        chosen = [images[key] for key in self.image_hashes]
        row = PackedRow(
            input_ids=self.input_ids,
            lengths=self.lengths,
            prefixes=self.prefixes if max(self.prefixes) >= 0 else (),
            positions=self.positions,
            pixel_values=torch.cat([one.pixel_values for one in chosen]) if chosen else None,
            grids=tuple(one.grid_hw for one in chosen),
            image_order=self.image_order,
        )
        return row.to(device)


FILLER = Conversation(token_ids=(0, 0), loss_mask=(False, False))


def pack_row(conversations: Sequence[Conversation], *, prompt_once: bool = False) -> TrainingRow:
    """Put conversations end to end. Without any, the row is a filler that adds nothing to the
    loss: a process without work still has to take part in the collectives.

    Args:
        prompt_once: neighbours with the same prompt share its tokens and pictures: all but the
            prompt's last token, from which each response goes on, stand in a sequence that the
            responses continue.
    """
    conversations = conversations or [FILLER]
    families = split_families(conversations) if prompt_once else [[one] for one in conversations]
    ids: list[int] = []
    lengths: list[int] = []
    prefixes: list[int] = []
    positions: list[int] = []
    seq_ids: list[int] = []
    references: list[float] = []
    engine_logprobs: list[float] = []
    distinct: dict[str, int] = {}
    order: list[int] = []
    number = 0
    for family in families:
        shared = shared_tokens(family)
        prefix = len(lengths) if shared else -1
        if shared:
            lengths.append(shared)
            prefixes.append(-1)
            ids += family[0].token_ids[:shared]
        order += [distinct.setdefault(key, len(distinct)) for key in family[0].image_hashes]
        for one in family:
            assert not one.loss_mask[0], "the first token has nothing to be predicted from"
            own = one.loss_mask[shared:]
            chosen = [len(ids) + i for i, keep in enumerate(own) if keep]
            positions += chosen
            references += one.references or [math.nan] * len(chosen)
            engine_logprobs += one.logprobs or [math.nan] * len(chosen)
            seq_ids += [number] * len(chosen)
            number += 1
            lengths.append(len(own))
            prefixes.append(prefix)
            ids += one.token_ids[shared:]
    return TrainingRow(
        input_ids=torch.tensor(ids, dtype=torch.long),
        lengths=tuple(lengths),
        prefixes=tuple(prefixes),
        positions=torch.tensor(positions, dtype=torch.long),
        seq_ids=torch.tensor(seq_ids, dtype=torch.long),
        advantages=torch.tensor([one.advantage for one in conversations]),
        references=torch.tensor(references),
        engine_logprobs=torch.tensor(engine_logprobs),
        image_hashes=tuple(distinct),
        image_order=tuple(order),
    )


def split_families(conversations: Sequence[Conversation]) -> list[list[Conversation]]:
    """Neighbours that can share a prompt."""
    families: list[list[Conversation]] = []
    for prompt, members in groupby(conversations, key=prompt_of):
        family = list(members)
        shares = len(prompt[0]) > 1  # the last token is not shared
        families += [family] if shares else [[one] for one in family]
    return families


def prompt_of(one: Conversation) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """What a conversation has before its first token in the loss: token ids, and pictures."""
    length = one.loss_mask.index(True) if True in one.loss_mask else 0
    return one.token_ids[:length], one.image_hashes


def shared_tokens(family: Sequence[Conversation]) -> int:
    """Tokens that stand once for all of a family: its prompt but for the last. 0: none."""
    return len(prompt_of(family[0])[0]) - 1 if len(family) > 1 else 0


def split_by_tokens(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Indices in order, cut where a row would exceed `limit` tokens; a longer one stands alone."""
    rows: list[list[int]] = []
    used = limit + 1
    for index, length in enumerate(lengths):
        if used + length > limit:
            rows.append([])
            used = 0
        rows[-1].append(index)
        used += length
    return rows
