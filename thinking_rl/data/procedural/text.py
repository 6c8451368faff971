"""Text drawn as a picture, so that the question can only be answered by reading it.

Level 1: how many letters. 2: how often a letter stands there. 3: a sum in number words. 4: a
price list. 5: what a small Python program prints.
"""

from __future__ import annotations

import random

from PIL import Image

from thinking_rl.data.procedural.canvas import GLYPH_HEIGHT, TILE, blank, write, write_tile
from thinking_rl.data.procedural.item import Item, near_miss, respond

WRONG_TURNS = {1: 0.0, 2: 1 / 3, 3: 1 / 3, 4: 1 / 3, 5: 1 / 3}
"""Share of responses with a wrong turn, by level."""
NUMBERS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "TEN")
GOODS = ("PEN", "CUP", "BAG", "MAP", "KEY", "HAT", "BOX", "NUT")


def make(rng: random.Random, level: int, wrong_turns: float | None = None) -> Item:
    """One problem; `wrong_turns` overrides the level's share of responses with a wrong turn."""
    rate = WRONG_TURNS[level] if wrong_turns is None else wrong_turns
    wrong = rng.random() < rate
    families = {1: _letters, 2: _letter, 3: _words, 4: _prices, 5: _program}
    return families[level](rng, wrong)


def _tiles(lines: list[str]) -> Image.Image:
    """One letter a tile."""
    image = blank(max(map(len, lines)), len(lines))
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            write_tile(image, character, column, row)
    return image


def _page(lines: list[str], columns: int) -> Image.Image:
    """Lines of running text, one a row of tiles."""
    image = blank(columns, len(lines))
    for row, line in enumerate(lines):
        write(image, line, 4, row * TILE + (TILE - 2 * GLYPH_HEIGHT) // 2)
    return image


def _letters(rng: random.Random, wrong: bool) -> Item:
    word = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(1, 6)))
    count = len(word)
    slip = f"{near_miss(rng, count)}? No, " if wrong else ""
    thought = f"{' '.join(word)}: {slip}{count}."
    return Item("How many letters are there?", _tiles([word]), count, respond(thought, count))


def _letter(rng: random.Random, wrong: bool) -> Item:
    letters = rng.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 3)
    word = "".join(rng.choices(letters, k=rng.randint(4, 8)))
    letter = rng.choice(word)
    places = [str(place) for place, other in enumerate(word, start=1) if other == letter]
    count = len(places)
    slip = f"{near_miss(rng, count)}? No, " if wrong else ""
    thought = f"{' '.join(word)}: {letter} at {', '.join(places)}, that makes {slip}{count}."
    question = f"How many times does {letter} stand in the picture?"
    return Item(question, _tiles([word]), count, respond(thought, count))


def _words(rng: random.Random, wrong: bool) -> Item:
    a, b = rng.randrange(11), rng.randrange(11)
    name, sign, answer = rng.choice(
        [("PLUS", "+", a + b), ("MINUS", "-", max(a, b) - min(a, b)), ("TIMES", "*", a * b)]
    )
    if sign == "-":
        a, b = max(a, b), min(a, b)
    slip = f"{near_miss(rng, answer)}? No, " if wrong else ""
    thought = f"{NUMBERS[a]} is {a}, {NUMBERS[b]} is {b}: {a}{sign}{b}={slip}{answer}."
    image = _tiles([NUMBERS[a], name, NUMBERS[b]])
    return Item("What is the result?", image, answer, respond(thought, answer))


def _prices(rng: random.Random, wrong: bool) -> Item:
    goods = rng.sample(GOODS, 4)
    counts = [rng.randint(2, 9) for _ in goods]
    prices = [rng.randint(3, 29) for _ in goods]
    page = [f"{n} {name} x {price}" for n, name, price in zip(counts, goods, prices, strict=True)]
    wrong_line = rng.randrange(4) if wrong else None
    lines, costs = ["I multiply line by line, then add."], []
    for line, (count, price) in enumerate(zip(counts, prices, strict=True)):
        cost = count * price
        if line == wrong_line:
            lines.append(f"{count}*{price}={near_miss(rng, cost)}? No, once more.")
        lines.append(f"{goods[line]}: {_product(count, price)}.")
        costs.append(cost)
    answer = sum(costs)
    backwards = "+".join(map(str, reversed(costs)))
    lines.append(f"{'+'.join(map(str, costs))}={answer}. Backwards: {backwards}={answer}, good.")
    question = "Each line is a number of things and the price of one. What do all of them cost?"
    thought = " ".join(lines)
    return Item(question, _page(page, 5), answer, respond(thought, answer, "The total is "))


def _product(count: int, price: int) -> str:
    """`3*12`: tens and ones apart, where the price has both."""
    tens, ones = price // 10 * 10, price % 10
    if not tens or not ones:
        return f"{count}*{price}={count * price}"
    return (
        f"{count}*{tens}={count * tens}, {count}*{ones}={count * ones}, "
        f"{count * tens}+{count * ones}={count * price}"
    )


def _program(rng: random.Random, wrong: bool) -> Item:
    x, y, turns = rng.randint(1, 20), rng.randint(1, 9), rng.randint(2, 5)
    step, sign = rng.randint(1, 5), rng.choice("+-")
    y += step * turns if sign == "-" else 0  # so that y stays positive
    page = [
        f"x = {x}",
        f"y = {y}",
        f"for i in range({turns}):",
        "    x = x + y",
        f"    y = y {sign} {step}",
        "print(x)",
    ]
    wrong_turn = rng.randrange(turns) if wrong else None
    lines = [f"x is {x} and y is {y}. The loop runs {turns} times."]
    first, added = x, []
    for turn in range(turns):
        if turn == wrong_turn:
            lines.append(f"x: {x}+{y}={near_miss(rng, x + y)}? No, I add again.")
        after = y + step if sign == "+" else y - step
        lines.append(f"x: {x}+{y}={x + y}. y: {y}{sign}{step}={after}.")
        added.append(y)
        x, y = x + y, after
    lines.append(f"All that was added: {'+'.join(map(str, added))}={sum(added)},")
    lines.append(f"and {first}+{sum(added)}={x}, the same.")
    question = "What does the program print?"
    thought = " ".join(lines)
    return Item(question, _page(page, 8), x, respond(thought, x, "It prints "))
