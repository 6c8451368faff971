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
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
MARK = "THINKING_RL_GRADING_PROCESS"
"""Environment variable by which processes are known that a grader started and detached."""


@dataclass
class Job:
    """Answers handed to a process for one part of the reward."""

    part: int
    """Which part of the reward."""
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
    """What the process is told first: import path, graders, limits."""
    start_timeout_s: float
    """Longest wait for its graders to be loaded, in seconds."""
    job: Job | None = None
    """What it works on; None: it is idle."""
    kinds: list[str] | None = None
    """plain, async or batched for each grader, once they are loaded."""
    heard_s: float = field(default_factory=time.monotonic)
    """When it last took or sent something: the time from which its silence counts."""

    def __post_init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        self._mark = uuid.uuid4().hex
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rewards.processes.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what graders print must not mix with what the program prints
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", MARK: self._mark},
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
        """Hand over a job.

        Raises:
            ValueError: a problem cannot be pickled.
        """
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
        """Close the socket, kill whatever is left after `grace_s`, and say how it ended.

        What a grader started goes with it, detached or not.
        """
        started = _descendants(self.process.pid)
        self.socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # children of the grader too
        status = self.process.wait()
        for process in started:
            with contextlib.suppress(psutil.Error):
                process.kill()
        _kill_marked(f"{MARK}={self._mark}".encode())
        if status >= 0:
            return f"the grading process exited with status {status}"
        return f"the grading process was ended by {signal.Signals(-status).name}"


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _kill_marked(mark: bytes) -> None:
    """End every process with this entry in its environment, in whatever session it is (Linux)."""
    for _ in range(3):  # one may start another while we look
        marked = [pid for pid in map(int, filter(str.isdigit, _names("/proc"))) if _has(pid, mark)]
        if not marked:
            return
        for pid in marked:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _has(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
