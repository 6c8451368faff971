import copy
import math

import pytest
import torch
import torch.nn.functional as F

from thinking_rl.model.configuration import KimiVLConfig, MoonViTConfig
from thinking_rl.model.modeling import Projector
from thinking_rl.model.moonvit import MoonViT

GRIDS = [(4, 6), (16, 16), (2, 2), (6, 4), (18, 10)]
"""Of unlike sizes, one as large as the position table, one larger, two with equal areas."""


@pytest.fixture(scope="module")
def config():
    return MoonViTConfig(
        init_pos_emb_height=16,
        init_pos_emb_width=16,
        num_attention_heads=4,
        num_hidden_layers=2,
        hidden_size=96,
        intermediate_size=200,
    )


@pytest.fixture(scope="module")
def tower(config):
    torch.manual_seed(0)
    tower = MoonViT(config)
    for parameter in tower.parameters():  # norms and biases too, so that a swapped one shows
        torch.nn.init.normal_(parameter, std=0.1)
    return tower.requires_grad_(False)


def pixels(grids):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(sum(h * w for h, w in grids), 3, 14, 14, generator=generator)


def written_again(weights, patches, grid, heads, layers):
    """MoonViT on one picture from its description alone: convolution, complex rotations, plain
    softmax, merging by loops. Returns [cells, 4, hidden]."""
    height, width = grid
    x = F.conv2d(patches, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"])
    x = x.flatten(1)
    dim = x.shape[1]
    table = weights["patch_embed.pos_emb.weight"]
    if grid != tuple(table.shape[:2]):
        table = F.interpolate(
            table.permute(2, 0, 1)[None], size=grid, mode="bicubic", align_corners=False
        )[0].permute(1, 2, 0)
    x = x + table.reshape(-1, dim)

    head_dim = dim // heads
    angles = torch.empty(height * width, head_dim // 2)
    for row in range(height):
        for column in range(width):
            for k in range(head_dim // 4):
                frequency = 10000 ** (-4 * k / head_dim)
                angles[row * width + column, 2 * k] = column * frequency
                angles[row * width + column, 2 * k + 1] = row * frequency
    turns = torch.polar(torch.ones_like(angles), angles)

    def turned(vectors):
        pairs = torch.view_as_complex(vectors.reshape(len(vectors), heads, -1, 2))
        return torch.view_as_real(pairs * turns[:, None]).reshape(len(vectors), heads, -1)

    def norm(x, name):
        return F.layer_norm(x, (dim,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    for number in range(layers):
        block = f"encoder.blocks.{number}"
        qkv = linear(norm(x, f"{block}.norm0"), f"{block}.wqkv").chunk(3, dim=-1)
        q, k, v = (part.reshape(-1, heads, head_dim) for part in qkv)
        scores = torch.einsum("ihd,jhd->hij", turned(q), turned(k)) / math.sqrt(head_dim)
        mixed = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).reshape(-1, dim)
        x = x + linear(mixed, f"{block}.wo")
        inner = linear(norm(x, f"{block}.norm1"), f"{block}.mlp.fc0")
        gelu = (
            0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        )
        x = x + linear(gelu, f"{block}.mlp.fc1")
    x = norm(x, "encoder.final_layernorm")
    return torch.stack(
        [
            torch.stack([x[(row + i) * width + column + j] for i in (0, 1) for j in (0, 1)])
            for row in range(0, height, 2)
            for column in range(0, width, 2)
        ]
    )


def test_equals_a_second_implementation_picture_by_picture(tower, config):
    weights = dict(tower.state_dict())
    values = pixels(GRIDS)
    together = tower(values, GRIDS)
    expected = [
        written_again(weights, patches, grid, config.num_attention_heads, config.num_hidden_layers)
        for patches, grid in zip(values.split([h * w for h, w in GRIDS]), GRIDS, strict=True)
    ]
    assert together.shape == (sum(h * w for h, w in GRIDS) // 4, 4, 96)
    assert (together - torch.cat(expected)).abs().max() < 2e-5


def test_pictures_do_not_see_each_other(tower):
    values = pixels(GRIDS)
    alone = [
        tower(patches, [grid])
        for patches, grid in zip(values.split([h * w for h, w in GRIDS]), GRIDS, strict=True)
    ]
    assert (tower(values, GRIDS) - torch.cat(alone)).abs().max() < 2e-6


def test_positions_and_angles_tell_rows_from_columns(tower):
    values = pixels([(4, 6)])
    assert (tower(values, [(4, 6)]) - tower(values, [(6, 4)])).abs().max() > 0.01


def test_projector_normalises_patches_and_uses_exact_gelu():
    config = KimiVLConfig(
        vision_config={"hidden_size": 8, "num_attention_heads": 2},
        text_config={"hidden_size": 12},
    )
    torch.manual_seed(0)
    projector = Projector(config)
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter)
    w = projector.state_dict()
    cells = torch.randn(5, 4, 8)
    mean = cells.mean(-1, keepdim=True)
    spread = ((cells - mean) ** 2).mean(-1, keepdim=True)
    normal = (cells - mean) / torch.sqrt(spread + 1e-5) * w["pre_norm.weight"] + w["pre_norm.bias"]
    inner = normal.reshape(5, 32) @ w["linear_1.weight"].T + w["linear_1.bias"]
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    expected = inner @ w["linear_2.weight"].T + w["linear_2.bias"]
    torch.testing.assert_close(projector(cells), expected, atol=1e-4, rtol=1e-5)


def test_bfloat16_interpolates_positions_in_float32(tower):
    exact = tower.patch_embed.pos_emb([(18, 10)])
    rounded = copy.deepcopy(tower.patch_embed.pos_emb).to(torch.bfloat16)([(18, 10)])
    assert rounded.dtype == torch.bfloat16
    table = tower.patch_embed.pos_emb.weight
    assert (rounded.float() - exact).abs().max() < 3 * (table.bfloat16() - table).abs().max()
