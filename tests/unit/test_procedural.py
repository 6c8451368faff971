"""Procedural problems: answers and chains are recomputed from the pixels by readers of our own."""

import contextlib
import hashlib
import io
import random
import re
import string
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from thinking_rl.data.procedural import FAMILIES, generate
from thinking_rl.recipe.schema import FAMILIES as RECIPE_FAMILIES
from thinking_rl.types import Problem

LEVELS = (1, 2, 3, 4, 5)
CASES = [(family, level) for family in RECIPE_FAMILIES for level in LEVELS]
COLOURS = {
    "red": (214, 39, 40),
    "blue": (31, 80, 210),
    "green": (30, 150, 50),
    "yellow": (240, 190, 20),
    "black": (0, 0, 0),
}


def pixels(problem: Problem) -> np.ndarray:
    """[height, width, 3]"""
    (image,) = problem.images
    assert isinstance(image, bytes)
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


# --- readers


CHARACTERS = string.ascii_letters + string.digits + "+-=():"


def glyphs(scale: int) -> dict[bytes, str]:
    """Ink of each character, cropped to its bounding box, drawn afresh with Pillow's font."""
    known = {}
    font = ImageFont.load_default_imagefont()
    for character in CHARACTERS:
        image = Image.new("L", (6, 11), 255)
        ImageDraw.Draw(image).text((0, 0), character, font=font, fill=0)
        ink = np.asarray(image.resize((6 * scale, 11 * scale), Image.Resampling.NEAREST)) < 128
        known[crop(ink)] = character
    assert len(known) == len(CHARACTERS), "characters that cannot be told apart"
    return known


def crop(ink: np.ndarray) -> bytes:
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not rows.size:
        return b""
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return bytes(box.shape) + box.tobytes()


GLYPHS = {1: glyphs(1), 2: glyphs(2)}


def read_cells(picture: np.ndarray, width: int, scale: int = 2) -> str:
    """One line of text, a character every `width` pixels."""
    ink = picture.max(axis=2) < 60
    cells = [ink[:, x : x + width] for x in range(0, ink.shape[1] - width + 1, width)]
    return "".join(" " if not crop(c) else GLYPHS[scale][crop(c)] for c in cells)


def read_tiles(picture: np.ndarray) -> list[str]:
    return [read_cells(picture[y : y + 28], 28) for y in range(0, picture.shape[0], 28)]


def read_page(picture: np.ndarray) -> list[str]:
    rows = range(0, picture.shape[0], 28)
    return [read_cells(picture[y : y + 28, 4:], 12).rstrip() for y in rows]


def shapes(picture: np.ndarray) -> list[tuple[str, str, tuple[int, int, int, int]]]:
    """Connected components of each colour: (colour, shape, (left, top, right, bottom))."""
    found = []
    for name, rgb in COLOURS.items():
        left = {(int(x), int(y)) for y, x in np.argwhere((picture == rgb).all(axis=2))}
        while left:
            stack, blob = [left.pop()], []
            while stack:
                x, y = stack.pop()
                blob.append((x, y))
                near = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & left
                left -= near
                stack.extend(near)
            xs, ys = [x for x, _ in blob], [y for _, y in blob]
            box = min(xs), min(ys), max(xs), max(ys)
            found.append((name, _shape(blob, box), box))
    return found


def _shape(blob: list[tuple[int, int]], box: tuple[int, int, int, int]) -> str:
    left, top, right, bottom = box
    fill = len(blob) / ((right - left + 1) * (bottom - top + 1))
    if fill > 0.95:
        return "square"
    if fill > 0.7:
        return "circle"
    widest = sum(y == bottom for _, y in blob)
    return "triangle" if widest > (right - left) * 0.9 else "diamond"


