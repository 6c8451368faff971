"""Attention of some queries to some keys by kernels that keep no scores, merged where a query has
keys in several places.

Each kernel gives its output and the logarithm of its softmax's sum; from these two, outputs over
different keys are put together exactly. The backward pass hands every kernel the whole output and
the whole sum, which makes its probabilities those over all keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import AuxRequest, varlen_attn

_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_on_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_varlen_backward = torch.ops.torch_attn._varlen_attn_backward

Heads = tuple[Tensor, Tensor, Tensor]
"""Query, key and value, or their gradients: each [tokens, heads, d]."""
Rows = Tensor | slice
"""Places in a packed row; a slice where they stand together, which copies nothing."""


class Call(Protocol):
    """Some queries of a packed row, all of which see keys of one place each."""

    @property
    def queries(self) -> Rows:
        """[n] rows of the queries."""
        ...

    @property
    def keys(self) -> Rows:
        """[m] rows of the keys and values."""
        ...

    def forward(self, row: Heads, scale: float) -> tuple[Tensor, Tensor]:
        """From a row [T, heads, d]: the outputs [n, heads, d] and the log-sums [n, heads]."""
        ...

    def backward(
        self, slope: Tensor, row: Heads, out: Tensor, log_sum: Tensor, scale: float
    ) -> Heads:
        """Gradients [n], [m] and [m] of queries, keys and values, from that of the output, with
        outputs and log-sums [T, heads] over all keys that a query has."""
        ...


@dataclass(frozen=True)
class PaddedCall:
    """B runs of queries and their runs of keys, padded to like lengths; for CPUs."""

    padded_queries: Tensor
    """[B, L] rows; a short run repeats its last."""
    padded_keys: Tensor
    """[B, M] rows, likewise."""
    query_kept: Tensor
    """[n] places in the flattened queries that are no padding."""
    key_kept: Tensor
    """[m] the same of the keys."""
    causal: bool
    """Whether a query sees only keys up to its own place in its run; else it sees all of them, and
    keys must have no padding."""

    @property
    def queries(self) -> Tensor:
        """[n] rows of the queries."""
        return self.padded_queries.flatten()[self.query_kept]

    @property
    def keys(self) -> Tensor:
        """[m] rows of the keys and values."""
        return self.padded_keys.flatten()[self.key_kept]

    def _inputs(self, row: Heads) -> Heads:
        query, key, value = row
        queries, keys = self.padded_queries, self.padded_keys
        # In float32 whatever came: the 16-bit kernel is there for some processors only.
        batched = (query[queries].float(), key[keys].float(), value[keys].float())
        return tuple(x.transpose(1, 2) for x in batched)  # pyright: ignore[reportReturnType]

    def forward(self, row: Heads, scale: float) -> tuple[Tensor, Tensor]:
        """See `Call`."""
        out, log_sum = _on_cpu(*self._inputs(row), 0.0, self.causal, scale=scale)
        kept = self.query_kept
        out, log_sum = (x.transpose(1, 2).flatten(0, 1)[kept] for x in (out, log_sum))
        return out.to(row[0].dtype), log_sum

    def backward(
        self, slope: Tensor, row: Heads, out: Tensor, log_sum: Tensor, scale: float
    ) -> Heads:
        """See `Call`."""
        queries = self.padded_queries
        real = torch.zeros(queries.numel())
        real[self.query_kept] = 1  # padding would count its run's last token again
        slope = slope[queries].float() * real.view(*queries.shape, 1, 1)
        whole = (x[queries].float().transpose(1, 2) for x in (out, log_sum))
        slopes = _on_cpu_backward(
            slope.transpose(1, 2), *self._inputs(row), *whole, 0.0, self.causal, scale=scale
        )
        kept = (self.query_kept, self.key_kept, self.key_kept)
        rows = zip(slopes, kept, row, strict=True)
        return tuple(x.transpose(1, 2).flatten(0, 1)[k].to(like.dtype) for x, k, like in rows)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class VariableCall:
    """Runs of queries and their runs of keys end to end; for GPUs, in 16 bits."""

    queries: Rows
    """[n] rows."""
    keys: Rows
    """[m] rows."""
    query_ends: Tensor
    """[runs + 1] int32: 0, then where each run of queries ends."""
    key_ends: Tensor
    """[runs + 1] int32, the same of the keys."""
    longest: tuple[int, int]
    """Run of queries, and of keys, in tokens."""
    causal: bool
    """Whether a query sees only keys up to its own place in its run."""

    @property
    def _runs(self) -> tuple[Tensor, Tensor, int, int]:
        return (self.query_ends, self.key_ends, *self.longest)

    def _inputs(self, row: Heads) -> Heads:
        query, key, value = row
        return query[self.queries], key[self.keys], value[self.keys]

    def forward(self, row: Heads, scale: float) -> tuple[Tensor, Tensor]:
        """See `Call`."""
        window = (-1, 0) if self.causal else (-1, -1)
        aux = AuxRequest(lse=True)
        inputs = self._inputs(row)
        out, log_sum = varlen_attn(
            *inputs, *self._runs, return_aux=aux, scale=scale, window_size=window
        )
        return out, log_sum.t()  # the kernel's is [heads, n], whatever its text says

    def backward(
        self, slope: Tensor, row: Heads, out: Tensor, log_sum: Tensor, scale: float
    ) -> Heads:
        """See `Call`."""
        window = [-1, 0] if self.causal else [-1, -1]
        no_dropout = torch.zeros(2, dtype=torch.uint64, device=slope.device)
        whole = out[self.queries], log_sum[self.queries].t().contiguous()
        return _varlen_backward(
            slope[self.queries],
            *self._inputs(row),
            *whole,
            *self._runs,
            self.causal,
            no_dropout,
            scale,
            window,
        )


def padded_call(
    queries: Sequence[range], keys: Sequence[range], *, causal: bool, device: torch.device
) -> PaddedCall:
    """Runs of rows batched by padding; the i-th of the queries sees the i-th of the keys."""
    batched = []
    for runs in (queries, keys):
        sizes = torch.tensor([len(run) for run in runs])[:, None]
        starts = torch.tensor([run.start for run in runs])[:, None]
        steps = torch.arange(int(sizes.max()))
        kept = (steps < sizes).flatten().nonzero().flatten()
        batched.append(((starts + torch.minimum(steps, sizes - 1)).to(device), kept.to(device)))
    (padded_queries, query_kept), (padded_keys, key_kept) = batched
    assert causal or len(key_kept) == padded_keys.numel(), "padding is hidden by causality alone"
    return PaddedCall(padded_queries, padded_keys, query_kept, key_kept, causal)


def variable_call(
    queries: Sequence[range], keys: Sequence[range], *, causal: bool, device: torch.device
) -> VariableCall:
    """Runs of rows end to end; the i-th of the queries sees the i-th of the keys."""
    rows, ends = [_rows(runs, device) for runs in (queries, keys)], []
    for runs in (queries, keys):
        sizes = accumulate((len(run) for run in runs), initial=0)
        ends.append(torch.tensor(list(sizes), dtype=torch.int32, device=device))
    longest = max(map(len, queries)), max(map(len, keys))
    return VariableCall(rows[0], rows[1], ends[0], ends[1], longest, causal)


def _rows(runs: Sequence[range], device: torch.device) -> Rows:
    if all(a.stop == b.start for a, b in pairwise(runs)):
        return slice(runs[0].start, runs[-1].stop)
    return torch.cat([torch.arange(run.start, run.stop) for run in runs]).to(device)


def attention(
    query: Tensor, key: Tensor, value: Tensor, calls: Sequence[Call], scale: float
) -> Tensor:
    """softmax(scale * query key^T) value, each query over the keys of all calls that it is in.

    query, key [T, heads, d], value [T, heads, v] with v at most d -> [T, heads, v].
    """
    width = value.shape[-1]
    # The kernels take one width; padding with zeros is exact.
    value = F.pad(value, (0, query.shape[-1] - width))
    return _Attention.apply(query, key, value, tuple(calls), scale)[..., :width]  # pyright: ignore[reportOptionalSubscript, reportReturnType]


class _Attention(torch.autograd.Function):
    """Saves inputs, output and log-sums: nothing that grows with the square of the tokens."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: tuple[Call, ...], scale: float
    ) -> Tensor:
        row = (query, key, value)
        out = torch.zeros_like(query)
        log_sum = query.new_full(query.shape[:2], -torch.inf, dtype=torch.float32)
        for call in calls:
            rows = call.queries
            more, more_sum = call.forward(row, scale)
            total = log_sum[rows].logaddexp(more_sum)
            old, new = ((x - total).exp()[..., None] for x in (log_sum[rows], more_sum))
            out[rows] = (old * out[rows] + new * more).to(out.dtype)
            log_sum[rows] = total
        ctx.calls, ctx.scale = calls, scale
        ctx.save_for_backward(*row, out, log_sum)
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        *row, out, log_sum = ctx.saved_tensors
        totals = [torch.zeros_like(x) for x in row]
        for call in ctx.calls:
            found = call.backward(slopes[0], tuple(row), out, log_sum, ctx.scale)
            for total, rows, slope in zip(
                totals, (call.queries, call.keys, call.keys), found, strict=True
            ):
                total[rows] += slope  # a call has a row once at most
        return (*totals, None, None)
