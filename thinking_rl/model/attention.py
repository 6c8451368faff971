"""Exact attention over packed segments (sequences, or the patches of several images).

A packed row holds segments end to end. For attention, segments of like length are batched
together and padded at most `max_padding`, so that ordinary scaled-dot-product kernels apply and
no token sees another segment. The layout is made once a batch and used by every layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "packed_segments"
"""Name under which the decoder finds `decoder_attention`."""


class SegmentLayout:
    """Where each token of a packed row goes while segments are batched.

    `buckets` holds (index [B, L], keep [n]): `row[index]` is the padded batch, and flattening a
    result and taking `keep` gives the bucket's real tokens. `inverse [T]` restores row order.
    """

    def __init__(
        self, lengths: Sequence[int], device: torch.device | str, *, max_padding: float = 0.0
    ):
        """lengths: tokens of each segment, each at least 1. max_padding: share of a segment's
        length that may be added; must be 0 where attention is not causal, since padding is
        hidden by causality alone."""
        lengths = list(lengths)
        starts = [0]
        for length in lengths[:-1]:
            starts.append(starts[-1] + length)
        order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
        self.max_padding = max_padding
        self.buckets: list[tuple[torch.Tensor, torch.Tensor]] = []
        taken: list[torch.Tensor] = []
        while order:
            longest = lengths[order[0]]
            members = [i for i in order if lengths[i] * (1 + max_padding) >= longest]
            order = order[len(members) :]
            steps = torch.arange(longest)
            sizes = torch.tensor([lengths[i] for i in members])[:, None]
            first = torch.tensor([starts[i] for i in members])[:, None]
            index = first + torch.minimum(steps, sizes - 1)
            keep = (steps < sizes).flatten().nonzero().flatten()
            taken.append(index.flatten()[keep])
            self.buckets.append((index.to(device), keep.to(device)))
        self.inverse = torch.argsort(torch.cat(taken)).to(device)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: SegmentLayout,
    *,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """Attention within each segment: query, key [T, heads, d], value [T, heads, v] -> same as
    value's shape."""
    assert causal or layout.max_padding == 0.0, "padding is only hidden by causal attention"
    outputs = []
    for index, keep in layout.buckets:
        q, k, v = (x[index].transpose(1, 2) for x in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
        outputs.append(out.transpose(1, 2).flatten(0, 1)[keep])
    return torch.cat(outputs)[layout.inverse]


def decoder_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    layout: SegmentLayout | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: packed rows [1, heads, T, d] where a layout is given,
    otherwise plain scaled-dot-product attention (generation)."""
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(q, k, v, layout, causal=True, scale=scaling)[None], None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, decoder_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)
