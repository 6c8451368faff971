"""Exact attention over packed segments (sequences, or the patches of several images).

A packed row holds segments end to end. No token sees another segment, but for the one that its own
may continue: several responses can stand behind one prompt. The layout is made once a row and used
by every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from thinking_rl.model.kernels.attention import Call, attention, padded_call, variable_call

ATTENTION = "packed_segments"
"""Name under which the decoder finds `decoder_attention`."""
MAX_PADDING = 0.2
"""Share of a causal segment's length that may be added to batch it with others."""


class SegmentLayout:
    """Which tokens of a packed row attend to which, as calls of the device's kernel.

    On a GPU the kernel takes segments of any length end to end. On a CPU segments of like length
    are batched and padded, which causality hides; where attention is not causal they are equal.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        device: torch.device | str,
        *,
        causal: bool,
        prefixes: Sequence[int] = (),
    ):
        """
        Args:
            lengths: tokens of each segment, each at least 1.
            prefixes: for each segment the number of the one that it continues, which continues
                none itself; -1: none. Empty: no segment continues another.
        """
        self.causal = causal
        device = torch.device(device)
        segments = runs(lengths)
        continued = continuations(segments, prefixes)
        if takes_any_length(device):
            together, families = [segments], [continued] if continued else []
            call = variable_call
        else:
            together = _alike(segments, MAX_PADDING if causal else 0.0)
            families = [[family] for family in continued]
            call = padded_call
        self.calls: list[Call] = [call(own, own, causal=causal, device=device) for own in together]
        for family in families:
            queries, keys = zip(*family, strict=True)
            self.calls.append(call(queries, keys, causal=False, device=device))


def takes_any_length(device: torch.device) -> bool:
    """Whether the device's kernel takes segments of any length end to end."""
    return device.type == "cuda"


def runs(lengths: Sequence[int]) -> list[range]:
    """The rows of each segment."""
    return [range(a, b) for a, b in pairwise(accumulate(lengths, initial=0))]


def continuations(segments: Sequence[range], prefixes: Sequence[int]) -> list[tuple[range, range]]:
    """For each segment that others continue: the rows of those, which stand together, and its
    own."""
    families: dict[int, list[range]] = {}
    for segment, prefix in zip(segments, prefixes, strict=False):
        if prefix >= 0:
            families.setdefault(prefix, []).append(segment)
    for family in families.values():
        assert all(a.stop == b.start for a, b in pairwise(family)), "a family stands together"
    return [
        (range(family[0].start, family[-1].stop), segments[prefix])
        for prefix, family in families.items()
    ]


def _alike(segments: Sequence[range], max_padding: float) -> list[list[range]]:
    """Segments that are batched: the longest with those that need no more than `max_padding` of
    their length to equal it, then the same with the rest."""
    rest = sorted(segments, key=len, reverse=True)
    batches = []
    while rest:
        batches.append([one for one in rest if len(one) * (1 + max_padding) >= len(rest[0])])
        rest = rest[len(batches[-1]) :]
    return batches


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: SegmentLayout, scale: float
) -> torch.Tensor:
    """Attention within each segment and over what it continues: query, key [T, heads, d], value
    [T, heads, v] -> [T, heads, v].

    Raises:
        ValueError: a GPU's kernel takes no float32.
    """
    if query.is_cuda and query.dtype == torch.float32:
        raise ValueError("packed attention on a GPU takes 16 bits; set model.dtype to bfloat16")
    return attention(query, key, value, layout.calls, scale)


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
    assert layout.causal
    return attend(q, k, v, layout, scaling)[None], None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, decoder_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)
