"""What people say of responses: notes, and marks that the grader is wrong.

They are appended to a file of their own beside the run's folder, each with all that it takes to
grade the response again, so that they mean something without the run too.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from thinking_rl.files.run_folder import RunFolder

NOTE, MARK = "note", "grader_is_wrong"
LONGEST_NOTE = 10_000
"""Characters."""
GRADED = ("id", "response", "answer", "choices", "question", "metadata", "source")
SAID = ("value", "correct", "outcome", "extracted", "parts", "error")


def add_note(folder: RunFolder, row: Mapping[str, Any], kind: str, text: str) -> dict[str, Any]:
    """Keep a note on a row of `responses.jsonl`.

    Args:
        kind: `note` or `grader_is_wrong`.

    Raises:
        ValueError: the kind is another, a note has no text, or it is too long.
    """
    if kind not in (NOTE, MARK) or (kind == NOTE and not text.strip()) or len(text) > LONGEST_NOTE:
        raise ValueError(
            f"a {NOTE} has a text of at most {LONGEST_NOTE} characters; a {MARK} needs none"
        )
    note = {
        "note": uuid.uuid4().hex,
        "time": round(time.time(), 3),
        "kind": kind,
        "text": text,
        **{name: row.get(name) for name in ("stage", "at", "sample")},
        "row": {name: row.get(name) for name in GRADED},
        "said": {name: row.get(name) for name in SAID},
    }
    _append(folder, note)
    return note


def remove_note(folder: RunFolder, note: str) -> None:
    """Take a note back; the file keeps both."""
    _append(folder, {"removed": note, "time": round(time.time(), 3)})


def read_notes(folder: RunFolder) -> list[dict[str, Any]]:
    """The notes that hold, oldest first; a line that was cut short is passed over."""
    notes: dict[str, dict[str, Any]] = {}
    if not folder.notes.exists():
        return []
    for line in folder.notes.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if "removed" in row:
            notes.pop(row["removed"], None)
        else:
            notes[row["note"]] = row
    return list(notes.values())


def rows_to_grade(folder: RunFolder) -> list[dict[str, Any]]:
    """The responses whose grader is said to be wrong, as `python -m rewards.grade` reads them: with
    what the grader said, and what is held against it."""
    return [
        {**note["row"], "graded": note["said"], "remark": note["text"]}
        for note in read_notes(folder)
        if note["kind"] == MARK
    ]


def _append(folder: RunFolder, row: Mapping[str, Any]) -> None:
    with folder.notes.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
