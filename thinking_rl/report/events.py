"""`events.jsonl`: what happened in a run beside its steps."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from thinking_rl.files.json_files import finite
from thinking_rl.files.run_folder import RunFolder


class EventLog:
    """Appends one row for each event: `time` (seconds since 1970), `kind`, `text` and details.

    A row is written at once, and stays when a run goes on from before it: it did happen.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.events

    def write(self, kind: str, text: str, **details: Any) -> None:
        """One event.

        Args:
            kind: `started`, `worker`, `stage`, `checkpoint`, `evaluation`, `skipped`, `finished`...
            text: for people.
        """
        row = {"time": round(time.time(), 3), "kind": kind, "text": text, **details}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(row), allow_nan=False, default=repr) + "\n")


def this_process() -> dict[str, Any]:
    """Which process speaks, so that a reader on the same machine can tell whether it still runs:
    `host`, `pid`, and `born`, its start in the kernel's clock ticks (a process id alone is used
    again)."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": born(os.getpid())}


def born(pid: int) -> int | None:
    """When a process of this machine started, in clock ticks; None where there is none or the
    system does not say."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
