"""SIGINT (Ctrl-C) and SIGTERM end a run: also where the shell that started it in the background
told it to ignore SIGINT, and where a library swallows the KeyboardInterrupt that hits it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = False


@contextmanager
def stop_signals() -> Iterator[None]:
    """Inside, both signals raise KeyboardInterrupt, at once and at every later `check_stop`."""
    global _asked
    _asked = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        _asked = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unstopped() -> Iterator[None]:
    """Time to write what is due after the user has asked to stop; asked again, it ends at once."""
    global _asked
    before, _asked = _asked, False
    try:
        yield
    finally:
        _asked = _asked or before


def check_stop() -> None:
    """Stop where the user has asked for it. Whoever waits calls this often.

    Raises:
        KeyboardInterrupt: the user has asked to stop.
    """
    if _asked:
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = True
    raise KeyboardInterrupt
