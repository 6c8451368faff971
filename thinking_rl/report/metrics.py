"""What a run measured, row by row: `metrics.jsonl` and the same numbers for trackers."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from thinking_rl.files.run_folder import RunFolder
from thinking_rl.report.trackers import Row, Tracker, told


class MetricsWriter:
    """Appends rows to `run_dir/metrics.jsonl`, and gives their numbers to trackers.

    A row holds `stage`, `iteration` or `step`, `time` (seconds since 1970) and the values given.
    A value that is NaN or infinite is written as null and named in the row's `not_finite`. Each
    row is flushed, so that a run that dies leaves all it measured.
    """

    def __init__(
        self,
        folder: RunFolder,
        trackers: Sequence[Tracker] = (),
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        """log: shows what went wrong in a tracker."""
        folder.path.mkdir(parents=True, exist_ok=True)
        self._file = folder.metrics.open("a", encoding="utf-8")
        self._trackers = trackers
        self._log = log

    def write(self, stage: str, position: Mapping[str, int], values: Mapping[str, Any]) -> None:
        """Writes one row. `position` is `{"iteration": 3}` or `{"step": 120}`."""
        plain = {name: _plain(value) for name, value in values.items()}
        odd = [n for n, v in plain.items() if isinstance(v, float) and not math.isfinite(v)]
        row = {"stage": stage, **position, "time": round(time.time(), 3), **plain}
        row |= dict.fromkeys(odd)
        if odd:
            row["not_finite"] = odd
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        numbers = {name: value for name, value in _numbers(plain) if name not in odd}
        for tracker in self._trackers:
            with told(self._log):
                tracker.log(stage, next(iter(position.values()), 0), numbers)

    def table(self, name: str, rows: Sequence[Row]) -> None:
        """Sampled responses, for trackers that have tables."""
        for tracker in self._trackers:
            with told(self._log):
                tracker.table(name, rows)

    @property
    def size(self) -> int:
        """Bytes of metrics.jsonl so far."""
        return self._file.tell()

    def truncate(self, size: int) -> None:
        """Drops what lies beyond so many bytes of metrics.jsonl.

        Raises:
            ValueError: the file is shorter.
        """
        found = os.path.getsize(self._file.name)
        if found < size:
            raise ValueError(
                f"{self._file.name}: has {found} bytes and the checkpoint was saved at {size}: "
                "rows are gone; put the file back, or start a new run with run_dir=FOLDER"
            )
        self._file.truncate(size)
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Closes the file and the trackers; a second time does nothing."""
        if not self._file.closed:
            self._file.close()
            for tracker in self._trackers:
                with told(self._log):
                    tracker.close()


def read_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`; a last row cut short by a crash is left out."""
    text = folder.metrics.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested mappings, by its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's own; anything else as it is."""
    return value.item() if hasattr(value, "item") else value
