"""The parent's side of one grading process: start it, feed it, hear from it, kill it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Job:
    """Answers handed to a process for one part of the reward."""

    part: int
    indices: list[int]
    """Answers not yet reported, in the order in which a plain function takes them."""
    limit_s: float
    """Longest silence before the process is killed."""


@dataclass
class GradingProcess:
    """A process of its own session, fed over a socket that never blocks the parent.

    `subprocess` starts a fresh interpreter, which is safe from any thread and where torch is
    loaded. The process ends by itself when the socket closes, so none outlives the parent.
    """

    setup: dict[str, Any]
    start_timeout_s: float
    job: Job | None = None
    kinds: list[str] | None = None
    """plain, async or batched for each grader, once they are loaded."""
    heard_s: float = field(default_factory=time.monotonic)
    """When it last took or sent something: the time from which its silence counts."""

    def __post_init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rewards.processes.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what graders print must not mix with what the program prints
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )
        self._inbox = bytearray()
        self._outbox = memoryview(b"")
        self._send(self.setup)

    @property
    def events(self) -> int:
        """What to wait for on the socket."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)

    @property
    def silent_s(self) -> float:
        """Seconds since it was last heard of."""
        return time.monotonic() - self.heard_s

    @property
    def overdue_s(self) -> float:
        """Seconds past its limit; negative while it has time left."""
        if self.kinds is not None and self.job is None:
            return -float("inf")
        limit = self.job.limit_s if self.job else self.start_timeout_s
        return self.silent_s - limit

    def start(self, job: Job, answers: list[tuple[int, Any, str]]) -> None:
        """Hand over a job. Raises ValueError where a problem cannot be pickled."""
        try:
            self._send((job.part, answers))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ValueError(
                f"one of the problems {answers[0][1].id!r}... cannot be sent to a grading process "
                f"({error}); keep plain data in Problem.metadata"
            ) from error
        self.job = job

    def _send(self, message: Any) -> None:
        payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        self._outbox = memoryview(len(payload).to_bytes(8, "big") + payload)
        self.heard_s = time.monotonic()

    def exchange(self) -> tuple[list[dict[str, Any]], bool]:
        """Write and read what the socket takes and has: messages, and whether it is still open."""
        is_open = True
        with contextlib.suppress(BlockingIOError):
            try:
                while self._outbox:
                    self._outbox = self._outbox[self.socket.send(self._outbox) :]
                    self.heard_s = time.monotonic()
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                is_open = False
        try:
            while data := self.socket.recv(1 << 16):
                self._inbox += data
            is_open = False
        except BlockingIOError:
            pass
        except OSError:
            is_open = False
        *lines, rest = bytes(self._inbox).split(b"\n")
        self._inbox = bytearray(rest)
        if lines:
            self.heard_s = time.monotonic()
        return [json.loads(line) for line in lines], is_open

    def end(self, grace_s: float = 0.0) -> str:
        """Close the socket, kill whatever is left after `grace_s`, and say how it ended."""
        self.socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # children of the grader too
        status = self.process.wait()
        if status >= 0:
            return f"the grading process exited with status {status}"
        return f"the grading process was ended by {signal.Signals(-status).name}"
