"""Sums of drawn digits: one digit a tile.

Levels 1 to 4 are a row of one to four digits to add, the smallest task that needs both eyes and
arithmetic: a model of two million parameters learns it from nothing. There are 10,000 pictures at
level 4, too many for it to remember their sums. Level 5 is a sum or a difference of two two-digit
numbers, or of three three-digit ones, one under the other.
"""

from __future__ import annotations

import random

from thinking_rl.data.procedural.canvas import blank, write_tile
from thinking_rl.data.procedural.item import Item, near_miss, respond

WRONG_TURNS = {1: 0.0, 2: 0.05, 3: 0.05, 4: 0.05, 5: 1 / 3}
"""Share of responses with a wrong turn, by level."""


def make(rng: random.Random, level: int, wrong_turns: float | None = None) -> Item:
    """One problem; `wrong_turns` overrides the level's share of responses with a wrong turn.

    At level 4 a response without a wrong turn has at most 59 characters; a wrong turn adds at
    most 8.
    """
    rate = WRONG_TURNS[level] if wrong_turns is None else wrong_turns
    if level <= 4:
        return _add_digits(rng, level, rate)
    return _expression(rng, rng.choice((2, 3)), rate)


def _add_digits(rng: random.Random, count: int, rate: float) -> Item:
    digits = [rng.randrange(10) for _ in range(count)]
    image = blank(count, 1)
    for column, digit in enumerate(digits):
        write_tile(image, str(digit), column)
    wrong_step = rng.randrange(1, count) if count > 1 and rng.random() < rate else None
    steps, total = [], digits[0]
    for position, digit in enumerate(digits[1:], start=1):
        slip = f"{near_miss(rng, total + digit)}? no, " if position == wrong_step else ""
        steps.append(f"{total}+{digit}={slip}{total + digit}")
        total += digit
    read = " ".join(map(str, digits))
    thought = f"{read}: {', '.join(steps)}." if steps else f"{read}."
    direct = respond(f"{read}.", total)
    return Item("Add the digits.", image, total, respond(thought, total), direct)


def _expression(rng: random.Random, terms: int, rate: float) -> Item:
    """Two terms stand in one row, three terms one under the other, the sign to their left."""
    while True:
        numbers = [rng.randrange(10 ** (terms - 1), 10**terms) for _ in range(terms)]
        signs = [rng.choice("+-") for _ in range(terms - 1)]
        total = numbers[0]
        totals = [
            total := total + (n if s == "+" else -n)
            for s, n in zip(signs, numbers[1:], strict=True)
        ]
        if min(totals) >= 0:
            break
    lines = [str(numbers[0]), *(f"{s}{n}" for s, n in zip(signs, numbers[1:], strict=True))]
    rows = ["".join(lines)] if terms == 2 else [line.rjust(terms + 1) for line in lines]
    image = blank(len(rows[0]), len(rows))
    for row, line in enumerate(rows):
        for column, character in enumerate(line):
            write_tile(image, character, column, row)

    parts = [f"I read {''.join(lines)} and work from left to right."]
    wrong_term = rng.randrange(1, terms) if rng.random() < rate else None
    before = numbers[0]
    for position, after in enumerate(totals, start=1):
        sign, number = signs[position - 1], numbers[position]
        if position == wrong_term:
            wrong = near_miss(rng, after)
            parts.append(f"{before}{sign}{number}={wrong}? No, that does not check, once more.")
        parts.append(_by_places(before, sign, number))
        back = "-" if sign == "+" else "+"
        parts.append(f"Back: {after}{back}{number}={before}, good.")
        before = after
    answer = totals[-1]
    summary = f"The value is {answer}: "
    question = "Work out the value of what is written in the picture."
    return Item(question, image, answer, respond(" ".join(parts), answer, summary))


def _by_places(before: int, sign: str, number: int) -> str:
    """Add or take off hundreds, then tens, then ones: `47-18: 47-10=37, 37-8=29.`"""
    steps, value = [], before
    for place in (100, 10, 1):
        part = number // place % 10 * place
        if part:
            after = value + part if sign == "+" else value - part
            steps.append(f"{value}{sign}{part}={after}")
            value = after
    return f"{before}{sign}{number}: {', '.join(steps)}."
