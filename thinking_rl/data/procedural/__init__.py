"""Visual problems without end: made on the fly, exact, and fixed by their seed.

**Held out.** A picture belongs to the held-out fifth when the SHA-256 of its pixels is divisible
by five; training draws only from the other four fifths. So no held-out picture is ever trained
on, whatever the seeds, even where a level has few distinct pictures (ten at arithmetic level 1).
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence

from PIL import Image

from thinking_rl.data.example import Example
from thinking_rl.data.procedural import arithmetic, chart, counting, spatial, text
from thinking_rl.data.procedural.item import near_miss
from thinking_rl.types import Problem

FAMILIES = {
    "counting": counting.make,
    "arithmetic": arithmetic.make,
    "spatial": spatial.make,
    "chart": chart.make,
    "text": text.make,
}
HELD_OUT_SHARE = 5
"""One picture in so many is held out."""
MAX_TRIES = 10_000


def generate(
    key: str,
    families: Sequence[str] = tuple(FAMILIES),
    levels: Sequence[int] = (1, 2, 3, 4, 5),
    held_out: bool = False,
    careless: float = 0.0,
) -> Example:
    """The problem that belongs to `key`, with its worked response.

    Family and level are drawn evenly; then pictures are drawn until one falls on the wanted side
    of the held-out split. The same key gives the same problem in any process on any machine.
    `careless` is the share of responses whose final answer is off by a little.
    """
    rng = random.Random(key)
    family, level = rng.choice(families), rng.choice(levels)
    for _ in range(MAX_TRIES):
        item = FAMILIES[family](rng, level)
        if is_held_out(item.image) == held_out:
            break
    else:
        raise AssertionError(f"{family} level {level} has no picture on this side of the split")
    problem = Problem(
        id=f"{family}-{level}-{hashlib.sha256(key.encode()).hexdigest()[:12]}",
        question=item.question,
        answer=str(item.answer),
        images=(_png(item.image),),
        source="procedural",
        subject=family,
        level=level,
    )
    response = item.response
    if careless and rng.random() < careless:
        thought, _ = response.rsplit("\\boxed", 1)
        response = f"{thought}\\boxed{{{near_miss(rng, item.answer)}}}"
    return Example(problem, response)


def is_held_out(image: Image.Image) -> bool:
    """Whether a picture belongs to the held-out fifth (see the head of this file)."""
    content = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    return int.from_bytes(content, "big") % HELD_OUT_SHARE == 0


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
