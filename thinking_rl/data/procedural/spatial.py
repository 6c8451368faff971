"""Where shapes stand to each other on a grid.

Level 1: how many tiles apart two shapes are in one row. 2: the steps from one to another along
rows and columns. 3: how many shapes are left of one. 4: how many are left of one and above
another. 5: how many shapes a described walk steps on.
"""

from __future__ import annotations

import random

from PIL import Image

from thinking_rl.data.procedural.canvas import COLOURS, SHAPES, blank, put_shape
from thinking_rl.data.procedural.item import Item, respond

WRONG_TURNS = {1: 0.0, 2: 1 / 3, 3: 1 / 3, 4: 1 / 3, 5: 1 / 3}
"""Share of responses with a wrong turn, by level."""
GRIDS = {1: (5, 1), 2: (4, 4), 3: (5, 5), 4: (6, 6), 5: (7, 7)}
"""Columns and rows, by level."""
OBJECTS = {1: 2, 2: 2, 3: 6, 4: 9, 5: 16}
"""Shapes on the grid, no two alike, by level."""

Places = dict[str, tuple[int, int]]
"""`red circle` -> column and row, counted from 1."""


def make(rng: random.Random, level: int, wrong_turns: float | None = None) -> Item:
    """One problem; `wrong_turns` overrides the level's share of responses with a wrong turn."""
    rate = WRONG_TURNS[level] if wrong_turns is None else wrong_turns
    wrong = rng.random() < rate
    image, places = _scene(rng, *GRIDS[level], OBJECTS[level])
    question, answer, thought = {
        1: _apart,
        2: _steps,
        3: _left_of,
        4: _left_and_above,
        5: _walk,
    }[level](rng, places, wrong)
    summary = f"The answer is {answer}: " if level >= 3 else ""
    return Item(question, image, answer, respond(thought, answer, summary))


def _scene(rng: random.Random, columns: int, rows: int, count: int) -> tuple[Image.Image, Places]:
    tiles = [(column, row) for row in range(rows) for column in range(columns)]
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    image, places = blank(columns, rows), {}
    for (column, row), (colour, shape) in zip(
        rng.sample(tiles, count), rng.sample(kinds, count), strict=True
    ):
        put_shape(image, colour, shape, column, row)
        places[f"{colour} {shape}"] = (column + 1, row + 1)
    return image, places


def _read(rng: random.Random, value: int, wrong: bool) -> str:
    """A column or row number, at first misread by one where a wrong turn is due."""
    if not wrong:
        return str(value)
    slip = value + rng.choice([-1, 1] if value > 1 else [1])
    return f"{slip}? No, counting again, {value}"


def _apart(rng: random.Random, places: Places, wrong: bool) -> tuple[str, int, str]:
    (first, (a, _)), (second, (b, _)) = sorted(places.items(), key=lambda item: item[1])
    thought = f"{a} and {_read(rng, b, wrong)}: {b}-{a}={b - a}."
    return f"How many tiles is the {second} to the right of the {first}?", b - a, thought


def _steps(rng: random.Random, places: Places, wrong: bool) -> tuple[str, int, str]:
    (first, (a, c)), (second, (b, d)) = places.items()
    across, down = abs(a - b), abs(c - d)
    thought = (
        f"Columns {a} and {_read(rng, b, wrong)}: {max(a, b)}-{min(a, b)}={across}. "
        f"Rows {c} and {d}: {max(c, d)}-{min(c, d)}={down}. {across}+{down}={across + down}."
    )
    question = (
        f"How many steps is it from the {first} to the {second}, moving only along rows and "
        "columns?"
    )
    return question, across + down, thought


def _left_of(rng: random.Random, places: Places, wrong: bool) -> tuple[str, int, str]:
    anchor, *others = places
    column = places[anchor][0]
    misread = rng.choice(others) if wrong else None
    columns = ", ".join(
        f"the {other} in column {_read(rng, places[other][0], other == misread)}"
        for other in others
    )
    inside = [other for other in others if places[other][0] < column]
    thought = (
        f"The {anchor} is in column {column}, so I look for columns below {column}. "
        f"I find {columns}. {_total(inside, len(others))}"
    )
    return f"How many shapes are further left than the {anchor}?", len(inside), thought


def _left_and_above(rng: random.Random, places: Places, wrong: bool) -> tuple[str, int, str]:
    anchor, ceiling, *others = places
    column, row = places[anchor][0], places[ceiling][1]
    misread = rng.choice(others) if wrong else None
    lines = []
    for other in places:
        x, y = places[other]
        lines.append(f"the {other} at {_read(rng, x, other == misread)} | {y}")
    inside = [other for other, (x, y) in places.items() if x < column and y < row]
    left = [other for other, (x, _) in places.items() if x < column]
    above = [other for other, (_, y) in places.items() if y < row]
    thought = (
        f"I note column | row of every shape: {', '.join(lines)}. Columns below {column} have: "
        f"{_names(left)}. Of these I keep rows below {row}. {_total(inside, len(places))} "
        f"The other way round, rows below {row} have: {_names(above)}; of these {len(inside)} "
        f"in columns below {column}, the same."
    )
    question = f"How many shapes are further left than the {anchor} and higher than the {ceiling}?"
    return question, len(inside), thought


def _names(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def _total(inside: list[str], of: int) -> str:
    count = len(inside)
    return f"That keeps {_names(inside)}: {count}, and leaves out {of}-{count}={of - count}."


def _walk(rng: random.Random, places: Places, wrong: bool) -> tuple[str, int, str]:
    columns, rows = GRIDS[5]
    start = next(iter(places))
    x, y = places[start]
    by_place = {place: name for name, place in places.items()}
    legs, lines, met = [], [], 0
    wrong_leg = rng.randrange(3) if wrong else None
    for leg in range(3):
        moves = {"right": columns - x, "left": x - 1, "down": rows - y, "up": y - 1}
        across = leg % 2 == 0
        options = ("right", "left") if across else ("down", "up")
        way = max(options, key=lambda option: (moves[option], rng.random()))
        length = rng.randint(1, moves[way])
        legs.append(f"{length} {way}")
        seen = []
        for _ in range(length):
            x += {"right": 1, "left": -1}.get(way, 0)
            y += {"down": 1, "up": -1}.get(way, 0)
            seen.append(f"{x} | {y} {by_place.get((x, y), 'empty')}")
        hits = sum(not line.endswith("empty") for line in seen)
        if leg == wrong_leg:
            lines.append(f"{length} {way}: {hits + 1} on the way? I check tile by tile.")
        lines.append(f"{length} {way}: {', '.join(seen)}. {met}+{hits}={met + hits}.")
        met += hits
    thought = (
        f"The {start} is at column | row {places[start][0]} | {places[start][1]}. I note every "
        f"tile of the walk. {' '.join(lines)}"
    )
    question = (
        f"Start on the {start} and go {', '.join(legs[:-1])} and {legs[-1]}. How many times do "
        "you step on a shape, the start not counted?"
    )
    return question, met, thought
