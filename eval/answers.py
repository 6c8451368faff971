"""Answers on disk: what an interrupted evaluation has done is not done again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from thinking_rl.files.json_files import write_json
from thinking_rl.files.jsonl import whole_lines


@dataclass(frozen=True)
class Answer:
    """One response to one benchmark problem. Lengths are in tokens."""

    id: str
    """Of the problem."""
    sample: int
    """From 0."""
    response: str
    """Its text with special tokens, without the stop token."""
    tokens: int
    """Length of the response."""
    thinking_tokens: int
    """Up to and including `◁/think▷`; all of a response that opens its thinking and never closes
    it; 0 without either mark."""
    finish: str
    """Why it ended: `stop` or `length`."""
    forced_close: bool = False
    """The thinking ran into its budget, and `◁/think▷` was put there for the model."""


class AnswerFile:
    """Answers as jsonl rows, appended as they come.

    Opening it drops a last row without a line end, which a killed process leaves.

    Raises:
        ValueError: any other row is no answer; names it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.answers: dict[tuple[str, int], Answer] = {}
        for number, line in enumerate(whole_lines(self.path), start=1):
            answer = _parse(line, f"{self.path}, row {number}")
            self.answers[answer.id, answer.sample] = answer

    def append(self, answers: Sequence[Answer]) -> None:
        """Write answers and hand them to the system, which keeps them if this process dies."""
        with self.path.open("a", encoding="utf-8") as file:
            for answer in answers:
                file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")
                self.answers[answer.id, answer.sample] = answer


def _parse(line: bytes, where: str) -> Answer:
    try:
        row = json.loads(line)
        return Answer(**{field.name: row[field.name] for field in fields(Answer)})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: no answer of an evaluation ({error!r}); remove it") from error


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write `settings.json`; in a folder that holds answers, check that they are the same.

    Entries of `data` that are new are added.

    Raises:
        ValueError: they differ; names what does.
    """
    path = folder / "settings.json"
    kept: dict[str, Any] = {"data": {}}
    if path.exists() and any(folder.glob("responses/*.jsonl")):
        try:
            kept = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not readable ({error}); use another --out") from error
        changed = [
            f"{name} was {old!r} and is now {new!r}"
            for name, old, new in _pairs(kept, settings)
            if old != new
        ]
        if changed:
            raise ValueError(
                f"{folder} holds answers made with other settings: {'; '.join(changed)}; give the "
                "same ones to go on, or another --out"
            )
    merged = {**settings, "data": {**kept["data"], **settings["data"]}}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, merged, indent=2)


def _pairs(
    kept: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[str, object, object]]:
    for name, new in settings.items():
        if name != "data":
            yield name, kept.get(name), new
    for name, new in settings["data"].items():
        yield f"data of {name}", kept["data"].get(name, new), new
