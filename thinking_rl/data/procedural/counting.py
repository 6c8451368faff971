"""Counting shapes on a grid.

Level 1: all shapes. 2: those of one colour. 3: those of one colour and shape. 4: those of one
shape that do not have a colour. 5: how many more there are of one kind than of another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from thinking_rl.data.procedural.canvas import COLOURS, SHAPES, blank, put_shape
from thinking_rl.data.procedural.item import Item, respond

WRONG_TURNS = {1: 0.0, 2: 1 / 3, 3: 1 / 3, 4: 1 / 3, 5: 1 / 3}
"""Share of responses with a wrong turn, by level."""
GRIDS = {1: (3, 2), 2: (4, 3), 3: (5, 4), 4: (7, 6), 5: (9, 8)}
"""Columns and rows, by level."""

Kind = tuple[str, str]
"""Colour and shape."""


@dataclass(frozen=True)
class Scene:
    """Which shape stands on which tile (column, row)."""

    columns: int
    """Tiles across."""
    rows: int
    """Tiles down."""
    shapes: Mapping[tuple[int, int], Kind]
    """(column, row), both from 0 -> what stands there; empty tiles are left out."""


def make(rng: random.Random, level: int, wrong_turns: float | None = None) -> Item:
    """One problem; `wrong_turns` overrides the level's share of responses with a wrong turn."""
    rate = WRONG_TURNS[level] if wrong_turns is None else wrong_turns
    wrong = rng.random() < rate
    colours, shapes = rng.sample(list(COLOURS), 2), rng.sample(SHAPES, 2)
    if level == 1:
        colours, shapes = colours[:1], shapes[:1]
    scene = _scene(rng, *GRIDS[level], [(colour, shape) for colour in colours for shape in shapes])
    image = blank(scene.columns, scene.rows)
    for (column, row), (colour, shape) in scene.shapes.items():
        put_shape(image, colour, shape, column, row)

    colour, shape = colours[0], shapes[0]
    if level == 5:
        return _difference(rng, image, scene, ((colour, shape), (colours[1], shapes[1])), wrong)
    wanted: dict[int, tuple[str, Callable[[Kind], bool]]] = {
        1: ("shapes", lambda kind: True),
        2: (f"{colour} shapes", lambda kind: kind[0] == colour),
        3: (f"{colour} {shape}s", lambda kind: kind == (colour, shape)),
        4: (f"{shape}s that are not {colour}", lambda k: k[1] == shape and k[0] != colour),
    }
    name, matches = wanted[level]
    answer, thought = _count(rng, scene, matches, wrong)
    if level >= 3:
        thought = f"I count the {name} by rows, then by columns to check. {thought}"
    summary = f"There are {answer} {name}: " if level >= 3 else ""
    question = f"How many {name} are there?"
    return Item(question, image, answer, respond(thought, answer, summary))


def _scene(rng: random.Random, columns: int, rows: int, kinds: list[Kind]) -> Scene:
    """About two thirds of the tiles get a shape of a random kind."""
    tiles = [(column, row) for row in range(rows) for column in range(columns)]
    shapes = {tile: rng.choice(kinds) for tile in tiles if rng.random() < 2 / 3}
    return Scene(columns, rows, shapes)


def _count(
    rng: random.Random, scene: Scene, matches: Callable[[Kind], bool], wrong: bool
) -> tuple[int, str]:
    """The count and how it was found: by rows, checked by columns."""
    by_row, by_column = [0] * scene.rows, [0] * scene.columns
    for (column, row), kind in scene.shapes.items():
        if matches(kind):
            by_row[row] += 1
            by_column[column] += 1
    rows, columns = f"Rows: {_sum(by_row)}", f"Columns: {_sum(by_column)}"
    if not wrong:
        return sum(by_row), f"{rows}. {columns}."
    row = rng.randrange(scene.rows)
    slip = list(by_row)
    slip[row] += rng.choice([-1, 1]) if by_row[row] else 1
    return sum(by_row), (
        f"Rows: {_sum(slip)}? {columns}. They differ, so I look at the rows again: "
        f"row {row + 1} has {by_row[row]}. {rows}."
    )


def _sum(numbers: list[int]) -> str:
    return f"{'+'.join(map(str, numbers))}={sum(numbers)}"


def _difference(
    rng: random.Random, image: Image.Image, scene: Scene, kinds: tuple[Kind, Kind], wrong: bool
) -> Item:
    misread = rng.choice(kinds) if wrong else None
    counts = {
        kind: _count(rng, scene, lambda other, kind=kind: other == kind, kind == misread)
        for kind in kinds
    }
    more, fewer = sorted(counts, key=lambda kind: -counts[kind][0])
    (high, how_high), (low, how_low) = counts[more], counts[fewer]
    names = {kind: f"{' '.join(kind)}s" for kind in counts}
    answer = high - low
    thought = (
        f"I count both kinds by rows, then by columns to check, and take one from the other. "
        f"The {names[more]}. {how_high} The {names[fewer]}. {how_low} {high}-{low}={answer}. "
        f"Back: {low}+{answer}={high}, good."
    )
    summary = f"There are {high} {names[more]} and {low} {names[fewer]}: "
    question = f"How many more {names[more]} than {names[fewer]} are there?"
    return Item(question, image, answer, respond(thought, answer, summary))
