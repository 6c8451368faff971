"""A packed row: several sequences end to end, as one record through the model.

A sequence may continue another of the row, as the responses to one problem continue its prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class PackedRow:
    """T tokens of S sequences, none of which sees another but the one that it continues; R of the
    tokens are asked about."""

    input_ids: torch.Tensor
    """[T] int64, sequences end to end."""
    lengths: tuple[int, ...]
    """[S] tokens of each sequence; they sum to T."""
    positions: torch.Tensor
    """[R] int64 indices into input_ids of the tokens whose log-probabilities are wanted; never the
    first of a sequence."""
    pixel_values: torch.Tensor | None = None
    """[patches, 3, 14, 14] float32 of the distinct images, end to end; None: no image."""
    grids: tuple[tuple[int, int], ...] = ()
    """(rows, columns) of patches of each distinct image."""
    image_order: tuple[int, ...] = ()
    """Which distinct image each run of placeholders shows."""
    prefixes: tuple[int, ...] = ()
    """[S] for each sequence the number of the one that it continues, -1: none. Those that continue
    one stand together. Empty: no sequence continues another."""

    def places_in_text(self) -> torch.Tensor:
        """[T] int64 place of each token in its text: a continuation counts on from its prefix."""
        before = [
            self.lengths[i] if i >= 0 else 0 for i in self.prefixes or [-1] * len(self.lengths)
        ]
        return torch.cat(
            [torch.arange(b, b + n) for b, n in zip(before, self.lengths, strict=True)]
        )

    def to(self, device: torch.device | str) -> PackedRow:
        """The same row with its tensors on a device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if torch.is_tensor(value)
        }
        return replace(self, **moved)
