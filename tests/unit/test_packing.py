from dataclasses import replace

import pytest
import torch
from conversations import IMAGES, LARGE, SHARED, SMALL, assorted, by_hash, group, make, picture

from thinking_rl.learner.cost import Cost
from thinking_rl.learner.group import deal, hashes_of
from thinking_rl.learner.packing import pack_row, split_by_tokens
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.types import Conversation

MEDIA = 500


@pytest.fixture(scope="module")
def config():
    return KimiVLConfig(media_placeholder_token_id=MEDIA)


def test_a_row_holds_its_sequences_end_to_end(config):
    conversations = assorted(config)
    row = pack_row(conversations)
    assert row.lengths == tuple(len(one.token_ids) for one in conversations)
    assert row.advantages.tolist() == [1.0, -0.5, -1.0, 0.5, 0.25]
    at, wanted = 0, []
    for number, one in enumerate(conversations):
        assert tuple(row.input_ids[at : at + len(one.token_ids)].tolist()) == one.token_ids
        wanted += [(at + i, number) for i, own in enumerate(one.loss_mask) if own]
        at += len(one.token_ids)
    assert list(zip(row.positions.tolist(), row.seq_ids.tolist(), strict=True)) == wanted
    assert row.image_hashes == (SHARED.hash, LARGE.hash, SMALL.hash)
    assert row.image_order == (0, 0, 1, 2)


def test_a_row_gets_its_pictures_and_no_others(config):
    row = pack_row(assorted(config))
    others = by_hash(picture(7, (4, 6)))
    packed = row.packed(others | IMAGES, "cpu")
    assert torch.equal(packed.input_ids, row.input_ids)
    assert torch.equal(packed.positions, row.positions)
    assert (packed.lengths, packed.image_order) == (row.lengths, row.image_order)
    assert packed.grids == ((4, 6), (18, 10), (2, 2))
    assert packed.pixel_values is not None
    assert len(packed.pixel_values) == 24 + 180 + 4
    assert torch.equal(packed.pixel_values[24 : 24 + 180], LARGE.pixel_values)
    with pytest.raises(KeyError):
        row.packed(others, "cpu")


def test_pictures_are_shared_by_content_and_not_by_size(config):
    equal, other = picture(1, (4, 6)), picture(2, (4, 6))
    row = pack_row([make(config, 1, 3, [equal, other, picture(1, (4, 6))])])
    assert row.image_order == (0, 1, 0)
    packed = row.packed(by_hash(equal, other), "cpu")
    assert packed.pixel_values is not None
    assert len(packed.pixel_values) == 48


def test_a_row_without_sequences_is_a_filler():
    row = pack_row([])
    assert len(row.input_ids) == 2
    assert MEDIA not in row.input_ids
    assert len(row.positions) == len(row.seq_ids) == 0
    assert row.image_hashes == row.image_order == ()
    packed = row.packed({}, "cpu")
    assert packed.pixel_values is None
    assert packed.grids == packed.image_order == ()


def test_a_first_token_cannot_be_learned(config):
    one = make(config, 1, 3)
    with pytest.raises(AssertionError, match="nothing to be predicted from"):
        pack_row([replace(one, loss_mask=(True,) * len(one.token_ids))])


def test_split_by_tokens():
    assert split_by_tokens([3, 4, 5, 20, 1, 1], 10) == [[0, 1], [2], [3], [4, 5]]
    assert split_by_tokens([5, 5], 10) == [[0, 1]]
    assert split_by_tokens([], 10) == []


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_work_is_dealt_in_as_many_rows_for_each_rank(config, world_size):
    conversations = assorted(config)
    dealt = deal(conversations, 40, world_size, Cost(100.0), prompt_once=False)
    assert len(dealt) == world_size
    assert len({len(share) for share in dealt}) == 1
    assert sorted(i for share in dealt for row in share for i in row) == [0, 1, 2, 3, 4]
    for share in dealt:
        packed = [pack_row([conversations[i] for i in members]) for members in share]
        for row, members in zip(packed, share, strict=True):
            lengths = [len(conversations[i].token_ids) for i in members]
            assert list(row.lengths) == (lengths or [2])
            assert len(members) < 2 or sum(lengths) <= 40
        wanted = [
            key for members in share for i in members for key in conversations[i].image_hashes
        ]
        assert hashes_of(packed) == list(dict.fromkeys(wanted))


def test_neighbours_share_their_prompt(config):
    family, other = group(config, 9, 9, (3, 5), [SHARED]), group(config, 4, 4, (2,))
    row = pack_row([*family, *other], prompt_once=True)
    prompt, alone = len(family[0].token_ids) - 3, len(other[0].token_ids)
    assert row.lengths == (prompt - 1, 1 + 3, 1 + 5, alone)
    assert row.prefixes == (-1, 0, 0, -1)
    assert row.image_order == (0,)
    assert row.seq_ids.tolist() == [0] * 3 + [1] * 5 + [2] * 2
    targets = [
        t
        for one in (*family, *other)
        for t, own in zip(one.token_ids, one.loss_mask, strict=True)
        if own
    ]
    assert row.input_ids[row.positions].tolist() == targets
    assert row.packed(IMAGES, "cpu").prefixes == row.prefixes


@pytest.mark.parametrize(
    "change",
    [
        {"image_hashes": (LARGE.hash,)},
        {"token_ids": (7,) * 40},
        {"loss_mask": (False,) * 20 + (True,) * 20},
    ],
    ids=lambda change: next(iter(change)),
)
def test_unlike_prompts_are_not_shared(config, change):
    one = replace(make(config, 3, 40), token_ids=(1,) * 40, loss_mask=(False,) * 30 + (True,) * 10)
    row = pack_row([one, replace(one, **change)], prompt_once=True)
    assert row.lengths == (40, 40)
    assert row.prefixes == (-1, -1)


def test_one_token_prompts_are_not_shared():
    one = Conversation((1, 2, 3), (False, True, True))
    assert pack_row([one, one], prompt_once=True).lengths == (3, 3)
