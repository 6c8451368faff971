"""Asked to stop, a run writes what is due; asked again, it ends at once."""

from __future__ import annotations

import subprocess
import sys

SAVING = """
import os, signal, time
from thinking_rl.cluster.stopping import check_stop, stop_signals, unstopped

with stop_signals():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        with unstopped():
            check_stop()
            print("saving", flush=True)
            {then}
        try:
            check_stop()
        except KeyboardInterrupt:
            print("stopped")
"""


def test_what_is_due_is_written_unless_it_is_asked_again() -> None:
    for then, code, out, err in (
        ("pass", 0, "saving\nstopped\n", ""),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", 130, "saving\n", "at once\n"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", SAVING.format(then=then)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout) == (code, out)
        assert done.stderr.endswith(err)
