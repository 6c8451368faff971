"""Random conversations for a small model, with the token ids made up."""

import hashlib
import random

import torch

from thinking_rl.learner.packing import Conversation
from thinking_rl.model.images import ImagePatches


def picture(seed, grid):
    """A picture of noise with grid = (rows, columns) of patches."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(grid[0] * grid[1], 3, 14, 14, generator=generator)
    return ImagePatches(hashlib.sha256(f"{seed} {grid}".encode()).hexdigest(), values, grid)


def make(config, seed, length, pictures=(), advantage=1.0):
    """`pictures` first, then `length` random tokens, the last two thirds of them in the loss."""
    draw = random.Random(seed)
    ids = [draw.randrange(200)]
    for one in pictures:
        ids += [config.media_placeholder_token_id] * one.num_tokens + [draw.randrange(200)]
    ids += [draw.randrange(200) for _ in range(length)]
    own = (2 * length) // 3
    mask = (False,) * (len(ids) - own) + (True,) * own
    return Conversation(tuple(ids), mask, tuple(pictures), advantage)


def assorted(config):
    """Two that share a picture, one with two pictures, two without, of unlike lengths."""
    shared, small, large = picture(1, (4, 6)), picture(2, (2, 2)), picture(3, (18, 10))
    return [
        make(config, 1, 12, [shared], 1.0),
        make(config, 2, 30, [], -0.5),
        make(config, 3, 7, [shared], -1.0),
        make(config, 4, 21, [large, small], 0.5),
        make(config, 5, 13, [], 0.25),
    ]
