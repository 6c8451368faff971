"""What workers say goes to the run's log, beside what the console says."""

from __future__ import annotations

import os
import sys
import time

LOG_VARIABLE = "THINKING_RL_LOG"
"""Environment of a worker: the file that it writes to."""


def speak_into_log(who: str) -> None:
    """From here on all that this process prints, native code included, is appended to the log
    that its environment names; without one nothing changes.

    Args:
        who: announces itself there, with its process id.
    """
    path = os.environ.get(LOG_VARIABLE)
    if not path:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(1, f"{stamp} {who} started, process {os.getpid()}\n".encode())
