"""One check: what was measured, and what to do where it failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


class FaultError(Exception):
    """What a check found to be wrong."""

    def __init__(self, measured: str, remedy: str, warning: bool = False) -> None:
        """warning: a run may work nevertheless."""
        super().__init__(measured)
        self.remedy = remedy
        self.warning = warning


@dataclass(frozen=True)
class Verdict:
    """What a check came to."""

    name: str
    """Of the check."""
    verdict: str
    """`ok`, `warning` or `failed`."""
    seconds: float
    """How long it took."""
    measured: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty where all is well."""


def run_check(name: str, check: Callable[[], str]) -> Verdict:
    """Run one check, which returns what it measured. Whatever it raises is its verdict."""
    started = time.perf_counter()

    def verdict(kind: str, measured: str, remedy: str = "") -> Verdict:
        return Verdict(name, kind, round(time.perf_counter() - started, 3), measured, remedy)

    try:
        return verdict("ok", check())
    except FaultError as fault:
        return verdict("warning" if fault.warning else "failed", str(fault), fault.remedy)
    except Exception as error:  # a check that fails in a way of its own has failed
        text = f"{type(error).__name__}: {error}"
        return verdict("failed", text, "see the message; the check itself could not be made")
