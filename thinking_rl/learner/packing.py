"""Responses packed into rows of tokens for the learner.

A `Conversation` is one prompt and response; a `PackedRow` holds several end to end, with every
picture once however many responses look at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from thinking_rl.model.images import ImagePatches


@dataclass(frozen=True)
class Conversation:
    """One prompt with its response, ready for the model."""

    token_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    """True where the token is the policy's own and enters the loss; never the first."""
    pictures: tuple[ImagePatches, ...]
    """In the order of their placeholders."""
    advantage: float = 0.0


@dataclass(frozen=True)
class PackedRow:
    """Several sequences end to end: T tokens, S sequences, R tokens in the loss."""

    input_ids: torch.Tensor
    """[T] int64"""
    lengths: tuple[int, ...]
    """tokens of each sequence, [S]"""
    positions: torch.Tensor
    """[R] indices into input_ids of the tokens in the loss"""
    seq_ids: torch.Tensor
    """[R] which sequence of the row each belongs to"""
    advantages: torch.Tensor
    """[S] float32"""
    pixel_values: torch.Tensor | None
    """[patches, 3, 14, 14] of the distinct pictures"""
    grids: tuple[tuple[int, int], ...]
    """of the distinct pictures"""
    picture_order: tuple[int, ...]
    """which distinct picture each placeholder run of the row shows"""

    def to(self, device: torch.device | str) -> PackedRow:
        """The same row with its tensors on a device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if torch.is_tensor(value)
        }
        return replace(self, **moved)


FILLER = Conversation(token_ids=(0, 0), loss_mask=(False, False), pictures=())


def pack_row(sequences: Sequence[Conversation], media_token_id: int) -> PackedRow:
    """Put sequences end to end. Without any, the row is a filler that adds nothing to the loss:
    a process without work still has to take part in the collectives.

    Raises:
        ValueError: a sequence has not as many placeholders as its pictures have merged patches.
    """
    sequences = sequences or [FILLER]
    ids: list[int] = []
    positions: list[int] = []
    seq_ids: list[int] = []
    distinct: dict[str, int] = {}
    pictures: list[ImagePatches] = []
    order: list[int] = []
    for number, sequence in enumerate(sequences):
        placeholders = sum(token == media_token_id for token in sequence.token_ids)
        patches = sum(picture.num_tokens for picture in sequence.pictures)
        if placeholders != patches:
            raise ValueError(
                f"a sequence has {placeholders} media placeholder tokens, but its "
                f"{len(sequence.pictures)} picture(s) have {patches} merged patches"
            )
        assert not sequence.loss_mask[0], "the first token has nothing to be predicted from"
        chosen = [len(ids) + i for i, keep in enumerate(sequence.loss_mask) if keep]
        positions += chosen
        seq_ids += [number] * len(chosen)
        ids += sequence.token_ids
        for picture in sequence.pictures:
            if picture.key not in distinct:
                distinct[picture.key] = len(pictures)
                pictures.append(picture)
            order.append(distinct[picture.key])
    return PackedRow(
        input_ids=torch.tensor(ids, dtype=torch.long),
        lengths=tuple(len(sequence.token_ids) for sequence in sequences),
        positions=torch.tensor(positions, dtype=torch.long),
        seq_ids=torch.tensor(seq_ids, dtype=torch.long),
        advantages=torch.tensor([sequence.advantage for sequence in sequences]),
        pixel_values=torch.cat([p.pixel_values for p in pictures]) if pictures else None,
        grids=tuple(picture.grid_hw for picture in pictures),
        picture_order=tuple(order),
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


def row_logprobs(model: Any, row: PackedRow) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [R] of a row's tokens in the loss, and the entropies [R] there, in nats."""
    return model.token_logprobs(
        row.input_ids,
        row.lengths,
        row.positions,
        row.pixel_values,
        row.grids,
        row.picture_order,
    )
