"""What every benchmark needs: figures as JSON lines, memory of a piece of work, pairs of times."""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def figure(name: str, value: float, unit: str, baseline: float, n: int, **conditions: Any) -> None:
    """Print one figure, `ratio` being value over baseline."""
    ratio = value / baseline if baseline else float("nan")
    line = {"name": name, "value": value, "unit": unit, "baseline": baseline, "ratio": ratio}
    rounded = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in line.items()}
    print(json.dumps(rounded | {"n": n} | conditions), flush=True)


def pairs(
    ours: Callable[[], Any], theirs: Callable[[], Any], n: int, *, cpu_time: bool = False
) -> tuple[float, float]:
    """Median seconds of each of two pieces of work, done in turn `n` times after a warm-up.

    Args:
        cpu_time: of all threads' work rather than of the clock, for a machine that others use; with
            one thread, since idle threads spin.
    """
    now = time.process_time if cpu_time else time.perf_counter
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(n + 1):
        for work, taken in zip((ours, theirs), seconds, strict=True):
            gc.collect()
            start = now()
            work()
            if repeat:
                taken.append(now() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def peak_gib(work: Callable[[], Any]) -> float:
    """Resident memory of this process, at its highest while it works, above what it had before."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    CLEAR.write_text("5")  # the peak starts from here
    before = _resident_gib("VmRSS")
    kept = work()
    after = _resident_gib("VmHWM")
    del kept
    return after - before


def _resident_gib(field: str) -> float:
    [line] = [one for one in STATUS.read_text().splitlines() if one.startswith(field)]
    return int(line.split()[1]) / 2**20
