"""Which known name a mistaken one was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The known names most like `name`, best first, at most `most`; none where all are unlike."""
    spelled = {one.lower(): one for one in sorted(known)}  # capitals are no difference
    return [spelled[one] for one in difflib.get_close_matches(name.lower(), spelled, n=most)]


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """` (did you mean 'x' or 'y'?)` to follow a mistaken name; empty where nothing is near."""
    near = nearest(name, known, most)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
