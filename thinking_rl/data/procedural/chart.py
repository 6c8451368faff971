"""Reading bar charts: one tile is as high as one grid line.

Level 1: the height of a bar. 2: two bars together. 3: the highest less the lowest. 4: all bars
together, on an axis with a scale. 5: the totals of two colours compared.
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from thinking_rl.data.procedural.canvas import COLOURS, TILE, blank, write, write_tile
from thinking_rl.data.procedural.item import Item, respond

WRONG_TURNS = {1: 0.0, 2: 1 / 3, 3: 1 / 3, 4: 1 / 3, 5: 1 / 3}
"""Share of responses with a wrong turn, by level."""
SIZES = {1: (3, 4), 2: (4, 5), 3: (5, 6), 4: (6, 8), 5: (8, 8)}
"""Number of bars and greatest height in grid lines, by level."""
UNITS = (2, 5, 10, 20)
"""What a grid line is worth, levels 4 and 5."""


def make(rng: random.Random, level: int, wrong_turns: float | None = None) -> Item:
    """One problem; `wrong_turns` overrides the level's share of responses with a wrong turn."""
    rate = WRONG_TURNS[level] if wrong_turns is None else wrong_turns
    wrong = rng.random() < rate
    count, top = SIZES[level]
    heights = [rng.randint(1, top) for _ in range(count)]
    colours = rng.sample([name for name in COLOURS if name != "black"], 2)
    if level <= 3:
        image = _draw(heights, colours[:1], top, unit=None)
        make_question = {1: _height, 2: _pair, 3: _range}[level]
        question, answer, thought = make_question(rng, heights, wrong)
        return Item(question, image, answer, respond(thought, answer))
    unit = rng.choice(UNITS)
    if level == 4:
        image = _draw(heights, colours[:1], top, unit)
        question, answer, thought = _total(rng, heights, unit, wrong)
    else:
        image = _draw(heights, colours, top, unit)
        question, answer, thought = _compare(rng, heights, colours, unit, wrong)
    return Item(question, image, answer, respond(thought, answer, f"It is {answer}: "))


def _draw(heights: list[int], colours: list[str], top: int, unit: int | None) -> Image.Image:
    """Bars in turn in the given colours, a letter under each group, a scale where `unit` is."""
    left = 0 if unit is None else 1
    image = blank(left + len(heights), top + 1)
    draw = ImageDraw.Draw(image)
    for line in range(top + 1):
        y = (top - line) * TILE
        draw.line((left * TILE, y, image.width - 1, y), fill=(200, 200, 200))
        if unit is not None:
            write(image, f"{line * unit:>4}", 2, min(max(y - 5, 0), image.height - 11), scale=1)
    for bar, height in enumerate(heights):
        x, base = (left + bar) * TILE, top * TILE
        box = (x + 6, base - height * TILE, x + 21, base - 1)
        draw.rectangle(box, fill=COLOURS[colours[bar % len(colours)]])
        if bar % len(colours) == 0:
            write_tile(image, _letter(bar // len(colours)), left + bar, top)
    return image


def _letter(position: int) -> str:
    return "ABCDEFGH"[position]


def _read(rng: random.Random, value: int, wrong: bool) -> str:
    if not wrong:
        return str(value)
    slip = value + rng.choice([-1, 1] if value > 1 else [1])
    return f"{slip}? No, {value}"


def _height(rng: random.Random, heights: list[int], wrong: bool) -> tuple[str, int, str]:
    bar = rng.randrange(len(heights))
    question = f"How many grid lines high is bar {_letter(bar)}?"
    return question, heights[bar], f"{_letter(bar)}: {_read(rng, heights[bar], wrong)}."


def _pair(rng: random.Random, heights: list[int], wrong: bool) -> tuple[str, int, str]:
    a, b = sorted(rng.sample(range(len(heights)), 2))
    answer = heights[a] + heights[b]
    thought = (
        f"{_letter(a)}: {heights[a]}. {_letter(b)}: {_read(rng, heights[b], wrong)}. "
        f"{heights[a]}+{heights[b]}={answer}."
    )
    return f"How many grid lines are {_letter(a)} and {_letter(b)} together?", answer, thought


def _range(rng: random.Random, heights: list[int], wrong: bool) -> tuple[str, int, str]:
    misread = rng.randrange(len(heights)) if wrong else None
    bars = " ".join(
        f"{_letter(bar)}: {_read(rng, height, bar == misread)}."
        for bar, height in enumerate(heights)
    )
    high, low = max(heights), min(heights)
    thought = f"{bars} Highest: {high}. Lowest: {low}. {high}-{low}={high - low}."
    question = "By how many grid lines is the highest bar higher than the lowest?"
    return question, high - low, thought


def _sum(numbers: list[int]) -> str:
    return f"{'+'.join(map(str, numbers))}={sum(numbers)}"


def _total(rng: random.Random, heights: list[int], unit: int, wrong: bool) -> tuple[str, int, str]:
    values = [height * unit for height in heights]
    misread = rng.randrange(len(heights)) if wrong else None
    lines = []
    for bar, height in enumerate(heights):
        if bar == misread:
            lines.append(f"{_letter(bar)} ends at {(height + 1) * unit}? No, one line lower.")
        lines.append(f"{_letter(bar)} ends at {values[bar]}.")
    thought = (
        f"The lines go up in steps of {unit}. {' '.join(lines)} {_sum(values)}. To check I count "
        f"lines: {_sum(heights)}, and {sum(heights)}*{unit}={sum(values)}, the same."
    )
    return "What is the sum of all bars?", sum(values), thought


def _compare(
    rng: random.Random, heights: list[int], colours: list[str], unit: int, wrong: bool
) -> tuple[str, int, str]:
    totals = {colour: heights[i::2] for i, colour in enumerate(colours)}
    more, less = sorted(colours, key=lambda colour: -sum(totals[colour]))
    lines = [f"The lines go up in steps of {unit}, so I count lines first and multiply last."]
    for colour in (more, less):
        if wrong and colour == less:
            slip = [totals[colour][0] + 1, *totals[colour][1:]]
            lines.append(f"The {colour} bars: {_sum(slip)}? I look again, A is one lower.")
        lines.append(f"The {colour} bars: {_sum(totals[colour])}.")
    high, low = sum(totals[more]), sum(totals[less])
    answer = (high - low) * unit
    lines.append(f"{high}-{low}={high - low} and {high - low}*{unit}={answer}.")
    lines.append(f"The other way: {high}*{unit}={high * unit}, {low}*{unit}={low * unit}, and")
    lines.append(f"{high * unit}-{low * unit}={answer}, the same.")
    question = f"By how much is the sum of the {more} bars greater than that of the {less} bars?"
    return question, answer, " ".join(lines)
