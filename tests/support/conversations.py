"""Random conversations for a small model, with the token ids made up."""

import hashlib
import random

import numpy as np

from thinking_rl.model.images import ImagePatches
from thinking_rl.types import Conversation


def picture(seed, grid):
    """A picture of noise with grid = (rows, columns) of patches."""
    shape = (grid[0] * grid[1], 3, 14, 14)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return ImagePatches(hashlib.sha256(f"{seed} {grid}".encode()).hexdigest(), grid, pixels)


SHARED, SMALL, LARGE = picture(1, (4, 6)), picture(2, (2, 2)), picture(3, (18, 10))


def by_hash(*pictures):
    """Pictures as a learner is given them."""
    return {one.hash: one for one in pictures}


IMAGES = by_hash(SHARED, SMALL, LARGE)
"""The pictures of `assorted`."""


def make(config, seed, length, pictures=(), advantage=1.0):
    """`pictures` first, then `length` random tokens, the last two thirds of them in the loss."""
    draw = random.Random(seed)
    ids = [draw.randrange(200)]
    for one in pictures:
        ids += [config.media_placeholder_token_id] * one.num_tokens + [draw.randrange(200)]
    ids += [draw.randrange(200) for _ in range(length)]
    own = (2 * length) // 3
    mask = (False,) * (len(ids) - own) + (True,) * own
    return Conversation(tuple(ids), mask, hashes(pictures), advantage)


def group(config, seed, prompt, responses, pictures=()):
    """Responses of these lengths to one prompt of `prompt` tokens after its pictures."""
    ids = make(config, seed, prompt, pictures).token_ids
    made = []
    for number, length in enumerate(responses):
        own = make(config, 1000 * seed + number, length).token_ids[:length]
        mask = (False,) * len(ids) + (True,) * length
        made.append(Conversation(ids + own, mask, hashes(pictures), 1.0 - 0.75 * number))
    return made


def hashes(pictures):
    return tuple(one.hash for one in pictures)


def assorted(config):
    """Two that share a picture, one with two pictures, two without, of unlike lengths."""
    return [
        make(config, 1, 12, [SHARED], 1.0),
        make(config, 2, 30, [], -0.5),
        make(config, 3, 7, [SHARED], -1.0),
        make(config, 4, 21, [LARGE, SMALL], 0.5),
        make(config, 5, 13, [], 0.25),
    ]
