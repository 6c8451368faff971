"""What commands share that ask a model, and go on where they were stopped."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from thinking_rl.cluster.stopping import stop_signals

EXIT_ERROR, EXIT_USER_ERROR, EXIT_STOPPED = 1, 2, 130


def exit_code(work: Callable[[], None]) -> int:
    """Do a command's work. 0: done. 2: a mistake of the user's, said in one line. 1: it failed.
    130: stopped, by Ctrl-C or SIGTERM."""
    with stop_signals():
        try:
            work()
        except (ValueError, OSError) as error:
            return _fail(f"error: {error}", EXIT_USER_ERROR)
        except RuntimeError as error:  # such as an engine that died
            return _fail(f"error: {type(error).__name__}: {error}", EXIT_ERROR)
        except KeyboardInterrupt:
            return _fail("stopped; the same command goes on from here", EXIT_STOPPED)
    return 0


def count(text: str) -> int:
    """An option's value that is a count."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def progress(name: str) -> Callable[[int, int], None]:
    """Says how far it is, on stderr."""
    return lambda done, total: print(f"{name}: {done} of {total} answered", file=sys.stderr)


def _fail(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code
