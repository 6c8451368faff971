"""MoonViT: a vision transformer for pictures of any size, run on packed patches.

Parameter names are the released ones. Patches of all pictures stand end to end in raster order;
attention stays within a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from thinking_rl.model.attention import SegmentLayout, attend
from thinking_rl.model.configuration import MoonViTConfig

Grids = Sequence[tuple[int, int]]
"""(rows, columns) of patches of each picture."""


class PositionTable(nn.Module):
    """A learned [rows, columns, width] table, resized bicubically to each picture's grid."""

    def __init__(self, height: int, width: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(height, width, dim))

    def forward(self, grids: Grids) -> torch.Tensor:
        """Position embeddings [sum(h * w), dim]; interpolated in float32."""
        table = self.weight.permute(2, 0, 1)[None].float()
        resized: dict[tuple[int, int], torch.Tensor] = {}
        for grid in grids:
            if grid not in resized:
                same = grid == tuple(self.weight.shape[:2])
                at_grid = table if same else F.interpolate(table, size=grid, mode="bicubic")
                resized[grid] = at_grid[0].permute(1, 2, 0).flatten(0, 1)
        return torch.cat([resized[grid] for grid in grids]).to(self.weight.dtype)


class PatchEmbed(nn.Module):
    """14 x 14 pixels of 3 channels to one vector, plus its position."""

    def __init__(self, config: MoonViTConfig):
        super().__init__()
        self.proj = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.pos_emb = PositionTable(
            config.init_pos_emb_height, config.init_pos_emb_width, config.hidden_size
        )

    def forward(self, pixel_values: torch.Tensor, grids: Grids) -> torch.Tensor:
        # A convolution whose window is the whole patch is a matrix product, and much faster so.
        patches = F.linear(pixel_values.flatten(1), self.proj.weight.flatten(1), self.proj.bias)
        return patches + self.pos_emb(grids)


def rotary_angles(grids: Grids, head_dim: int, device: torch.device) -> torch.Tensor:
    """2-D rotary angles [sum(h * w), head_dim / 2]: even pairs turn by column, odd by row, with
    frequencies 10000^(-4k / head_dim)."""
    exponent = torch.arange(0, head_dim, 4, device=device).float() / head_dim
    frequency = 1.0 / 10000**exponent
    angles = []
    for height, width in grids:
        rows = torch.arange(height, device=device).float().repeat_interleave(width)
        columns = torch.arange(width, device=device).float().repeat(height)
        pair = torch.stack([torch.outer(columns, frequency), torch.outer(rows, frequency)], dim=-1)
        angles.append(pair.flatten(1))
    return torch.cat(angles)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn adjacent pairs of x [T, heads, d] by angles given as cos, sin [T, 1, d / 2], in
    float32."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


class MLP(nn.Module):
    """Two layers with a tanh-approximated GELU between them."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc0 = nn.Linear(dim, hidden)
        self.fc1 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc1(F.gelu(self.fc0(x), approximate="tanh"))


class MoonViTBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: MoonViTConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.norm0 = nn.LayerNorm(config.hidden_size, eps=1e-5)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=1e-5)
        self.wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.wo = nn.Linear(config.hidden_size, config.hidden_size)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)

    def forward(
        self, x: torch.Tensor, layout: SegmentLayout, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        qkv = self.wqkv(self.norm0(x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.unbind(1)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        scale = query.shape[-1] ** -0.5
        attended = attend(query, key, value, layout, scale)
        x = x + self.wo(attended.flatten(1))
        return x + self.mlp(self.norm1(x))


class MoonViTEncoder(nn.Module):
    """The blocks and the final norm."""

    def __init__(self, config: MoonViTConfig):
        super().__init__()
        self.blocks = nn.ModuleList([MoonViTBlock(config) for _ in range(config.num_hidden_layers)])
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=1e-5)


class MoonViT(nn.Module):
    """Patches to merged cells of 2 x 2 patch vectors."""

    def __init__(self, config: MoonViTConfig):
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.encoder = MoonViTEncoder(config)
        self.gradient_checkpointing = False

    def forward(self, pixel_values: torch.Tensor, grids: Grids) -> torch.Tensor:
        """pixel_values [sum(h * w), 3, 14, 14] -> cells [sum(h * w) / 4, 4, hidden]; the four
        patches of a cell in raster order."""
        x = self.patch_embed(pixel_values, grids)
        layout = SegmentLayout([h * w for h, w in grids], x.device, causal=False)
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        angles = rotary_angles(grids, head_dim, x.device)[:, None]
        cos, sin = angles.cos(), angles.sin()
        for block in self.encoder.blocks:
            if self.gradient_checkpointing and self.training:
                x = checkpoint(block, x, layout, cos, sin, use_reentrant=False)
            else:
                x = block(x, layout, cos, sin)
        return self.merge(self.encoder.final_layernorm(x), grids)

    def merge(self, x: torch.Tensor, grids: Grids) -> torch.Tensor:
        """Group raster-ordered patches [sum(h * w), d] into cells [sum(h * w) / 4, 4, d]."""
        down, across = self.config.merge_kernel_size
        cells = []
        for patches, (height, width) in zip(x.split([h * w for h, w in grids]), grids, strict=True):
            grid = patches.view(height // down, down, width // across, across, -1)
            cells.append(grid.transpose(1, 2).reshape(-1, down * across, patches.shape[-1]))
        return torch.cat(cells)
