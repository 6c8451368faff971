"""What names something on the hub."""

from __future__ import annotations

import re
from pathlib import Path

LONGEST_ID = 96
DATA_SUFFIXES = (".json", ".jsonl", ".parquet")
"""How files of problems end."""


def is_hub_id(place: str) -> bool:
    """`owner/name`, as against a file or folder, be it there or not where it should be."""
    looks_like_id = (
        re.fullmatch(r"[A-Za-z0-9][\w.-]*\w/\w([\w.-]*\w)?|\w/\w([\w.-]*\w)?", place) is not None
        and len(place) <= LONGEST_ID
        and not any(mark in place for mark in ("--", ".."))
    )
    path = Path(place)
    return (
        looks_like_id
        and path.suffix not in DATA_SUFFIXES
        and not path.exists()
        and not path.parent.is_dir()
    )
