import random

import pytest
import torch
from conversations import assorted, make, picture

from thinking_rl.learner.group import LearnerGroup
from thinking_rl.learner.packing import Conversation, pack_row, split_by_tokens
from thinking_rl.model.attention import SegmentLayout, attend
from thinking_rl.model.configuration import KimiVLConfig

MEDIA = 500


@pytest.fixture(scope="module")
def config():
    return KimiVLConfig(media_placeholder_token_id=MEDIA)


def test_a_row_holds_its_sequences_end_to_end(config):
    conversations = assorted(config)
    row = pack_row(conversations, MEDIA)
    assert row.lengths == tuple(len(one.token_ids) for one in conversations)
    assert row.advantages.tolist() == [1.0, -0.5, -1.0, 0.5, 0.25]
    at, wanted = 0, []
    for number, one in enumerate(conversations):
        assert tuple(row.input_ids[at : at + len(one.token_ids)].tolist()) == one.token_ids
        wanted += [(at + i, number) for i, own in enumerate(one.loss_mask) if own]
        at += len(one.token_ids)
    assert list(zip(row.positions.tolist(), row.seq_ids.tolist(), strict=True)) == wanted
    assert row.grids == ((4, 6), (18, 10), (2, 2))
    assert row.picture_order == (0, 0, 1, 2)
    assert row.pixel_values is not None
    assert torch.equal(row.pixel_values[24 : 24 + 180], picture(3, (18, 10)).pixel_values)


def test_pictures_are_shared_by_content_and_not_by_size(config):
    equal, other = picture(1, (4, 6)), picture(2, (4, 6))
    row = pack_row([make(config, 1, 3, [equal, other, picture(1, (4, 6))])], MEDIA)
    assert row.picture_order == (0, 1, 0)
    assert row.pixel_values is not None
    assert len(row.pixel_values) == 48


def test_a_row_without_sequences_is_a_filler():
    row = pack_row([], MEDIA)
    assert len(row.input_ids) == 2
    assert MEDIA not in row.input_ids
    assert len(row.positions) == len(row.seq_ids) == 0
    assert row.pixel_values is None
    assert row.grids == row.picture_order == ()


@pytest.mark.parametrize(("tokens", "pictures"), [(5, 1), (7, 1), (6, 0), (6, 2)])
def test_placeholders_must_match(tokens, pictures):
    ids = (1, *[MEDIA] * tokens, 2)
    wrong = Conversation(ids, (False,) * len(ids), (picture(1, (4, 6)),) * pictures)
    with pytest.raises(ValueError, match=f"{tokens} media placeholder tokens, but its {pictures} "):
        pack_row([wrong], MEDIA)


def test_split_by_tokens():
    assert split_by_tokens([3, 4, 5, 20, 1, 1], 10) == [[0, 1], [2], [3], [4, 5]]
    assert split_by_tokens([5, 5], 10) == [[0, 1]]
    assert split_by_tokens([], 10) == []


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_work_is_dealt_in_as_many_rows_for_each_rank(config, world_size):
    group = LearnerGroup.__new__(LearnerGroup)  # its processes are not needed here
    group.world_size, group.tokens_per_microbatch, group.media_token_id = world_size, 40, MEDIA
    conversations = assorted(config)
    packed, dealt = group._deal(conversations)
    assert len(packed) == len(dealt) == world_size
    assert len({len(rows) for rows in packed}) == 1
    assert sorted(i for share in dealt for row in share for i in row) == [0, 1, 2, 3, 4]
    for rows, share in zip(packed, dealt, strict=True):
        for row, members in zip(rows, share, strict=True):
            lengths = [len(conversations[i].token_ids) for i in members]
            assert list(row.lengths) == (lengths or [2])
            assert len(members) < 2 or sum(lengths) <= 40


@pytest.mark.parametrize(("causal", "max_padding"), [(True, 0.0), (True, 0.2), (False, 0.0)])
def test_attention_stays_within_its_segment(causal, max_padding):
    draw = random.Random(0)
    lengths = [draw.choice([1, 2, 9, 10, 11, 30]) for _ in range(25)]
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(sum(lengths), 2, 8, generator=generator) for _ in range(2))
    v = torch.randn(sum(lengths), 2, 5, generator=generator)
    layout = SegmentLayout(lengths, "cpu", max_padding=max_padding)
    assert len(layout.buckets) < len(set(lengths)) + (max_padding == 0)
    measured = attend(q, k, v, layout, causal=causal, scale=0.3)
    at = 0
    for length in lengths:
        mine = slice(at, at + length)
        scores = torch.einsum("ihd,jhd->hij", q[mine], k[mine]) * 0.3
        if causal:
            scores += torch.full((length, length), -torch.inf).triu(1)
        expected = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v[mine])
        torch.testing.assert_close(measured[mine], expected, atol=1e-5, rtol=1e-5)
        at += length
