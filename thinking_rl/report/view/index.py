"""Where which response stands in `responses.jsonl`, with what it is filtered and sorted by.

The index is a SQLite file of its own in the run's folder (`index.sqlite`; in the system's folder
for temporary files where the run's cannot be written). It holds nothing that `responses.jsonl` does
not, follows it as it grows, and is made anew when the file is another one. Memory does not depend
on how many responses there are: rows are read from the file at their offsets.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from thinking_rl.files.run_folder import RunFolder

FORMAT = 1
"""Of the tables; an index of another format is made anew."""
BATCH = 1000
"""Responses that are read between two commits, after which they can be seen."""
TAIL_BYTES = 4096
"""What comes before the end of the indexed part must be as it was."""
SCHEMA = """
CREATE TABLE state (format INTEGER, size INTEGER, tail BLOB);
CREATE TABLE problems (
    key INTEGER PRIMARY KEY, id TEXT, source TEXT, question TEXT, answer TEXT, subject TEXT,
    level INTEGER, images TEXT, UNIQUE (source, id));
CREATE TABLE responses (
    number INTEGER PRIMARY KEY, offset INTEGER, bytes INTEGER, problem INTEGER, stage TEXT,
    at TEXT, sample INTEGER, outcome TEXT, finish TEXT, correct INTEGER, value REAL,
    length INTEGER, advantage REAL, disagreement REAL);
CREATE TABLE texts (number INTEGER PRIMARY KEY, text TEXT);
CREATE INDEX by_problem ON responses (
    problem, stage, at, outcome, finish, correct, value, length, disagreement);
CREATE INDEX by_time ON responses (stage, at);
"""
SORTS = {
    "time": "MAX(r.number)",
    "pass_rate": "AVG(r.correct)",
    "length": "AVG(r.length)",
    "disagreement": "AVG(r.disagreement)",
    "level": "p.level",
    "reward": "AVG(r.value)",
}
"""What problems can be sorted by."""
FILTERS = {
    "source": "p.source = ?",
    "level": "p.level = ?",
    "stage": "r.stage = ?",
    "at": "r.at = ?",
    "outcome": "r.outcome = ?",
    "finish": "r.finish = ?",
}
"""What they can be filtered by, beside their text. A problem is shown where one of its responses
meets all."""
MEANS = ("responses", "pass_rate", "length", "reward", "disagreement")
"""What is told of a problem's responses."""
LIMIT = 200
"""Most problems of one answer."""


