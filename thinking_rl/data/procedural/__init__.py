"""Visual problems without end: made on the fly, exact, and fixed by their seed.

**Three sides.** The SHA-256 of its pixels, modulo five, says where a picture belongs: one fifth of
all is held out, one fifth is for RL, three are for the warm-up. So no held-out picture is ever
trained on, and RL asks nothing that the warm-up showed, whatever the seeds, even where a level has
few distinct pictures (ten at arithmetic level 1).
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from typing import Literal

from PIL import Image

from thinking_rl.data.example import Example
from thinking_rl.data.procedural import arithmetic, chart, counting, spatial, text
from thinking_rl.data.procedural.item import respond
from thinking_rl.types import Problem

FAMILIES = {
    "counting": counting.make,
    "arithmetic": arithmetic.make,
    "spatial": spatial.make,
    "chart": chart.make,
    "text": text.make,
}
Side = Literal["warm-up", "rl", "held-out"]
"""What a picture is for."""
SIDES: tuple[Side, ...] = ("held-out", "rl", "warm-up", "warm-up", "warm-up")
"""By the remainder of a picture's hash."""
MAX_TRIES = 10_000


def generate(
    key: str,
    families: Sequence[str] = tuple(FAMILIES),
    levels: Sequence[int] = (1, 2, 3, 4, 5),
    side: Side = "warm-up",
    direct: float = 0.0,
) -> Example:
    """The problem that belongs to `key`, with its worked response.

    Family and level are drawn evenly; then pictures are drawn until one falls on the wanted side.
    The same key gives the same problem in any process on any machine. `direct` is the share of
    responses that give the answer at once, without the steps; it is right either way.
    """
    rng = random.Random(key)
    family, level = rng.choice(families), rng.choice(levels)
    for _ in range(MAX_TRIES):
        item = FAMILIES[family](rng, level)
        if side_of(item.image) == side:
            break
    else:
        raise AssertionError(f"{family} level {level} has no picture for {side}")
    problem = Problem(
        id=f"{family}-{level}-{hashlib.sha256(key.encode()).hexdigest()[:12]}",
        question=item.question,
        answer=str(item.answer),
        images=(_png(item.image),),
        source="procedural",
        subject=family,
        level=level,
    )
    at_once = direct > 0 and rng.random() < direct
    return Example(problem, (item.direct or respond("", item.answer)) if at_once else item.response)


def side_of(image: Image.Image) -> Side:
    """What a picture is for (see the head of this file)."""
    content = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    return SIDES[int.from_bytes(content, "big") % len(SIDES)]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
