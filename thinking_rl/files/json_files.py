"""JSON on disk: objects read with an error that names the file, written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: the file holds none.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as JSON: {error}; fetch the file again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file}: expected a JSON object; fetch the file again")
    return value


def write_json(file: Path, value: Any, indent: int | None = None) -> None:
    """Write `value` under another name first, so that a file that is there is whole."""
    part = file.with_name(f"{file.name}.part")
    text = json.dumps(finite(value), indent=indent, allow_nan=False)
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(file)


def finite(value: Any) -> Any:
    """`value` with null in place of NaN and infinities, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
