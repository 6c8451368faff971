"""Pictures as data sources give them: paths under a folder, or encoded bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinking_rl.types import ImageSource

MARK = re.compile(r"<image(?:\s?(\d+))?>")
"""`<image>` (geometry3k), `<image1>` (MATH-Vision) or `<image 1>` (MMMU)."""


def image_sources(value: Any, root: Path | None) -> list[ImageSource]:
    """The pictures in a column: none, one, or a list of them.

    A picture is a path under `root`, encoded bytes, `{"bytes", "path"}` as data sets store it,
    or a PIL image.

    Raises:
        ValueError: it is none of these, or a path that cannot be used; the caller adds the row.
    """
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [resolve(value, root)]
    if isinstance(value, bytes):
        return [value]
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
        if isinstance(content, bytes) and content:
            return [content]
        # A text here is no way around `resolve`.
        if not content and isinstance(path, str) and path:
            return [resolve(path, root)]
    elif isinstance(value, Sequence):
        return [source for item in value for source in image_sources(item, root)]
    elif hasattr(value, "save"):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return [buffer.getvalue()]
    raise ValueError(
        f"an image must be a path, encoded bytes or {{'bytes', 'path'}}, found {str(value)[:80]!r}"
    )


def resolve(path: str, root: Path | None) -> Path:
    """The file that `path` names under `root`: text from data must not open any other file.

    Raises:
        ValueError: it is missing, or lies outside the folder (by `..`, an absolute path or a
            symbolic link).
    """
    if root is None:
        raise ValueError(f"image {path!r} is a path in a hub data set; set `image_root:`")
    try:
        folder = root.resolve()
        file = (folder / path).resolve()
        inside, exists = file.is_relative_to(folder), file.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"image {path[:200]!r}: not a usable path ({error})") from error
    if not inside:
        raise ValueError(f"image {path!r} lies outside the folder {folder}; set `image_root:`")
    if not exists:
        raise ValueError(f"image {path!r} is missing under {folder}; set `image_root:`")
    return file


class Marks:
    """Rewrites the image marks of one problem to `<imageN>`, N the place in `Problem.images`.

    Marks without a number are counted in the order in which they stand; a mark that belongs to
    no image stays as it is.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        """`numbers`: the number by which the source calls each image, in order."""
        self._place = {number: place for place, number in enumerate(numbers, start=1)}
        self._unnumbered = 0

    def rewrite(self, text: str) -> str:
        """The text with its marks rewritten."""
        return MARK.sub(self._mark, text)

    def _mark(self, match: re.Match[str]) -> str:
        if match[1] is not None:
            place = self._place.get(int(match[1]))
        else:
            self._unnumbered += 1
            place = self._unnumbered if self._unnumbered <= len(self._place) else None
        return match[0] if place is None else f"<image{place}>"