class Index:
    """The index of one run's responses."""

    def __init__(self, folder: RunFolder) -> None:
        self._source = folder.responses
        self._file = index_file(folder)
        self._lock = threading.Lock()

    def update(self, limit: int | None = None) -> bool:
        """Take in what was appended; whether all of it is in now.

        Args:
            limit: most responses to take in; None: all that there are.
        """
        with self._lock:
            try:
                return self._update(limit)
            except sqlite3.DatabaseError:
                self._remove()
                return self._update(limit)

    def _update(self, limit: int | None) -> bool:
        if not self._source.exists():
            self._remove()
            return True
        taken = 0
        with self._open() as database, self._source.open("rb") as source:
            while True:
                database.execute("BEGIN IMMEDIATE")
                start = indexed_bytes(database, source)
                if start is None:
                    clear(database)
                    start = 0
                lines = list(whole_lines(source, start, BATCH))
                for offset, line in lines:
                    add(database, offset, line)
                if lines:
                    end = lines[-1][0] + len(lines[-1][1])
                    state = (FORMAT, end, tail_of(source, end))
                    database.execute("DELETE FROM state")
                    database.execute("INSERT INTO state VALUES (?, ?, ?)", state)
                database.execute("COMMIT")
                taken += len(lines)
                if len(lines) < BATCH:
                    return True
                if limit is not None and taken >= limit:
                    return False

    def _remove(self) -> None:
        for end in ("", "-wal", "-shm"):
            Path(f"{self._file}{end}").unlink(missing_ok=True)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one request: there is none while nobody asks."""
        with closing(sqlite3.connect(self._file, timeout=20, isolation_level=None)) as database:
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")  # it can be made anew
            database.execute("PRAGMA cache_size = -2000")
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone():
                clear(database)
            yield database

    def size(self) -> dict[str, int]:
        """`responses` in the index, and their `bytes` of all that the file has (`total`)."""
        with self._open() as database:
            [count] = database.execute("SELECT COUNT(*) FROM responses").fetchone()
            row = database.execute("SELECT size FROM state").fetchone()
        total = self._source.stat().st_size if self._source.exists() else 0
        return {"responses": count, "bytes": row["size"] if row else 0, "total": total}

    def facets(self) -> dict[str, list[Any]]:
        """Every value that there is to filter by. `at` comes with its stage."""
        with self._open() as database:
            values = {
                name: [
                    row[0]
                    for row in database.execute(
                        f"SELECT DISTINCT {name} FROM {table} WHERE {name} IS NOT NULL ORDER BY 1"
                    )
                ]
                for name, table in (
                    ("source", "problems"),
                    ("level", "problems"),
                    ("outcome", "responses"),
                    ("finish", "responses"),
                )
            }
            times = database.execute(
                "SELECT stage, at, MIN(number) AS first FROM responses GROUP BY stage, at "
                "ORDER BY first"
            )
            values["at"] = [{"stage": row["stage"], "at": row["at"]} for row in times]
        return values

    def problems(
        self,
        filters: Mapping[str, str],
        text: str = "",
        sort: str = "time",
        descending: bool = True,
        offset: int = 0,
        limit: int = LIMIT,
    ) -> dict[str, Any]:
        """Problems with what their responses came to.

        Args:
            filters: name (see FILTERS) -> value.
            text: part of the question or of a response, in small or capital letters.
            sort: see SORTS; those that have no such value come last.

        Returns:
            `total` and `rows`.

        Raises:
            ValueError: there is no such filter or order.
        """
        if sort not in SORTS or not filters.keys() <= FILTERS.keys():
            raise ValueError(f"filters are {', '.join(FILTERS)}; orders are {', '.join(SORTS)}")
        where = [FILTERS[name] for name in filters]
        values: list[Any] = [int(v) if n == "level" else v for n, v in filters.items()]
        joined = "responses r JOIN problems p ON p.key = r.problem"
        if text:
            joined += " JOIN texts t ON t.number = r.number"
            where.append("(p.question LIKE ? ESCAPE '\\' OR t.text LIKE ? ESCAPE '\\')")
            values += [f"%{escaped(text)}%"] * 2
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        order = f"{SORTS[sort]} {'DESC' if descending else 'ASC'} NULLS LAST, p.key"
        with self._open() as database:
            found = database.execute(
                f"SELECT p.key, COUNT(*) OVER () AS total, COUNT(*) AS responses, "
                f"AVG(r.correct) AS pass_rate, AVG(r.length) AS length, AVG(r.value) AS reward, "
                f"AVG(r.disagreement) AS disagreement "
                f"FROM {joined} {condition} GROUP BY p.key ORDER BY {order} LIMIT ? OFFSET ?",
                [*values, min(limit, LIMIT), offset],
            ).fetchall()
            rows = [self._problem_row(database, row) for row in found]
        return {"total": found[0]["total"] if found else 0, "rows": rows}

    def _problem_row(self, database: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
        return {
            **self._problem(database, row["key"]),
            **{name: row[name] for name in MEANS},
            "groups": groups_of(database, row["key"]),
        }

    def _problem(self, database: sqlite3.Connection, key: int) -> dict[str, Any]:
        row = database.execute("SELECT * FROM problems WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise ValueError(f"the run has no problem {key}")
        return {**dict(row), "images": json.loads(row["images"])}

    def group(self, problem: int, stage: str, at: str) -> dict[str, Any]:
        """The responses to a problem at one time, as they stand in the file, and the problem's
        other groups.

        Raises:
            ValueError: there is no such group.
        """
        with self._open() as database:
            found = self._problem(database, problem)
            others = groups_of(database, problem)
            places = database.execute(
                "SELECT number, offset, bytes, disagreement FROM responses "
                "WHERE problem = ? AND stage = ? AND at = ? ORDER BY sample, number",
                (problem, stage, at),
            ).fetchall()
        if not places:
            raise ValueError(f"problem {found['id']} has no responses at {stage} {at}")
        with self._source.open("rb") as source:
            responses = [
                {**read_row(source, place), "disagreement": place["disagreement"]}
                for place in places
            ]
        return {"problem": found, "stage": stage, "at": at, "groups": others, "rows": responses}

    def row(self, number: int) -> dict[str, Any]:
        """One response as it stands in the file.

        Raises:
            ValueError: there is none of this number.
        """
        with self._open() as database:
            place = database.execute(
                "SELECT number, offset, bytes FROM responses WHERE number = ?", (number,)
            ).fetchone()
        if place is None:
            raise ValueError(f"the run has no response {number}")
        with self._source.open("rb") as source:
            return read_row(source, place)

    def scores(self, stage: str, at: str) -> dict[tuple[str, str], dict[str, Any]]:
        """(source, id) of each problem at one time -> what it is, and its `pass_rate`,
        `length` and `reward`."""
        with self._open() as database:
            found = database.execute(
                "SELECT p.source, p.id, p.key, p.question, p.level, p.images, "
                "AVG(r.correct) AS pass_rate, AVG(r.length) AS length, AVG(r.value) AS reward, "
                "COUNT(*) AS responses "
                "FROM responses r JOIN problems p ON p.key = r.problem "
                "WHERE r.stage = ? AND r.at = ? GROUP BY p.key",
                (stage, at),
            )
            return {
                (row["source"], row["id"]): {**dict(row), "images": json.loads(row["images"])}
                for row in found
            }

    def marks(self, problem: int) -> list[list[Any]]:
        """For each response to a problem: stage, time, outcome, finish, correct, reward, length,
        disagreement, text, number."""
        with self._open() as database:
            found = database.execute(
                "SELECT stage, at, outcome, finish, correct, value, length, disagreement, text, "
                "r.number FROM responses r JOIN texts t ON t.number = r.number WHERE problem = ? "
                "ORDER BY r.number",
                (problem,),
            )
            return [list(row) for row in found]


def index_file(folder: RunFolder) -> Path:
    """Where a run's index is."""
    if os.access(folder.path, os.W_OK):
        return folder.index
    name = hashlib.sha256(str(folder.path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"thinking_rl-{os.getuid()}-{name}.sqlite"


def clear(database: sqlite3.Connection) -> None:
    """Empty tables."""
    for table in ("state", "problems", "responses", "texts"):
        database.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in filter(str.strip, SCHEMA.split(";")):
        database.execute(statement)


def indexed_bytes(database: sqlite3.Connection, source: BinaryIO) -> int | None:
    """How much of the file is in the index; None where it is not the file that was read."""
    state = database.execute("SELECT * FROM state").fetchone()
    if state is None:
        return 0
    if state["format"] != FORMAT or tail_of(source, state["size"]) != state["tail"]:
        return None
    return state["size"]


def tail_of(source: BinaryIO, end: int) -> bytes:
    """The bytes before `end`; fewer where the file ends earlier."""
    start = max(0, end - TAIL_BYTES)
    source.seek(start)
    return source.read(end - start)


def whole_lines(source: BinaryIO, start: int, most: int) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each line from `start`; one that a crash or a writer cut short is not
    one yet."""
    source.seek(start)
    for _ in range(most):
        line = source.readline()
        if not line.endswith(b"\n"):
            return
        yield start, line
        start += len(line)


def add(database: sqlite3.Connection, offset: int, line: bytes) -> None:
    """Take in one response; a line that is none is passed over."""
    try:
        row = json.loads(line)
        source, identity = str(row["source"]), str(row["id"])
    except (ValueError, KeyError, TypeError):
        return
    key = problem_key(database, row, source, identity)
    correct = row.get("correct")
    number = database.execute(
        "INSERT INTO responses VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            offset,
            len(line),
            key,
            row["stage"],
            str(row["at"]),
            row["sample"],
            row.get("outcome"),
            row.get("finish"),
            None if correct is None else int(correct),
            None if row.get("outcome") == "not_graded" else row.get("value"),
            row.get("length"),
            row.get("advantage"),
            disagreement(row.get("parts") or {}),
        ),
    ).lastrowid
    database.execute("INSERT INTO texts VALUES (?, ?)", (number, row["response"]))


def problem_key(database: sqlite3.Connection, row: dict, source: str, identity: str) -> int:
    """The number of a row's problem, which may be new."""
    found = database.execute(
        "SELECT key FROM problems WHERE source = ? AND id = ?", (source, identity)
    ).fetchone()
    if found:
        return found[0]
    values = (identity, source, row.get("question"), row.get("answer"), row.get("subject"))
    images = json.dumps(row.get("image_hashes") or [])
    new = database.execute(
        "INSERT INTO problems VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
        (*values, row.get("level"), images),
    ).lastrowid
    assert new is not None
    return new


def disagreement(parts: Mapping[str, Any]) -> float | None:
    """How far the graders of one response are apart: largest part less smallest; None where one
    grader judged alone."""
    values = [value for value in parts.values() if isinstance(value, int | float)]
    return max(values) - min(values) if len(values) > 1 else None


def groups_of(database: sqlite3.Connection, problem: int) -> list[dict[str, Any]]:
    """A problem's success at each time, oldest first."""
    found = database.execute(
        "SELECT stage, at, COUNT(*) AS responses, SUM(correct) AS right, COUNT(correct) AS judged, "
        "MIN(number) AS first FROM responses WHERE problem = ? GROUP BY stage, at ORDER BY first",
        (problem,),
    )
    names: Sequence[str] = ("stage", "at", "responses", "right", "judged")
    return [{name: row[name] for name in names} for row in found]


def read_row(source: BinaryIO, place: sqlite3.Row) -> dict[str, Any]:
    """A response as it stands in the file, with its number in the index."""
    source.seek(place["offset"])
    return {"number": place["number"], **json.loads(source.read(place["bytes"]))}


def escaped(text: str) -> str:
    """`text` without what LIKE reads as a pattern."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
