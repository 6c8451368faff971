"""Loops are ended soon, and honest text never."""

from __future__ import annotations

import math
import random

import pytest

from rollouts.repetition import LoopDetector

HONEST = {
    "a third": "1/3 = 0." + "3" * 40,
    "digits of pi": "3.14159265358979323846264338327950288419716939937510582097494459230781640628",
    "a multiplication table": "\n".join(
        " ".join(f"{i}*{j}={i * j}" for j in range(1, 13)) for i in range(1, 13)
    ),
    "a table": "\n".join(f"| {i} | {i * i} | {i**3} |" for i in range(80)),
    "an empty table": "\n".join(f"| {i} |   |   |   |" for i in range(60)),
    "equations": "\n".join(f"x_{i} = x_{i - 1} + {i} = {i * (i + 1) // 2}" for i in range(1, 90)),
    "code": "\n".join(f"    if x == {i}:\n        return {i * 7}" for i in range(60)),
    "a ruler": "-" * 60,
    "binary": " ".join(f"{i:08b}" for i in range(256)),
    "counting": " ".join(map(str, range(500))),
    "three times the same check": "Let me check again: 12 + 30 = 42, so it is 42. " * 3,
    "steps": "\n".join(f"Step {i}: subtract 7 from {707 - 7 * i}." for i in range(1, 60)),
    "zeros": "1" + "0" * 50,
    "a sentence": "The quick brown fox jumps over the lazy dog, and thinks of the next one.",
    "a seventh": "22/7 = 3." + "142857" * 8,
    "an identity matrix": "\n".join(
        " ".join("1" if i == j else "0" for j in range(14)) for i in range(14)
    ),
    "a matrix of zeros in LaTeX": r"\begin{pmatrix}" + r"0 & 0 & 0 \\ " * 3 + r"\end{pmatrix}",
    "aligned equations": "\n".join(rf"&= {i}x + {i + 1} \\" for i in range(40)),
    "pascal's triangle": "\n".join(
        " ".join(str(math.comb(i, j)) for j in range(i + 1)) for i in range(18)
    ),
    "a truth table": "\n".join(" | ".join("TF"[i >> j & 1] for j in range(5)) for i in range(32)),
    "a chess board": "\n".join("#." * 4 if i % 2 else ".#" * 4 for i in range(7)),
    "tally marks": "|||| " * 12,
    "a refrain three times": "Row, row, row your boat, gently down the stream.\n" * 3,
    "a json list": ", ".join(f'{{"x": {i}, "y": {i}}}' for i in range(50)),
    "cases": "\n".join(f"Case {i}: if n = {i}, then n^2 = {i * i}, not 50." for i in range(40)),
    "polynomial": " + ".join(f"a_{i} x^{i}" for i in range(60)),
    "the same line of code three times": "    total = total + values[i] * weights[i]\n" * 3,
    "a long division": "\n".join(f"{i * 7}: 7 goes {i} times, 0 left" for i in range(50)),
}


def tokens(text: str) -> list[int]:
    """A letter a token: the hardest case, since words make repeats shorter."""
    return [ord(letter) for letter in text]


def end_of(ids: list[int], sizes: random.Random) -> int | None:
    """Where the detector ends a response that comes in pieces of any size."""
    detector, read = LoopDetector(), 0
    while read < len(ids):
        piece = ids[read : read + sizes.randint(1, 90)]
        if (end := detector.feed(piece)) is not None:
            return read + end
        read += len(piece)
    return None


@pytest.mark.parametrize("name", HONEST)
def test_honest_text_is_not_ended(name: str) -> None:
    assert end_of(tokens(HONEST[name]), random.Random(name)) is None


@pytest.mark.parametrize("period", [*range(1, 24), 31, 32, 50, 63, 64, 65, 99, 100, 150, 199, 200])
def test_every_loop_is_ended_in_time(period: int) -> None:
    draw = random.Random(period)
    before = [draw.randrange(1000, 2000) for _ in range(draw.randrange(700))]
    loop = [draw.randrange(100) for _ in range(period - 1)] + [5000]  # no shorter one inside
    end = end_of(before + loop * 300, draw)
    assert end is not None
    length = end - len(before)
    assert max(4 * period, 64) <= length + period
    assert length <= max(4 * period, 64 + 2 * period)
    assert end == end_of(before + loop * 300, random.Random(0))  # however it came in


def test_a_loop_beyond_the_longest_period_goes_on() -> None:
    assert end_of([*range(201)] * 20, random.Random(0)) is None


def test_a_loop_that_is_left_is_none() -> None:
    ids = [7] * 63 + [8] + [9] * 63 + [8]
    assert end_of(ids, random.Random(0)) is None
