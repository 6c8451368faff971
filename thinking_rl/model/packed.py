"""A packed row: several sequences end to end, as one record through the model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class PackedRow:
    """T tokens of S sequences, none of which sees another; R of the tokens are asked about."""

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

    def to(self, device: torch.device | str) -> PackedRow:
        """The same row with its tensors on a device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if torch.is_tensor(value)
        }
        return replace(self, **moved)
