"""One run as its page asks for it: read from its files, nothing kept."""

from __future__ import annotations

import json
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from thinking_rl.files.run_folder import RunFolder
from thinking_rl.report.events import born
from thinking_rl.report.view.index import Index, tail_of, whole_lines
from thinking_rl.report.view.notes import read_notes
from thinking_rl.report.view.tokens import token_texts, vocabulary_folder

MOST_ROWS = 50_000
"""Of metrics in one answer; the page asks again for those after."""
QUIET_S = 900
"""After so long without a word a run that did not say where it runs counts as ended."""
SPOKEN = {"finished": "finished", "failed": "failed", "stopped": "stopped"}


class RunView:
    """A run's folder, whatever state it is in."""

    def __init__(self, path: str | Path) -> None:
        """
        Raises:
            ValueError: there is no run.
        """
        self.folder = RunFolder.at(path)
        if not (self.folder.recipe.is_file() or self.folder.metrics.is_file()):
            raise ValueError(f"{path}: no run (there is no recipe.yaml and no metrics.jsonl in it)")
        self.index = Index(self.folder)

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.path.name

    def overview(self, start: int = 0, check: int | None = None) -> dict[str, Any]:
        """How the run goes.

        Args:
            start: bytes of metrics.jsonl that the page has already.
            check: what an earlier answer said of them; where they have changed since (the run went
                on from a checkpoint), the answer begins anew and says so (`anew`).
        """
        rows, end, check, anew = self._metrics(start, check)
        events = list(read_lines(self.folder.events))
        return {
            "name": self.name,
            "path": str(self.folder.path),
            "state": self.state(events),
            "stages": [
                {name: event.get(name) for name in ("stage", "total", "time")}
                for event in events
                if event.get("kind") == "stage"
            ],
            "events": events,
            "rows": rows,
            "start": end,
            "check": check,
            "anew": anew,
            "index": self.index.size(),
            "notes": len(read_notes(self.folder)),
            "time": time.time(),
        }

    def _metrics(self, start: int, check: int | None) -> tuple[list[dict], int, int, bool]:
        """Rows from `start` on, where they end, a check of the bytes before that, and whether they
        begin anew."""
        file = self.folder.metrics
        if not file.is_file():
            return [], 0, 0, True
        with file.open("rb") as source:
            anew = start == 0 or zlib.crc32(tail_of(source, start)) != check
            start = 0 if anew else start
            lines = list(islice(whole_lines(source, start, MOST_ROWS), MOST_ROWS))
            end = lines[-1][0] + len(lines[-1][1]) if lines else start
            rows = [row for _, line in lines if (row := parsed(line)) is not None]
            return rows, end, zlib.crc32(tail_of(source, end)), anew

    def state(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        """`state`: running, finished, failed, stopped, killed (its process is gone and said
        nothing), or quiet (nothing was heard for long); and `text`, why."""
        if self.folder.summary.is_file():
            return {"state": "finished", "text": ""}
        for event in reversed(events):
            if event.get("kind") in SPOKEN:
                return {"state": SPOKEN[event["kind"]], "text": event.get("text", "")}
            if event.get("kind") == "started":
                return self._state_of_process(event)
        return self._state_by_age()

    def _state_of_process(self, started: Mapping[str, Any]) -> dict[str, Any]:
        if started.get("host") != socket.gethostname() or started.get("born") is None:
            return self._state_by_age()
        if born(started["pid"]) == started["born"]:
            return {"state": "running", "text": f"process {started['pid']}"}
        return {
            "state": "killed",
            "text": f"process {started['pid']} is gone and said nothing; resume=true goes on",
        }

    def _state_by_age(self) -> dict[str, Any]:
        files = (self.folder.metrics, self.folder.log, self.folder.responses, self.folder.recipe)
        newest = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
        quiet = time.time() - newest
        if quiet < QUIET_S:
            return {"state": "running", "text": ""}
        return {"state": "quiet", "text": f"nothing was written for {quiet / 60:.0f} minutes"}

    def group(self, problem: int, stage: str, at: str) -> dict[str, Any]:
        """The responses to a problem at one time, with the text of each token where a vocabulary is
        at hand, and the notes on them.

        Raises:
            ValueError: there is no such group.
        """
        found = self.index.group(problem, stage, at)
        rows = found.pop("rows")
        ids = [[i for segment in row["segments"] for i in segment["token_ids"]] for row in rows]
        folder = vocabulary_folder(self._checkpoints())
        texts = token_texts(folder, ids) if folder else None
        notes = self.notes()
        for number, row in enumerate(rows):
            row["tokens"] = texts[number] if texts else [f"⟨{token}⟩" for token in ids[number]]
            row["notes"] = [note for note in notes if is_on(note, row)]
        shown = ("choices", "metadata")
        found["problem"] |= {name: rows[0].get(name) for name in shown}
        return {**found, "rows": rows}

    def notes(self) -> list[dict[str, Any]]:
        """See `read_notes`."""
        return read_notes(self.folder)

    def scores(self, stage: str, at: str) -> list[dict[str, Any]]:
        """What each problem came to at one time."""
        return list(self.index.scores(stage, at).values())

    def _checkpoints(self) -> Iterator[Path]:
        """Where the run's vocabulary may be."""
        yield from (self.folder.small_model, self.folder.export)
        try:
            recipe = yaml.safe_load(self.folder.recipe.read_text(encoding="utf-8"))
            yield Path(recipe["model"]["path"]).expanduser()
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            return


def is_on(note: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a note is on a row."""
    same = all(note.get(name) == row.get(name) for name in ("stage", "at", "sample"))
    return same and note["row"]["id"] == row["id"] and note["row"]["source"] == row["source"]


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a jsonl file; nothing where it is not there."""
    if not file.is_file():
        return
    with file.open("rb") as source:
        for line in source:
            if line.endswith(b"\n") and (row := parsed(line)) is not None:
                yield row


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line's object; None where it is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
