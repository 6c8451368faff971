"""Conversations packed into rows of tokens for the learner.

A `TrainingRow` holds several conversations end to end and names its images by hash, each once
however many conversations look at it; `packed` puts their patches in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from thinking_rl.model.images import ImagePatches
from thinking_rl.model.packed import PackedRow
from thinking_rl.types import Conversation


@dataclass(frozen=True)
class TrainingRow:
    """T tokens of S conversations, R of the tokens in the loss."""

    input_ids: torch.Tensor
    """[T] int64, conversations end to end."""
    lengths: tuple[int, ...]
    """[S] tokens of each conversation."""
    positions: torch.Tensor
    """[R] int64 indices into input_ids of the tokens in the loss."""
    seq_ids: torch.Tensor
    """[R] int64, which conversation of the row each belongs to."""
    advantages: torch.Tensor
    """[S] float32."""
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
            positions=self.positions,
            pixel_values=torch.cat([one.pixel_values for one in chosen]) if chosen else None,
            grids=tuple(one.grid_hw for one in chosen),
            image_order=self.image_order,
        )
        return row.to(device)


FILLER = Conversation(token_ids=(0, 0), loss_mask=(False, False))


def pack_row(conversations: Sequence[Conversation]) -> TrainingRow:
    """Put conversations end to end. Without any, the row is a filler that adds nothing to the
    loss: a process without work still has to take part in the collectives."""
    conversations = conversations or [FILLER]
    ids: list[int] = []
    positions: list[int] = []
    seq_ids: list[int] = []
    distinct: dict[str, int] = {}
    order: list[int] = []
    for number, one in enumerate(conversations):
        assert not one.loss_mask[0], "the first token has nothing to be predicted from"
        chosen = [len(ids) + i for i, keep in enumerate(one.loss_mask) if keep]
        positions += chosen
        seq_ids += [number] * len(chosen)
        ids += one.token_ids
        order += [distinct.setdefault(key, len(distinct)) for key in one.image_hashes]
    return TrainingRow(
        input_ids=torch.tensor(ids, dtype=torch.long),
        lengths=tuple(len(one.token_ids) for one in conversations),
        positions=torch.tensor(positions, dtype=torch.long),
        seq_ids=torch.tensor(seq_ids, dtype=torch.long),
        advantages=torch.tensor([one.advantage for one in conversations]),
        image_hashes=tuple(distinct),
        image_order=tuple(order),
    )


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
