import random
from itertools import pairwise

import pytest
import torch
from allocations import Allocations

from thinking_rl.model import attention as layouts
from thinking_rl.model.attention import SegmentLayout, attend
from thinking_rl.model.kernels import attention as kernel
from thinking_rl.model.packed import PackedRow

FAMILIES = ((9, 4, 7), (30,), (1, 5), (12, 1, 1, 20))
"""Each a sequence, and those that continue it."""


def draw(tokens, dtype=torch.float32, heads=2, width=8, value_width=5):
    generator = torch.Generator().manual_seed(0)
    shapes = [(tokens, heads, width)] * 2 + [(tokens, heads, value_width)]
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def expected(q, k, v, lengths, prefixes, causal, scale):
    """One query at a time, in float64, from the keys that it may see."""
    ends = torch.tensor([0, *lengths]).cumsum(0).tolist()
    outputs = []
    for number, (start, stop) in enumerate(pairwise(ends)):
        prefix = prefixes[number] if prefixes else -1
        before = list(range(ends[prefix], ends[prefix + 1])) if prefix >= 0 else []
        for place in range(start, stop):
            seen = before + list(range(start, place + 1 if causal else stop))
            scores = torch.einsum("hd,jhd->hj", q[place].double(), k[seen].double()) * scale
            outputs.append(torch.einsum("hj,jhd->hd", scores.softmax(-1), v[seen].double()))
    return torch.stack(outputs)


def laid_out(families):
    """Lengths and prefixes of a row of families."""
    lengths, prefixes = [], []
    for first, *rest in families:
        prefixes += [-1] + [len(lengths)] * len(rest)
        lengths += [first, *rest]
    return lengths, prefixes


def slopes(result, inputs):
    factor = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((result * factor.to(result.dtype)).sum(), inputs)


def assorted_lengths():
    source = random.Random(0)
    return [source.choice([1, 2, 9, 10, 11, 30]) for _ in range(25)]


ROWS = {
    "causal": (assorted_lengths(), [], True),
    "whole": (assorted_lengths(), [], False),
    "families": (*laid_out(FAMILIES), True),
    "one token": ([1], [], True),
}


def check(lengths, prefixes, causal, layout):
    inputs = q, k, v = draw(sum(lengths))
    measured = attend(q, k, v, layout, 0.3)
    exact = expected(q, k, v, lengths, prefixes, causal, 0.3)
    torch.testing.assert_close(measured.double(), exact, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(slopes(measured, inputs), slopes(exact, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("lengths", "prefixes", "causal"), ROWS.values(), ids=ROWS)
def test_attention_equals_one_query_at_a_time(lengths, prefixes, causal):
    check(
        lengths, prefixes, causal, SegmentLayout(lengths, "cpu", causal=causal, prefixes=prefixes)
    )


def test_like_lengths_are_batched():
    lengths = assorted_lengths()
    assert len(SegmentLayout(lengths, "cpu", causal=True).calls) == 5
    assert len(SegmentLayout(lengths, "cpu", causal=False).calls) == len(set(lengths)) == 6


def test_places_in_text_count_on_from_the_prefix():
    lengths, prefixes = laid_out(((3, 2, 4), (2,)))
    none = torch.zeros(0, dtype=torch.long)
    row = PackedRow(torch.zeros(11, dtype=torch.long), tuple(lengths), none)
    assert row.places_in_text().tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3, 0, 1]
    row = PackedRow(row.input_ids, tuple(lengths), none, prefixes=tuple(prefixes))
    assert row.places_in_text().tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6, 0, 1]


def test_continuations_stand_together():
    with pytest.raises(AssertionError, match="stands together"):
        SegmentLayout([3, 2, 2, 2], "cpu", causal=True, prefixes=[-1, 0, -1, 0])


@pytest.mark.parametrize(("lengths", "prefixes"), [([512], []), ([256, 128, 128], [-1, 0, 0])])
def test_nothing_grows_with_the_square_of_the_tokens(lengths, prefixes):
    q, k, v = draw(512, width=8, value_width=8)
    with Allocations() as made:
        layout = SegmentLayout(lengths, "cpu", causal=True, prefixes=prefixes)
        slopes(attend(q, k, v, layout, 0.3), (q, k, v))
    assert made.largest == q.numel()  # 512 tokens x 16, far below 512 x 512


# A stand-in for the GPU's kernel, from its description: runs end to end, a causal query aligned
# with the last of its keys, log-sums as [heads, queries], one width for all.


def runs_of(query_ends, key_ends):
    q, k = query_ends.tolist(), key_ends.tolist()
    assert query_ends.dtype == key_ends.dtype == torch.int32
    return [(slice(*a), slice(*b)) for a, b in zip(pairwise(q), pairwise(k), strict=True)]


def scores_of(q, k, causal, scale):
    scores = torch.einsum("ihd,jhd->hij", q, k) * scale
    if causal:
        hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(1 + len(k) - len(q))
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores


def stand_in(q, k, v, q_ends, k_ends, longest_q, longest_k, *, return_aux, scale, window_size):
    assert return_aux.lse
    assert q.shape[-1] == k.shape[-1] == v.shape[-1]
    runs = runs_of(q_ends, k_ends)
    assert (longest_q, longest_k) == tuple(
        max(r[i].stop - r[i].start for r in runs) for i in (0, 1)
    )
    outputs, sums = [], []
    for queries, keys in runs:
        scores = scores_of(q[queries], k[keys], window_size == (-1, 0), scale)
        outputs.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v[keys]))
        sums.append(scores.logsumexp(-1))
    return torch.cat(outputs), torch.cat(sums, dim=1)


def stand_in_backward(
    slope, q, k, v, out, log_sum, q_ends, k_ends, longest_q, longest_k, causal, state, scale, window
):
    assert log_sum.shape == (q.shape[1], len(q))
    assert log_sum.is_contiguous()
    assert window == ([-1, 0] if causal else [-1, -1])
    dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
    for queries, keys in runs_of(q_ends, k_ends):
        scores = scores_of(q[queries], k[keys], causal, scale)
        weights = (scores - log_sum[:, queries, None]).exp()
        delta = torch.einsum("ihd,ihd->hi", slope[queries], out[queries])
        inner = torch.einsum("ihd,jhd->hij", slope[queries], v[keys]) - delta[..., None]
        dq[queries] = torch.einsum("hij,jhd->ihd", weights * inner, k[keys]) * scale
        dk[keys] = torch.einsum("hij,ihd->jhd", weights * inner, q[queries]) * scale
        dv[keys] = torch.einsum("hij,ihd->jhd", weights, slope[queries])
    return dq, dk, dv


@pytest.mark.parametrize(("lengths", "prefixes", "causal"), ROWS.values(), ids=ROWS)
def test_the_path_of_gpus_with_a_stand_in_for_their_kernel(lengths, prefixes, causal, monkeypatch):
    monkeypatch.setattr(kernel, "varlen_attn", stand_in)
    monkeypatch.setattr(kernel, "_varlen_backward", stand_in_backward)
    monkeypatch.setattr(layouts, "padded_call", None)
    monkeypatch.setattr(layouts, "takes_any_length", lambda device: True)
    layout = SegmentLayout(lengths, "cpu", causal=causal, prefixes=prefixes)
    assert len(layout.calls) == 1 + bool(prefixes)
    check(lengths, prefixes, causal, layout)
