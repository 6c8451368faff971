"""What a family makes: a picture, a question with an exact answer, and a worked response."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Item:
    """One generated problem.

    In the response a sentence or clause that ends in `?` is a doubtful step, a wrong turn that
    is noticed and mended right after; everything else that it states is true.
    """

    question: str
    """Text of the user turn."""
    image: Image.Image
    """The picture that it asks about."""
    answer: int
    """The exact answer."""
    response: str
    """The whole assistant turn, step by step, as `respond` makes it."""
    direct: str = ""
    """The turn that gives the answer at once, without the steps; empty: without any thought."""


def respond(thought: str, answer: int, summary: str = "") -> str:
    """The assistant turn in the form that Kimi-VL-Thinking writes: thought, then the answer."""
    return f"◁think▷{thought}◁/think▷{summary}\\boxed{{{answer}}}"


def near_miss(rng: random.Random, value: int) -> int:
    """A number that one could have taken for `value`: off by 1, 2 or 10, never negative."""
    return rng.choice([value + step for step in (-10, -2, -1, 1, 2, 10) if value + step >= 0])
