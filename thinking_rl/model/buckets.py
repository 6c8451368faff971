"""Weights as blocks of bytes, the form in which they travel between processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Bucket:
    """Some weights as one block of bytes, which Ray shares between processes without a copy."""

    data: np.ndarray
    """[bytes] uint8."""
    entries: tuple[tuple[str, str, tuple[int, ...], int, int], ...]
    """(released name, dtype, shape, first byte, number of bytes) of each tensor."""

    def tensors(self) -> list[tuple[str, torch.Tensor]]:
        """The weights, as read-only views."""
        block = torch.from_numpy(self.data)
        return [
            (name, block[start : start + size].view(getattr(torch, dtype)).view(shape))
            for name, dtype, shape, start, size in self.entries
        ]


def make_bucket(tensors: Sequence[tuple[str, torch.Tensor]]) -> Bucket:
    """Put tensors end to end, each aligned to 16 bytes."""
    entries, start = [], 0
    for name, tensor in tensors:
        dtype = str(tensor.dtype).removeprefix("torch.")
        entries.append((name, dtype, tuple(tensor.shape), start, tensor.nbytes))
        start += -(-tensor.nbytes // 16) * 16
    block = torch.empty(start, dtype=torch.uint8)
    for (_, _, _, first, size), (_, tensor) in zip(entries, tensors, strict=True):
        raw = tensor.detach().to("cpu").contiguous().flatten().view(torch.uint8)
        block[first : first + size] = raw
    return Bucket(block.numpy(), tuple(entries))


def buckets(tensors: Iterable[tuple[str, torch.Tensor]], limit_bytes: int) -> Iterator[Bucket]:
    """Weights in blocks of about `limit_bytes`; a larger tensor has a block of its own."""
    pending: list[tuple[str, torch.Tensor]] = []
    size = 0
    for name, tensor in tensors:
        if pending and size + tensor.nbytes > limit_bytes:
            yield make_bucket(pending)
            pending, size = [], 0
        pending.append((name, tensor))
        size += tensor.nbytes
    if pending:
        yield make_bucket(pending)
