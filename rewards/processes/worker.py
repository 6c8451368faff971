"""A grading process: `python -m rewards.processes.worker FD`, started by `process.py`.

It reads pickled jobs from a socket and answers in lines of JSON, one as each answer is graded, so
that the other side can time every answer and knows which one it died on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import json
import math
import numbers
import os
import pickle
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from rewards.registry import import_what_it_uses, resolve
from thinking_rl.types import Score

ALARM_GRACE_S = 2.0
"""A worker whose parent is gone, or does not come round to killing it, ends this much later."""
MAX_TEXT = 500

Answers = list[tuple[int, Any, str]]
"""(index, problem, response) of each answer of a job."""


def main() -> None:
    """Serve jobs until the other side closes the socket."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    frames = connection.makefile("rb")
    setup = _read_frame(frames)
    if setup is None:
        return
    sys.path[:] = setup["sys_path"]

    def report(message: dict[str, Any]) -> None:
        connection.sendall(json.dumps(message).encode() + b"\n")

    try:
        functions = [resolve(spec) for spec in setup["specs"]]
        for function in functions:
            import_what_it_uses(function)
    except BaseException as error:
        report({"broken": _describe(error)})
        return
    _limit_memory(setup["memory_bytes"])
    _adopt_orphans()
    report({"ready": [_kind(function) for function in functions]})
    while (job := _read_frame(frames)) is not None:
        part, answers = job
        run = {"plain": _run_plain, "async": _run_async, "batched": _run_batched}
        run[_kind(functions[part])](functions[part], answers, setup["timeout_s"], report)
        _set_alarm(0)


def _read_frame(frames: Any) -> Any:
    header = frames.read(8)
    return pickle.loads(frames.read(int.from_bytes(header, "big"))) if len(header) == 8 else None


def _limit_memory(extra_bytes: int) -> None:
    """Allow `extra_bytes` of address space beyond what the loaded graders take (Linux)."""
    if sys.platform != "linux":
        return
    with open("/proc/self/statm") as statm:
        baseline = int(statm.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = baseline + extra_bytes
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _adopt_orphans() -> None:
    """Stay the ancestor of whatever a grader starts, so that it is found (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _kind(function: Callable[..., Any]) -> str:
    if getattr(function, "batched", False):
        return "batched"
    return "async" if inspect.iscoroutinefunction(function) else "plain"


def _set_alarm(seconds: float) -> None:
    """Have the kernel end this process unless it is called again within `seconds`.

    The default action of SIGALRM needs no interpreter, so that it also ends native code.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _run_plain(function: Any, answers: Answers, timeout_s: float, report: Any) -> None:
    for index, problem, response in answers:
        _set_alarm(timeout_s + ALARM_GRACE_S)
        start = time.perf_counter()
        try:
            result = as_result(function(problem, response))
        except BaseException as error:
            result = _failure(error)
        report({"index": index, "seconds": time.perf_counter() - start, **result})


def _run_async(function: Any, answers: Answers, timeout_s: float, report: Any) -> None:
    """All answers at once; one that lets the others run is ended alone when its time is up."""

    async def one(index: int, problem: Any, response: str) -> None:
        start = time.perf_counter()
        try:
            result = as_result(await asyncio.wait_for(function(problem, response), timeout_s))
        except TimeoutError:
            result = {"kind": "timeout", "message": f"no result within {timeout_s:g} s"}
        except BaseException as error:
            result = _failure(error)
        report({"index": index, "seconds": time.perf_counter() - start, **result})

    async def everyone() -> None:
        await asyncio.gather(*(one(*answer) for answer in answers))

    _set_alarm(timeout_s + ALARM_GRACE_S)
    asyncio.run(everyone())


def _run_batched(function: Any, answers: Answers, timeout_s: float, report: Any) -> None:
    """One call for all; where it fails, each answer alone, so that one cannot spoil the rest."""
    _set_alarm(timeout_s * len(answers) + ALARM_GRACE_S)
    start = time.perf_counter()
    try:
        values = function([problem for _, problem, _ in answers], [text for _, _, text in answers])
        values = values.tolist() if _is_array(values) else values
        if not isinstance(values, list | tuple) or len(values) != len(answers):
            raise TypeError(f"expected a list of {len(answers)}, got {_show(values)}")
        results = [as_result(value) for value in values]
    except BaseException as error:
        if len(answers) > 1:
            for answer in answers:
                _run_batched(function, [answer], timeout_s, report)
            return
        results = [_failure(error)]
    seconds = (time.perf_counter() - start) / len(answers)
    for (index, _, _), result in zip(answers, results, strict=True):
        report({"index": index, "seconds": seconds, **result})


def as_result(value: Any) -> dict[str, Any]:
    """What a reward function returned, as a message; a failure where it is no finite reward.

    Scalars of numpy and torch are taken for what they are.
    """
    value = _plain(value)
    if isinstance(value, bool):
        value = Score(float(value), value)
    elif isinstance(value, numbers.Real):
        value = Score(float(value))
    if not isinstance(value, Score) or not isinstance(_plain(value.value), numbers.Real):
        return {"kind": "bad_type", "message": f"expected a number or a Score, got {_show(value)}"}
    if value.error is not None:
        return {"kind": "error", "message": str(value.error)[:MAX_TEXT]}
    numbers_given = [float(value.value), *(float(part) for part in value.parts.values())]
    if not all(math.isfinite(number) for number in numbers_given):
        return {"kind": "bad_type", "message": f"expected finite numbers, got {numbers_given}"}
    return {
        "kind": None,
        "value": numbers_given[0],
        "correct": value.correct if value.correct is None else bool(value.correct),
        "extracted": None if value.extracted is None else str(value.extracted)[:MAX_TEXT],
        "note": None if value.note is None else str(value.note)[:MAX_TEXT],
    }


def _is_array(value: Any) -> bool:
    """Whether it is an array of numpy, or a tensor of torch; neither is loaded for the question."""
    return hasattr(value, "tolist") and hasattr(value, "ndim")


def _plain(value: Any) -> Any:
    """An array or tensor of one element as the plain number or bool in it."""
    if _is_array(value) and math.prod(value.shape) == 1:
        return value.item()
    return value


def _failure(error: BaseException) -> dict[str, Any]:
    kind = "error"
    if isinstance(error, MemoryError):
        kind = "memory"
    elif isinstance(error, SystemExit):
        kind = "crash"
    return {"kind": kind, "message": _describe(error)}


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_TEXT]


def _show(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:100]!r}"


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent closed it, or is gone
        main()
    os._exit(0)  # without waiting for whatever threads a grader left running
