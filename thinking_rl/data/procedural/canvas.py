"""Drawing on a grid of 28 x 28-pixel tiles: one tile is one vision token after merging.

Letters come from the bitmap font inside Pillow, enlarged by whole factors, so that the pixels
do not depend on the machine's font renderer.
"""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

TILE = 28
"""Side of a tile, in pixels: 2 x 2 patches of 14."""
GLYPH_WIDTH, GLYPH_HEIGHT = 6, 11
"""Size of a character at scale 1, in pixels."""


def blank(columns: int, rows: int) -> Image.Image:
    """A white RGB picture of `columns` x `rows` tiles."""
    return Image.new("RGB", (columns * TILE, rows * TILE), "white")


@lru_cache(maxsize=1024)
def _mask(character: str, scale: int) -> Image.Image:
    mask = Image.new("1", (GLYPH_WIDTH, GLYPH_HEIGHT))
    font = ImageFont.load_default_imagefont()
    ImageDraw.Draw(mask).text((0, 0), character, font=font, fill=1)
    size = (GLYPH_WIDTH * scale, GLYPH_HEIGHT * scale)
    return mask.resize(size, Image.Resampling.NEAREST)


def write(
    image: Image.Image, text: str, x: int, y: int, scale: int = 2, colour: str = "black"
) -> None:
    """Write one line of ASCII with its upper left corner at (x, y), in pixels."""
    for position, character in enumerate(text):
        mask = _mask(character, scale)
        image.paste(colour, (x + position * GLYPH_WIDTH * scale, y), mask)


def write_tile(image: Image.Image, character: str, column: int, row: int = 0) -> None:
    """Write one large character at the fixed place in the middle of a tile."""
    x = column * TILE + (TILE - 2 * GLYPH_WIDTH) // 2
    y = row * TILE + (TILE - 2 * GLYPH_HEIGHT) // 2
    write(image, character, x, y)


COLOURS = {
    "red": (214, 39, 40),
    "blue": (31, 80, 210),
    "green": (30, 150, 50),
    "yellow": (240, 190, 20),
    "black": (0, 0, 0),
}
SHAPES = ("circle", "square", "triangle", "diamond")


@lru_cache(maxsize=64)
def _shape_tile(colour: str, shape: str) -> Image.Image:
    tile = blank(1, 1)
    draw = ImageDraw.Draw(tile)
    low, middle, high = 4, 14, 23
    if shape == "circle":
        draw.ellipse((low, low, high, high), fill=COLOURS[colour])
    elif shape == "square":
        draw.rectangle((low, low, high, high), fill=COLOURS[colour])
    else:
        corners = {
            "triangle": [(middle, low), (high, high), (low, high)],
            "diamond": [(middle, low), (high, middle), (middle, high), (low, middle)],
        }
        draw.polygon(corners[shape], fill=COLOURS[colour])
    return tile


def put_shape(image: Image.Image, colour: str, shape: str, column: int, row: int) -> None:
    """Fill the middle of a tile with a shape of one colour."""
    image.paste(_shape_tile(colour, shape), (column * TILE, row * TILE))