def grid(problem: Problem) -> dict[tuple[int, int], tuple[str, str]]:
    """(column, row), counted from 1 -> (colour, shape)."""
    found = shapes(pixels(problem))
    cells = {
        ((left + right) // 2 // 28 + 1, (top + bottom) // 2 // 28 + 1): (colour, shape)
        for colour, shape, (left, top, right, bottom) in found
    }
    assert len(cells) == len(found)
    return cells


# --- answers, from the picture and the question alone


def solve_arithmetic(problem: Problem) -> int:
    lines = read_tiles(pixels(problem))
    if problem.question == "Add the digits.":
        return sum(map(int, lines[0]))
    return calculate("".join(lines).replace(" ", ""))


def calculate(expression: str) -> int:
    assert re.fullmatch(r"\d+([+*-]\d+)*", expression), expression
    return eval(expression)


def solve_counting(problem: Problem) -> int:
    kinds = list(grid(problem).values())
    question = problem.question
    if match := re.fullmatch(r"How many more (\w+) (\w+)s than (\w+) (\w+)s are there\?", question):
        return kinds.count((match[1], match[2])) - kinds.count((match[3], match[4]))
    if match := re.fullmatch(r"How many (\w+)s that are not (\w+) are there\?", question):
        return sum(shape == match[1] and colour != match[2] for colour, shape in kinds)
    match = re.fullmatch(r"How many (?:(\w+) )?(\w+)s are there\?", question)
    assert match
    return sum(
        match[1] in (None, colour) and match[2] in ("shape", shape) for colour, shape in kinds
    )


def solve_spatial(problem: Problem) -> int:
    places = {f"{colour} {shape}": place for place, (colour, shape) in grid(problem).items()}
    names = re.findall(r"(?:red|blue|green|yellow|black) \w+", problem.question)
    (x, y), *others = [places[name] for name in names]
    if "to the right of" in problem.question:
        return x - others[0][0]
    if "How many steps" in problem.question:
        return abs(x - others[0][0]) + abs(y - others[0][1])
    if "higher than" in problem.question:
        return sum(a < x and b < others[0][1] for a, b in places.values())
    if "further left" in problem.question:
        return sum(a < x for a, _ in places.values())
    met = 0
    for length, way in re.findall(r"(\d+) (right|left|up|down)", problem.question):
        for _ in range(int(length)):
            x += (way == "right") - (way == "left")
            y += (way == "down") - (way == "up")
            met += (x, y) in places.values()
    return met


def bars(problem: Problem) -> tuple[list[int], list[str]]:
    """Heights in grid lines and colours, from left to right."""
    found = [shape for shape in shapes(pixels(problem)) if shape[0] != "black"]
    found.sort(key=lambda shape: shape[2][0])
    heights = [(bottom - top + 1) / 28 for _, _, (_, top, _, bottom) in found]
    assert all(height == int(height) for height in heights)
    return [int(height) for height in heights], [colour for colour, _, _ in found]


def unit(problem: Problem) -> int:
    """What the second lowest grid line says."""
    picture = pixels(problem)
    y = (picture.shape[0] // 28 - 2) * 28 - 5
    return int(read_cells(picture[y : y + 11, 2:26], 6, scale=1))


def solve_chart(problem: Problem) -> int:
    heights, colours = bars(problem)
    by_letter = dict(zip("ABCDEFGH", heights, strict=False))
    question = problem.question
    if match := re.search(r"high is bar (\w)\?", question):
        return by_letter[match[1]]
    if match := re.search(r"are (\w) and (\w) together", question):
        return by_letter[match[1]] + by_letter[match[2]]
    if "highest bar" in question:
        return max(heights) - min(heights)
    if "sum of all bars" in question:
        return sum(heights) * unit(problem)
    match = re.search(r"sum of the (\w+) bars greater than that of the (\w+) bars", question)
    assert match
    totals = {
        name: sum(h for h, c in zip(heights, colours, strict=True) if c == name)
        for name in set(colours)
    }
    return (totals[match[1]] - totals[match[2]]) * unit(problem)


def solve_text(problem: Problem) -> int:
    if problem.level == 1:
        return len(read_tiles(pixels(problem))[0].replace(" ", ""))
    if problem.level == 2:
        return read_tiles(pixels(problem))[0].count(problem.question.split()[4])
    if problem.level == 3:
        words = [
            "ZERO",
            "ONE",
            "TWO",
            "THREE",
            "FOUR",
            "FIVE",
            "SIX",
            "SEVEN",
            "EIGHT",
            "NINE",
            "TEN",
        ]
        a, name, b = (line.strip() for line in read_tiles(pixels(problem)))
        sign = {"PLUS": "+", "MINUS": "-", "TIMES": "*"}[name]
        return calculate(f"{words.index(a)}{sign}{words.index(b)}")
    page = read_page(pixels(problem))
    if problem.level == 4:
        lines = [re.fullmatch(r"(\d+) [A-Z]{3} x (\d+)", line) for line in page]
        return sum(int(line[1]) * int(line[2]) for line in lines if line)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("\n".join(page), {"__builtins__": {"range": range, "print": print}})
    return int(printed.getvalue())


SOLVERS: dict[str, Callable[[Problem], int]] = {
    "arithmetic": solve_arithmetic,
    "counting": solve_counting,
    "spatial": solve_spatial,
    "chart": solve_chart,
    "text": solve_text,
}


@pytest.mark.parametrize(("family", "level"), CASES)
def test_answers_are_what_the_picture_says(family: str, level: int):
    for number in range(25):
        problem = generate(f"answers/{number}", [family], [level]).problem
        assert (problem.subject, problem.level) == (family, level)
        assert str(SOLVERS[family](problem)) == problem.answer, problem.question
        height, width, _ = pixels(problem).shape
        assert width % 28 == height % 28 == 0
        if level <= 3:
            assert max(width, height) <= 224


# --- chains of thought


@pytest.mark.parametrize(("family", "level"), CASES)
def test_chains_end_in_the_answer_and_calculate_right(family: str, level: int):
    for number in range(60):
        item = FAMILIES[family](random.Random(f"{number}"), level, (0.0, 1.0)[number % 2])
        match = re.fullmatch(
            r"◁think▷([^◁▷]+)◁/think▷([^◁▷]*)\\boxed\{(\d+)\}", item.response, flags=re.DOTALL
        )
        assert match, item.response
        assert int(match[3]) == item.answer
        thought = match[1]
        assert re.findall(r"\d+", item.response)[-1] == str(item.answer)
        if number % 2 == 0:
            assert "?" not in thought
        elif level >= 2:
            assert "?" in thought, "a wrong turn is due"
            assert thought.rindex("?") < len(thought) - 3, "and is mended afterwards"
        for left, right, mark in re.findall(r"(?<![\d+*-])(\d+(?:[+*-]\d+)+)=(\d+)(\?)?", thought):
            if not mark:
                assert calculate(left) == int(right), item.response
        for left, wrong, mended in re.findall(r"(\d+(?:[+*-]\d+)+)=(\d+)\? [Nn]o, (\d+)", thought):
            assert calculate(left) == int(mended) != int(wrong), item.response


def as_problem(family: str, level: int, number: int) -> tuple[Problem, str]:
    example = generate(f"chains/{number}", [family], [level])
    return example.problem, example.response


@pytest.mark.parametrize("level", LEVELS)
def test_counts_in_counting_chains_are_true(level: int):
    for number in range(25):
        problem, response = as_problem("counting", level, number)
        cells = grid(problem)
        height, width, _ = pixels(problem).shape
        kinds = set(cells.values())
        rows = [
            [
                sum(k in wanted and y == row + 1 for (_, y), k in cells.items())
                for row in range(height // 28)
            ]
            for wanted in subsets(kinds)
        ]
        columns = [
            [
                sum(k in wanted and x == column + 1 for (x, _), k in cells.items())
                for column in range(width // 28)
            ]
            for wanted in subsets(kinds)
        ]
        for name, sums in (("Rows", rows), ("Columns", columns)):
            stated = re.findall(rf"{name}: ([\d+]+)=\d+\.", response)
            assert stated
            for numbers in stated:
                assert list(map(int, numbers.split("+"))) in sums, response


def subsets(kinds: set) -> list[set]:
    """All sets of kinds that a question can ask for."""
    colours, forms = {colour for colour, _ in kinds}, {shape for _, shape in kinds}
    by_colour = [{kind for kind in kinds if kind[0] == colour} for colour in colours]
    by_form = [{kind for kind in kinds if kind[1] == form} for form in forms]
    return [set(), kinds, *({kind} for kind in kinds), *by_colour, *by_form]


@pytest.mark.parametrize("level", [3, 4, 5])
def test_places_in_spatial_chains_are_true(level: int):
    for number in range(25):
        problem, response = as_problem("spatial", level, number)
        cells = grid(problem)
        names = {" ".join(kind): place for place, kind in cells.items()}
        truth = re.sub(r"\d+\? No, counting again, ", "", response)
        in_column = re.findall(r"the (\w+ \w+) in column (\d+)", truth)
        at = re.findall(r"the (\w+ \w+) at (?:column \| row )?(\d+) \| (\d+)", truth)
        steps = re.findall(r"(\d+) \| (\d+) (empty|\w+ \w+)[,.]", truth)
        assert in_column or at or steps
        assert all(names[name][0] == int(column) for name, column in in_column)
        assert all(names[name] == (int(x), int(y)) for name, x, y in at)
        for x, y, name in steps:
            assert " ".join(cells.get((int(x), int(y)), ("empty",))) == name
        if level == 3:
            assert len(in_column) == 5
        if level == 4:
            assert len(at) == 9


@pytest.mark.parametrize("level", LEVELS)
def test_readings_in_chart_chains_are_true(level: int):
    for number in range(25):
        problem, response = as_problem("chart", level, number)
        heights, colours = bars(problem)
        truth = re.sub(r"\d+\? No, ", "", response)
        letters = "ABCDEFGH"
        single = re.findall(r"\b([A-H]): (\d+)\.", truth)
        for letter, height in single:
            assert heights[letters.index(letter)] == int(height)
        ends = re.findall(r"([A-H]) ends at (\d+)\.", truth)
        assert len(ends) == (6 if level == 4 else 0)
        for letter, value in ends:
            assert heights[letters.index(letter)] * unit(problem) == int(value)
        sums = re.findall(r"The (\w+) bars: ([\d+]+)=\d+\.", truth)
        assert single or ends or sums
        for colour, numbers in sums:
            expected = [h for h, c in zip(heights, colours, strict=True) if c == colour]
            assert list(map(int, numbers.split("+"))) == expected


def test_rows_of_digits_are_short():
    for level in (1, 2, 3, 4):
        for number in range(300):
            make = FAMILIES["arithmetic"]
            plain = make(random.Random(f"{number}"), level, 0.0)
            assert len(plain.response) <= 59
            assert plain.image.size == (28 * level, 28)
            turned = make(random.Random(f"{number}"), level, 1.0)
            assert len(turned.response) <= 59 + 8
    assert FAMILIES["arithmetic"](random.Random("0"), 3, 0.0).response == (
        "◁think▷5 1 4: 5+1=6, 6+4=10.◁/think▷\\boxed{10}"
    )


@pytest.mark.parametrize(("family", "level"), CASES)
def test_share_of_wrong_turns(family: str, level: int):
    rng = random.Random("share")
    turned = sum("?" in FAMILIES[family](rng, level).response for _ in range(400)) / 400
    expected = 0.0 if level == 1 else 1 / 3
    if family == "arithmetic" and level in (2, 3, 4):
        expected = 0.05
    assert turned == pytest.approx(expected, abs=0.08)


# --- determinism and the split


@pytest.mark.parametrize(("family", "level"), CASES)
def test_both_sides_of_the_split_have_pictures(family: str, level: int):
    ours = {generate(f"{n}", [family], [level]).problem.images for n in range(20)}
    held = {generate(f"{n}", [family], [level], "held-out").problem.images for n in range(5)}
    rl = {generate(f"{n}", [family], [level], "rl").problem.images for n in range(5)}
    assert ours
    assert held
    assert rl
    assert not ours & held
    assert not rl & (ours | held)


def test_twenty_problems_are_the_same_everywhere():
    digest = hashlib.sha256()
    for number in range(20):
        example = generate(f"golden/{number}", RECIPE_FAMILIES, [1, 2, 3, 4, 5])
        picture = pixels(example.problem)
        for part in (
            str(picture.shape),
            example.problem.id,
            example.problem.question,
            example.problem.answer,
            example.response,
        ):
            digest.update(part.encode())
        digest.update(picture.tobytes())
    assert digest.hexdigest() == "87454e3394d981c0926dc97d1bacf418b659a51a964837f59e93df9b7eceb30d"


def test_families_are_those_of_the_recipe():
    assert tuple(FAMILIES) == RECIPE_FAMILIES


@pytest.mark.parametrize(("family", "level"), CASES)
def test_direct_responses_are_right_and_show_no_step(family: str, level: int) -> None:
    keys = [f"direct/{number}" for number in range(40)]
    stepwise = [generate(key, [family], [level]) for key in keys]
    mixed = [generate(key, [family], [level], direct=0.5) for key in keys]
    changed = 0
    for before, after in zip(stepwise, mixed, strict=True):
        assert after.problem == before.problem
        assert after.response.endswith(f"\\boxed{{{after.problem.answer}}}")
        if after.response != before.response:
            changed += 1
            assert "=" not in after.response
            assert len(after.response) < len(before.response)
    if (family, level) != ("arithmetic", 1):  # where there is no step to leave out
        assert 8 <= changed <= 32


def test_a_direct_row_of_digits_is_read_all_the_same() -> None:
    examples = [generate(f"{n}", ["arithmetic"], [4], direct=1.0) for n in range(10)]
    for example in examples:
        read = re.fullmatch(
            r"◁think▷(\d) (\d) (\d) (\d)\.◁/think▷\\boxed\{(\d+)\}", example.response
        )
        assert read
        assert sum(map(int, read.groups()[:4])) == int(read[5]) == int(example.problem.answer)
