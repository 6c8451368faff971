"""Files of rows that are appended as they come, and go on after a kill."""

from __future__ import annotations

from pathlib import Path


def whole_lines(file: Path) -> list[bytes]:
    """The lines of a file, none where it is missing. A last one without an end, which a killed
    process leaves, is cut off from the file."""
    content = file.read_bytes() if file.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with file.open("r+b") as rows:
            rows.truncate(len(whole))
    return whole.splitlines()
