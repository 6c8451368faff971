"""Without an engine: vLLM's own functions count and compute what ours do."""

import random
from types import SimpleNamespace

import pytest
import torch

from thinking_rl.model.configuration import MoonViTConfig
from thinking_rl.model.images import KimiVLImageProcessor
from thinking_rl.model.moonvit import MoonViT, rotary_angles, rotate


@pytest.mark.parametrize("limit", [64, 4096, 16384])
def test_token_count_is_what_vllm_counts(limit):
    from vllm.model_executor.models.kimi_vl import KimiVLProcessingInfo

    processor = KimiVLImageProcessor(in_token_limit=limit)
    info = SimpleNamespace(get_hf_processor=lambda: SimpleNamespace(image_processor=processor))
    draw = random.Random(1)
    for _ in range(1000):
        width, height = draw.randint(1, 2500), draw.randint(1, 2500)
        counted = KimiVLProcessingInfo.get_num_image_tokens(
            info,  # pyright: ignore[reportArgumentType]
            image_width=width,
            image_height=height,
        )
        assert processor.num_image_tokens(width, height) == counted, (width, height)


def test_vllm_computes_the_same_from_our_weights():
    from vllm.model_executor.models import moonvit as theirs

    config = MoonViTConfig(
        init_pos_emb_height=16,
        init_pos_emb_width=16,
        num_attention_heads=4,
        num_hidden_layers=1,
        hidden_size=96,
        intermediate_size=200,
    )
    torch.manual_seed(0)
    tower = MoonViT(config).requires_grad_(False)
    torch.nn.init.normal_(tower.patch_embed.pos_emb.weight, std=0.1)
    grids = [(4, 6), (18, 10)]
    weights, values = tower.state_dict(), torch.randn(4 * 6 + 18 * 10, 3, 14, 14)
    table = theirs.Learnable2DInterpPosEmb(16, 16, 96)
    table.load_state_dict({"weight": weights["patch_embed.pos_emb.weight"]})
    positions = table(torch.zeros(len(values), 96), torch.tensor(grids))
    assert (tower.patch_embed.pos_emb(grids) - positions).abs().max() < 1e-6

    heads, head_dim = config.num_attention_heads, 96 // config.num_attention_heads
    turns = theirs.Rope2DPosEmb(head_dim, 512, 512, device="cpu").get_freqs_cis_by_seqlens(
        torch.tensor(grids)
    )
    angles = rotary_angles(grids, head_dim, torch.device("cpu"))[:, None]
    query = torch.randn(len(values), heads, head_dim)
    their_query, _ = theirs.apply_rope(query, query, turns)
    assert (rotate(query, angles.cos(), angles.sin()) - their_query).abs().max() < 1e-5

    x = torch.randn(len(values), 96)
    cells = theirs.patch_merger(x, torch.tensor(grids), (2, 2))
    assert torch.equal(tower.merge(x, grids), torch.cat(cells))
