"""SIGINT (Ctrl-C) and SIGTERM end a run: also where the shell that started it in the background
told it to ignore SIGINT, and where a library swallows the KeyboardInterrupt that hits it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked = _listening = _is_saving = False


@contextmanager
def stop_signals() -> Iterator[None]:
    """Inside, both signals raise KeyboardInterrupt, at once and at every later `check_stop`."""
    global _asked, _listening
    _asked, _listening = False, True
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen_again()
    try:
        yield
    finally:
        _asked = _listening = False
        for number, handler in before.items():
            signal.signal(number, handler)


def listen_again() -> None:
    """After a library has put handlers of its own in place of ours, as `ray.init` does: its own
    raises SystemExit, which kills the process where native code calls back."""
    if _listening:
        for number in SIGNALS:
            signal.signal(number, _stop)


@contextmanager
def unstopped() -> Iterator[None]:
    """Time to write what is due after the user has asked to stop: `check_stop` lets it pass."""
    global _is_saving
    _is_saving = True
    try:
        yield
    finally:
        _is_saving = False


def check_stop() -> None:
    """Stop where the user has asked for it. Whoever waits calls this often.

    Raises:
        KeyboardInterrupt: the user has asked to stop.
    """
    if _asked and not _is_saving:
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    """Asked again, the process ends at once, with all that it started."""
    global _asked
    if _asked:
        os.write(2, b"stopped at once\n")
        # Ray's own would notice, but some only after minutes.
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        os._exit(128 + signal.SIGINT)
    _asked = True
    raise KeyboardInterrupt
